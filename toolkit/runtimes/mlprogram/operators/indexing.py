"""Gathering by index."""

from __future__ import annotations

import math

import torch

from mvtool.runtimes.mlprogram.carriers import carrier_dtype
from mvtool.runtimes.mlprogram.dtypes import DType
from mvtool.runtimes.mlprogram.registry import Call, Kernel, operator

INDEX_TYPES = frozenset({DType.INT8, DType.UINT8, DType.INT16, DType.UINT16, DType.INT32})


def index_operand(call: Call, key: str = "indices") -> tuple[int, ...]:
    """Pass the index operand to the kernel and return its shape.

    `validate_indices` (iOS 17) asks the runtime to check indices; the evaluator always does.
    """
    indices = call.tensor(key)
    if indices.dtype not in INDEX_TYPES:
        raise call.error(f"{key!r} is {indices}, expected integers")
    call.boolean("validate_indices", False)
    return indices.shape


def positions(indices: torch.Tensor, extent: int) -> torch.Tensor:
    """Return indices as int64 with negative ones counted from the end."""
    wide = indices.to(torch.int64)
    return torch.where(wide < 0, wide + extent, wide)


@operator("gather", exact=True)
def gather(call: Call) -> Kernel:
    """Take slices along `axis`, for each of the leading `batch_dims` axes by its own indices."""
    x = call.tensor("x")
    shape = index_operand(call)
    axis, batch = call.axis("axis", x.rank, default=0), call.integer("batch_dims", 0)
    if not 0 <= batch <= min(axis, len(shape)) or x.shape[:batch] != shape[:batch]:
        raise call.error(f"batch_dims {batch} does not fit {x}, indices {shape} and axis {axis}")
    extent, groups = x.shape[axis], math.prod(x.shape[:batch])
    result = [*x.shape[:axis], *shape[batch:], *x.shape[axis + 1 :]]
    if batch == 0:
        return lambda x, i: x.index_select(axis, positions(i, extent).reshape(-1)).reshape(result)

    def kernel(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        data = x.reshape(groups, *x.shape[batch:])
        chosen = positions(indices, extent).reshape(groups, -1)
        parts = [data[group].index_select(axis - batch, chosen[group]) for group in range(groups)]
        return torch.stack(parts).reshape(result)

    return kernel


@operator("gather_along_axis", exact=True)
def gather_along_axis(call: Call) -> Kernel:
    """Take single elements along `axis`; the other axes of both operands correspond."""
    x = call.tensor("x")
    shape = index_operand(call)
    axis = call.axis("axis", x.rank, default=0)
    if len(shape) != x.rank or any(a != b for i, (a, b) in enumerate(zip(shape, x.shape, strict=True)) if i != axis):
        raise call.error(f"indices {shape} do not fit {x} along axis {axis}")
    extent = x.shape[axis]
    return lambda x, indices: torch.gather(x, axis, positions(indices, extent))


@operator("gather_nd", exact=True)
def gather_nd(call: Call) -> Kernel:
    """Take slices by index vectors, which lie along the last axis of `indices`."""
    x = call.tensor("x")
    shape = index_operand(call)
    batch = call.integer("batch_dims", 0)
    if not shape or not 0 <= batch < len(shape) or batch + shape[-1] > x.rank or x.shape[:batch] != shape[:batch]:
        raise call.error(f"indices {shape} with batch_dims {batch} do not fit {x}")
    depth, groups = shape[-1], math.prod(x.shape[:batch])
    extents = x.shape[batch : batch + depth]
    result = [*shape[:-1], *x.shape[batch + depth :]]

    def kernel(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        data = x.reshape(groups, math.prod(extents), -1)
        flat = linear_positions(indices, extents).reshape(groups, -1)
        return torch.stack([data[group].index_select(0, flat[group]) for group in range(groups)]).reshape(result)

    return kernel


def linear_positions(indices: torch.Tensor, extents: tuple[int, ...]) -> torch.Tensor:
    """Return row-major positions of index vectors, which lie along the last axis.

    Raises:
        IndexError: A component is out of range.
    """
    total = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=indices.device)
    for component, extent in enumerate(extents):
        column = positions(indices[..., component], extent)
        # A component out of range could still name an existing element of another row.
        if not column.is_meta and bool(((column < 0) | (column >= extent)).any()):
            raise IndexError(f"an index is out of range for an axis of {extent}")
        total = total * extent + column
    return total


@operator("one_hot")
def one_hot(call: Call) -> Kernel:
    """`on_value` where the position along the new `axis` equals the index, else `off_value`."""
    shape = index_operand(call)
    size = call.integer("one_hot_vector_size")
    axis = call.axis("axis", len(shape) + 1, default=-1)
    carrier = carrier_dtype(call.output.dtype)
    on, off = (
        torch.tensor(call.array(key).item() if call.has(key) else default, dtype=carrier)
        for key, default in (("on_value", 1), ("off_value", 0))
    )
    if call.output.size > 1 << 28 or not 0 <= size <= call.output.size:
        raise call.error(f"one_hot_vector_size {size} does not fit the declared result {call.output}")
    call.bind(torch.arange(size).reshape([size] + [1] * (len(shape) - axis)))
    call.bind(on)
    call.bind(off)
    return lambda indices, steps, on, off: torch.where(indices.unsqueeze(axis) == steps, on, off)
