"""Reductions."""

from __future__ import annotations

from collections.abc import Callable

import torch

from mvtool.runtimes.mlprogram.carriers import carrier_dtype
from mvtool.runtimes.mlprogram.dtypes import FLOATS
from mvtool.runtimes.mlprogram.registry import Call, Kernel, operator

Reduce = Callable[[torch.Tensor, list[int], bool], torch.Tensor]

_ANY: dict[str, Reduce] = {
    "reduce_sum": lambda x, axes, keep: torch.sum(x, axes, keep, dtype=x.dtype),
    "reduce_sum_square": lambda x, axes, keep: torch.sum(x * x, axes, keep, dtype=x.dtype),
    "reduce_l1_norm": lambda x, axes, keep: torch.sum(torch.abs(x), axes, keep, dtype=x.dtype),
    "reduce_prod": lambda x, axes, keep: _product(x, axes, keep),
}
_REAL: dict[str, Reduce] = {
    "reduce_mean": torch.mean,
    "reduce_l2_norm": lambda x, axes, keep: torch.sqrt(torch.sum(x * x, axes, keep)),
    "reduce_log_sum": lambda x, axes, keep: torch.log(torch.sum(x, axes, keep)),
    "reduce_log_sum_exp": torch.logsumexp,
}
_CHOICE: dict[str, Reduce] = {
    "reduce_max": torch.amax,
    "reduce_min": torch.amin,
}


def _product(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keep, dtype=x.dtype)
    return x


def _enter(kind: str, compute: Reduce, real: bool, exact: bool) -> None:
    def build(call: Call) -> Kernel:
        x = call.tensor("x")
        axes = [call.normal_axis(axis, x.rank) for axis in call.integers("axes", list(range(x.rank)))]
        keep = call.boolean("keep_dims", False)
        if not axes or len(set(axes)) != len(axes):
            raise call.error(f"the axes {axes} of {x} cannot be reduced")
        if real and x.dtype not in FLOATS:
            raise call.error(f"a reduction of {x} is not supported, expected real numbers")
        return lambda x: compute(x, axes, keep)

    operator(kind, exact=exact, wide=not exact)(build)


for _kind, _compute in _ANY.items():
    _enter(_kind, _compute, real=False, exact=False)
for _kind, _compute in _REAL.items():
    _enter(_kind, _compute, real=True, exact=False)
for _kind, _compute in _CHOICE.items():
    _enter(_kind, _compute, real=False, exact=True)


@operator("reduce_argmax", "reduce_argmin", exact=True)
def reduce_arg(call: Call) -> Kernel:
    """Index of the largest or smallest element along `axis`; the first of equals."""
    x = call.tensor("x")
    axis = call.axis("axis", x.rank, default=-1)
    keep = call.boolean("keep_dims", False)
    target = call.output.dtype
    call.text("output_dtype", (target.value,), default=target.value)
    find = torch.argmax if call.kind == "reduce_argmax" else torch.argmin
    carrier = carrier_dtype(target)
    return lambda x: find(x, axis, keep).to(carrier)
