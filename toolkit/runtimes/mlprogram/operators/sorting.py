"""Sorting, selection of extremes, and running sums."""

from __future__ import annotations

import torch

from mvtool.runtimes.mlprogram.carriers import carrier_dtype
from mvtool.runtimes.mlprogram.registry import Call, Kernel, operator


@operator("topk", exact=True)
def topk(call: Call) -> Kernel:
    """The `k` largest or smallest elements along `axis`, sorted, and their indices; the first of equals."""
    x = call.tensor("x")
    axis = call.axis("axis", x.rank, default=-1)
    k = call.integer("k", 1)
    count = x.shape[axis] if k == -1 else k
    descending = not call.boolean("ascending", False)
    call.boolean("sort", True)  # sorted results are one of the orders that `sort=False` allows
    with_indices = call.boolean("return_indices", True)
    if not 0 <= count <= x.shape[axis] or len(call.outputs) != (2 if with_indices else 1):
        raise call.error(f"k is {k} for axis {axis} of {x} and {len(call.outputs)} results")
    if not with_indices:
        return lambda x: torch.sort(x, dim=axis, descending=descending, stable=True)[0].narrow(axis, 0, count)
    target = call.outputs[1].dtype
    call.text("output_indices_dtype", (target.value,), default=target.value)
    carrier = carrier_dtype(target)

    def kernel(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, indices = torch.sort(x, dim=axis, descending=descending, stable=True)
        return values.narrow(axis, 0, count), indices.narrow(axis, 0, count).to(carrier)

    return kernel


@operator("argsort", exact=True)
def argsort(call: Call) -> Kernel:
    """Indices that sort along `axis`; equal elements keep their order."""
    axis = call.axis("axis", call.tensor("x").rank, default=-1)
    descending = not call.boolean("ascending", False)
    carrier = carrier_dtype(call.output.dtype)
    return lambda x: torch.argsort(x, dim=axis, descending=descending, stable=True).to(carrier)


@operator("cumsum")
def cumsum(call: Call) -> Kernel:
    """Running sum along `axis`, optionally from the end, optionally without the element itself."""
    axis = call.axis("axis", call.tensor("x").rank, default=0)
    exclusive, reverse = call.boolean("exclusive", False), call.boolean("reverse", False)

    def kernel(x: torch.Tensor) -> torch.Tensor:
        x = torch.flip(x, [axis]) if reverse else x
        total = torch.cumsum(x, axis, dtype=x.dtype)
        if exclusive:
            # Shifted rather than total - x, which would lose small sums beside large elements.
            total = torch.cat([torch.zeros_like(x.narrow(axis, 0, 1)), total.narrow(axis, 0, x.shape[axis] - 1)], axis)
        return torch.flip(total, [axis]) if reverse else total

    return kernel
