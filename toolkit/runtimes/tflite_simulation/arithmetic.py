"""Operators that work element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mvtool.errors import RuntimeLoadError
from mvtool.runtimes.tflite_simulation.table import Place, Step, offset_operator, operator
from mvtool.runtimes.xnnpack_arithmetic import conversion_factor, product_factor, sum_factors

FUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "relu_n1_to_1": lambda x: torch.clamp(x, -1.0, 1.0),
    "relu6": lambda x: torch.clamp(x, 0.0, 6.0),
    "tanh": torch.tanh,
}


def fused(place: Place) -> Callable[[Tensor], Tensor]:
    """The activation that an operator applies to its result.

    Raises:
        RuntimeLoadError: It is not known.
    """
    name = place.options.get("fusedActivationFunction", "none")
    if name not in FUSED:
        raise RuntimeLoadError(f"The simulation does not know the fused activation {name!r} of {place.output.name!r}.")
    return FUSED[name]


BINARY: dict[str, Callable[[Any, Any], Tensor]] = {
    "ADD": torch.add,
    "SUB": torch.sub,
    "MUL": torch.mul,
    "DIV": torch.div,
    "MINIMUM": torch.minimum,
    "MAXIMUM": torch.maximum,
    "POW": torch.pow,
    "SQUARED_DIFFERENCE": lambda a, b: (a - b) * (a - b),
    "EQUAL": torch.eq,
    "NOT_EQUAL": torch.ne,
    "LESS": torch.lt,
    "LESS_EQUAL": torch.le,
    "GREATER": torch.gt,
    "GREATER_EQUAL": torch.ge,
    "LOGICAL_AND": torch.logical_and,
    "LOGICAL_OR": torch.logical_or,
}


@operator(*BINARY)
def binary(place: Place) -> Step:
    """Two operands, broadcast."""
    compute, activate = BINARY[place.operator.kind], fused(place)
    return lambda a, b: activate(compute(a, b))


@offset_operator("ADD", "SUB", half_up=True)
def offset_sum(place: Place) -> Step:
    """Each operand in units of the result."""
    first, second = sum_factors(place.scale(0), place.scale(1), place.output.scale)
    if place.operator.kind == "SUB":
        second = -second
    # In float64 the sum is exact, as it is on integers: halves are met often enough to matter.
    return lambda a, b: a.double() * first + b.double() * second


@offset_operator("MUL")
def offset_product(place: Place) -> Step:
    """The exact product of integers, then one factor."""
    factor = product_factor(place.scale(0), place.scale(1), place.output.scale)
    return lambda a, b: (a * b) * factor


UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "RELU": torch.relu,
    "RELU6": lambda x: torch.clamp(x, 0.0, 6.0),
    "RELU_N1_TO_1": lambda x: torch.clamp(x, -1.0, 1.0),
    "RELU_0_TO_1": lambda x: torch.clamp(x, 0.0, 1.0),
    "HARD_SWISH": F.hardswish,
    "LOGISTIC": torch.sigmoid,
    "TANH": torch.tanh,
    "ELU": F.elu,
    "EXP": torch.exp,
    "LOG": torch.log,
    "SIN": torch.sin,
    "COS": torch.cos,
    "SQRT": torch.sqrt,
    "RSQRT": torch.rsqrt,
    "SQUARE": torch.square,
    "ABS": torch.abs,
    "NEG": torch.neg,
    "FLOOR": torch.floor,
    "CEIL": torch.ceil,
    "ROUND": torch.round,
    "LOGICAL_NOT": torch.logical_not,
}


@operator(*UNARY)
def unary(place: Place) -> Step:
    """One operand."""
    return UNARY[place.operator.kind]


@operator("SELECT", "SELECT_V2")
def select(place: Place) -> Step:
    """The second operand where the first is true, else the third."""
    return lambda condition, a, b: torch.where(condition, a, b)


@operator("QUANTIZE", "DEQUANTIZE")
def convert(place: Place) -> Step:
    """Values are real numbers already; the rounding to the output's scale follows."""
    return lambda x: x


@offset_operator("QUANTIZE", half_up=True)
def requantize(place: Place) -> Step:
    """From one scale to another."""
    factor = conversion_factor(place.scale(0), place.output.scale)
    return lambda x: x * factor


@operator("LEAKY_RELU")
def leaky_relu(place: Place) -> Step:
    """Negative values times `alpha`."""
    slope = float(place.options["alpha"])
    return lambda x: F.leaky_relu(x, slope)


@offset_operator("LEAKY_RELU", half_up=True)
def offset_leaky_relu(place: Place) -> Step:
    """A factor for values above zero and one for values below."""
    above = conversion_factor(place.scale(0), place.output.scale)
    below = conversion_factor(place.scale(0), place.output.scale, float(place.options["alpha"]))
    return lambda x: torch.where(x >= 0, x * above, x * below)


@operator("GELU")
def gelu(place: Place) -> Step:
    """Exact, or the tanh form."""
    form = "tanh" if place.options.get("approximate") else "none"
    return lambda x: F.gelu(x, approximate=form)


@operator("SOFTMAX")
def softmax(place: Place) -> Step:
    """Over the last axis."""
    beta = float(place.options["beta"])
    return lambda x: torch.softmax(x * beta, -1)


@operator("CAST")
def cast(place: Place) -> Step:
    """To the output's element type."""
    target = getattr(torch, place.output.dtype)
    return lambda x: x.to(target)
