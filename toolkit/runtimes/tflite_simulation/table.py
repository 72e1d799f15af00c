"""The table of operators and what each is called with.

An operator comes in one or two forms. The *real* form computes on real numbers. The *offset* form computes
on `stored - zero point`, small integers in float32, where it is exact until it multiplies by a ratio of
scales: exactly what the runtime's integer kernels do. Operators that only move values need one form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from mvtool.errors import RuntimeLoadError
from mvtool.ports import AnyArray
from mvtool.runtimes.borders import Borders
from mvtool.runtimes.tflite_simulation.model import Model, Operator, Tensor

if TYPE_CHECKING:
    import torch

LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
ACTIVATION_RANGE = {
    "none": (-np.inf, np.inf),
    "relu": (0.0, np.inf),
    "relu_n1_to_1": (-1.0, 1.0),
    "relu6": (0.0, 6.0),
}


class Form(Enum):
    """What a prepared operator takes and gives.

    REAL: Real numbers; the result is divided by its scale and rounded.
    OFFSET: `stored - zero point`; the result is in units of its scale and still to be rounded.
    CARRY: `stored - zero point`; the result is final.
    """

    REAL = "real"
    OFFSET = "offset"
    CARRY = "carry"


Step = Callable[..., "torch.Tensor"]
"""Values of the inputs (None for one left out) to the value of the output."""


@dataclass(frozen=True)
class Place:
    """An operator in its model, for the functions that prepare it."""

    model: Model
    operator: Operator
    round_activations: bool
    borders: Borders

    @property
    def site(self) -> str:
        """Name of the operator's rounding among the simulation's borders."""
        return f"{self.operator.outputs[0]} {self.output.name}"

    @property
    def options(self) -> dict[str, Any]:
        """Fields of the operator's options."""
        return self.operator.options

    def tensor(self, index: int) -> Tensor | None:
        """The `index`-th input, None if it is left out."""
        if index >= len(self.operator.inputs) or self.operator.inputs[index] < 0:
            return None
        return self.model.tensors[self.operator.inputs[index]]

    def given(self, index: int) -> Tensor:
        """The `index`-th input.

        Raises:
            RuntimeLoadError: It is left out.
        """
        tensor = self.tensor(index)
        if tensor is None:
            raise RuntimeLoadError(f"{self.operator.kind} lacks its input {index}.")
        return tensor

    def constant(self, index: int) -> AnyArray:
        """Real value of a constant input.

        Raises:
            RuntimeLoadError: It is no constant.
        """
        return self.given(index).real

    @property
    def output(self) -> Tensor:
        """The first output."""
        return self.model.tensors[self.operator.outputs[0]]

    @property
    def data(self) -> list[Tensor]:
        """Inputs that hold real numbers."""
        found = [self.model.tensors[i] for i in self.operator.inputs if i >= 0]
        return [t for t in found if t.quantized or t.dtype == "float32"]

    def scale(self, index: int) -> float:
        """Scale of the `index`-th input."""
        return self.given(index).scale

    @property
    def activation(self) -> str:
        """Name of the activation that the operator applies to its result."""
        return str(self.options.get("fusedActivationFunction", "none"))


@dataclass(frozen=True)
class Prepared:
    """An operator ready to run.

    Attributes:
        step: The computation.
        form: What it takes and gives.
        low: Smallest result in the OFFSET form.
        high: Largest result in the OFFSET form.
        half_up: Halves are rounded up instead of to even, in the OFFSET form.
    """

    step: Step
    form: Form
    low: float = field(default=-np.inf)
    high: float = field(default=np.inf)
    half_up: bool = False


Prepare = Callable[[Place], Step]

OPERATORS: dict[str, Prepare] = {}
OFFSETS: dict[str, Prepare] = {}
CARRIES: set[str] = set()
HALF_UP: set[str] = set()
"""Kinds whose XNNPACK kernels round by adding a half and shifting (src/qs8-vadd, src/qs8-vcvt)."""


def operator(*kinds: str, carries: bool = False) -> Callable[[Prepare], Prepare]:
    """Register the function that prepares the real form of operators of these kinds.

    Args:
        kinds: Names in the schema.
        carries: They only move values, so that the function serves offsets too.
    """
    if carries:
        CARRIES.update(kinds)
    return _adder(OPERATORS, kinds)


def offset_operator(*kinds: str, half_up: bool = False) -> Callable[[Prepare], Prepare]:
    """Register the function that prepares the offset form of operators of these kinds."""
    if half_up:
        HALF_UP.update(kinds)
    return _adder(OFFSETS, kinds)


def _adder(table: dict[str, Prepare], kinds: tuple[str, ...]) -> Callable[[Prepare], Prepare]:
    def add(prepare: Prepare) -> Prepare:
        for kind in kinds:
            if kind in table:
                raise ValueError(f"operator {kind} is registered twice")
            table[kind] = prepare
        return prepare

    return add


def prepare_operator(place: Place) -> Prepared:
    """Choose and prepare a form.

    Raises:
        RuntimeLoadError: The operator, or its fused activation, is not known.
    """
    kind = place.operator.kind
    if kind not in OPERATORS:
        raise RuntimeLoadError(
            f"The simulation does not know the operator {kind} (it writes {place.output.name!r}); "
            f"it knows {', '.join(sorted(OPERATORS))}."
        )
    integers = place.round_activations and place.output.quantized and all(t.quantized for t in place.data)
    if integers and kind in CARRIES and place.activation == "none" and _same_parameters(place):
        return Prepared(OPERATORS[kind](place), Form.CARRY)
    if integers and kind in OFFSETS and place.activation in ACTIVATION_RANGE:
        low, high = _limits(place)
        return Prepared(OFFSETS[kind](place), Form.OFFSET, low, high, kind in HALF_UP)
    return Prepared(OPERATORS[kind](place), Form.REAL)


def _same_parameters(place: Place) -> bool:
    return all((t.scale, t.zero_point) == (place.output.scale, place.output.zero_point) for t in place.data)


def _limits(place: Place) -> tuple[float, float]:
    """Bounds of the result in offsets: the type's, and the fused activation's, rounded as TFLite rounds them."""
    output = place.output
    low, high = (limit - output.zero_point for limit in LIMITS[output.dtype])
    bounds = [np.float32(b) / np.float32(output.scale) for b in ACTIVATION_RANGE[place.activation]]
    return float(max(low, np.rint(bounds[0]))), float(min(high, np.rint(bounds[1])))
