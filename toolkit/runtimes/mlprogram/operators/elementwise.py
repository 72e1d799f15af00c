"""Elementwise arithmetic, comparison, logic and casts."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mvtool.runtimes.mlprogram.carriers import carrier_dtype
from mvtool.runtimes.mlprogram.dtypes import FLOATS, DType
from mvtool.runtimes.mlprogram.registry import Call, Kernel, operator

_BINARY: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    # Floor division and modulo round towards minus infinity, as in Python.
    "floor_div": torch.floor_divide,
    "mod": torch.remainder,
    "pow": torch.pow,
}
_CHOICE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "less": torch.lt,
    "less_equal": torch.le,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
}
_UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}
_EXACT_UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "abs": torch.abs,
    "ceil": torch.ceil,
    "floor": torch.floor,
    "logical_not": torch.logical_not,
    # Ties go to the even integer, as in numpy's `around`.
    "round": torch.round,
    "sign": torch.sign,
    "identity": lambda x: x,
}


def _enter_binary(kind: str, compute: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], exact: bool) -> None:
    def build(call: Call) -> Kernel:
        x, y = call.tensor("x"), call.tensor("y")
        if x.dtype is not y.dtype:
            raise call.error(f"its operands are {x} and {y}, expected one element type")
        return compute

    operator(kind, exact=exact)(build)


def _enter_unary(kind: str, compute: Callable[[torch.Tensor], torch.Tensor], exact: bool) -> None:
    def build(call: Call) -> Kernel:
        call.tensor("x")
        return compute

    operator(kind, exact=exact)(build)


for _kind, _compute2 in _BINARY.items():
    _enter_binary(_kind, _compute2, exact=False)
for _kind, _compute2 in _CHOICE.items():
    _enter_binary(_kind, _compute2, exact=True)
for _kind, _compute1 in _UNARY.items():
    _enter_unary(_kind, _compute1, exact=False)
for _kind, _compute1 in _EXACT_UNARY.items():
    _enter_unary(_kind, _compute1, exact=True)


@operator("real_div")
def real_div(call: Call) -> Kernel:
    """Division of real numbers; what integers would give is not documented."""
    x, y = call.tensor("x"), call.tensor("y")
    if x.dtype is not y.dtype or x.dtype not in FLOATS:
        raise call.error(f"its operands are {x} and {y}, expected one real element type")
    return torch.true_divide


@operator("select", exact=True)
def select(call: Call) -> Kernel:
    """`a` where `cond` is true, else `b`."""
    cond, a, b = call.tensor("cond"), call.tensor("a"), call.tensor("b")
    if cond.dtype is not DType.BOOL or a.dtype is not b.dtype:
        raise call.error(f"its operands are {cond}, {a} and {b}, expected bool and two of one element type")
    return torch.where


@operator("clip")
def clip(call: Call) -> Kernel:
    """`min(max(x, alpha), beta)`."""
    call.tensor("x")
    alpha, beta = call.number("alpha"), call.number("beta")
    return lambda x: torch.clamp(x, alpha, beta)


@operator("threshold")
def threshold(call: Call) -> Kernel:
    """`max(x, alpha)`."""
    call.tensor("x")
    alpha = call.number("alpha")
    return lambda x: torch.clamp(x, min=alpha)


@operator("inverse")
def inverse(call: Call) -> Kernel:
    """`1 / (x + epsilon)`."""
    call.tensor("x")
    epsilon = call.number("epsilon", 1e-4)
    return lambda x: torch.reciprocal(x + epsilon)


@operator("log")
def log(call: Call) -> Kernel:
    """`log(x + epsilon)`."""
    call.tensor("x")
    epsilon = call.number("epsilon", 1e-45)
    return lambda x: torch.log(x + epsilon)


@operator("rsqrt")
def rsqrt(call: Call) -> Kernel:
    """`1 / sqrt(x + epsilon)`."""
    call.tensor("x")
    epsilon = call.number("epsilon", 1e-12)
    return lambda x: torch.rsqrt(x + epsilon)


@operator("cast")
def cast(call: Call) -> Kernel:
    """Real numbers become integers by truncation, integers wrap around, everything but 0 is true."""
    source = call.tensor("x").dtype
    target = call.output.dtype
    call.text("dtype", (target.value,))
    carrier = carrier_dtype(target)
    if target in FLOATS or target is DType.BOOL or source is DType.BOOL:
        return lambda x: x.to(carrier)
    bits = {DType.INT8: 8, DType.UINT8: 8, DType.INT16: 16, DType.UINT16: 16, DType.INT32: 32}.get(target)
    if bits is None:
        raise call.error(f"a cast to {target} is not supported")
    lowest = 0 if target in (DType.UINT8, DType.UINT16) else -(1 << (bits - 1))
    span = 1 << bits
    # Through int64, because torch leaves a real number outside the target's range undefined.
    return lambda x: (torch.remainder(x.to(torch.int64) - lowest, span) + lowest).to(carrier)
