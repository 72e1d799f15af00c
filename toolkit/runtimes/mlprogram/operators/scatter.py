"""Scattering by index: data with some elements replaced or combined."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from mvtool.runtimes.mlprogram.dtypes import FLOATS, TensorType
from mvtool.runtimes.mlprogram.operators.indexing import index_operand, linear_positions, positions
from mvtool.runtimes.mlprogram.registry import Call, Kernel, operator

Combine = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _divide(data: torch.Tensor, rows: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
    return data / _reduced(torch.ones_like(data), rows, updates, "prod")


def _reduced(data: torch.Tensor, rows: torch.Tensor, updates: torch.Tensor, how: str) -> torch.Tensor:
    return data.scatter_reduce(0, rows[:, None].expand_as(updates), updates, how)


# Each takes data (R, K), row numbers (M,) and updates (M, K).
_MODES: dict[str, Combine] = {
    "update": lambda data, rows, updates: data.index_copy(0, rows, updates),
    "add": lambda data, rows, updates: data.index_add(0, rows, updates),
    "sub": lambda data, rows, updates: data.index_add(0, rows, updates, alpha=-1),
    "mul": lambda data, rows, updates: _reduced(data, rows, updates, "prod"),
    "div": _divide,
    "max": lambda data, rows, updates: _reduced(data, rows, updates, "amax"),
    "min": lambda data, rows, updates: _reduced(data, rows, updates, "amin"),
}


@operator("scatter")
def scatter(call: Call) -> Kernel:
    """Combine slices along `axis` at the positions `indices (M,)`."""
    data, shape, updates, combine = _operands(call)
    axis = call.axis("axis", data.rank, default=0)
    expected = (*data.shape[:axis], *shape, *data.shape[axis + 1 :])
    if len(shape) != 1 or updates.shape != expected:
        raise call.error(f"updates {updates} and indices {shape} do not fit axis {axis} of {data}")
    extent = data.shape[axis]

    def kernel(data: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        front = data.movedim(axis, 0)
        rows = positions(indices, extent)
        changed = updates.movedim(axis, 0).reshape(rows.shape[0], -1)
        result = combine(front.reshape(extent, -1), rows, changed)
        return result.reshape(front.shape).movedim(0, axis)

    return kernel


@operator("scatter_along_axis")
def scatter_along_axis(call: Call) -> Kernel:
    """Combine single elements along `axis`; the other axes of all operands correspond."""
    data, shape, updates, combine = _operands(call)
    axis = call.axis("axis", data.rank, default=0)
    rest = [extent for i, extent in enumerate(data.shape) if i != axis]
    if updates.shape != shape or len(shape) != data.rank or [s for i, s in enumerate(shape) if i != axis] != rest:
        raise call.error(f"updates {updates} and indices {shape} do not fit axis {axis} of {data}")
    extent, columns = data.shape[axis], math.prod(rest)
    call.bind(torch.arange(columns))

    def kernel(data: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        front = data.movedim(axis, 0)
        chosen = indices.movedim(axis, 0).reshape(-1, columns)
        rows = (linear_positions(chosen[..., None], (extent,)) * columns + column).reshape(-1)
        changed = updates.movedim(axis, 0).reshape(-1, 1)
        return combine(front.reshape(-1, 1), rows, changed).reshape(front.shape).movedim(0, axis)

    return kernel


@operator("scatter_nd")
def scatter_nd(call: Call) -> Kernel:
    """Combine slices at index vectors, which lie along the last axis of `indices`."""
    data, shape, updates, combine = _operands(call)
    if not shape or shape[-1] > data.rank or updates.shape != (*shape[:-1], *data.shape[shape[-1] :]):
        raise call.error(f"updates {updates} and indices {shape} do not fit {data}")
    extents = data.shape[: shape[-1]]
    count, width = math.prod(shape[:-1]), math.prod(data.shape[shape[-1] :])

    def kernel(data: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        rows = linear_positions(indices, extents).reshape(count)
        result = combine(data.reshape(math.prod(extents), width), rows, updates.reshape(count, width))
        return result.reshape(data.shape)

    return kernel


def _operands(call: Call) -> tuple[TensorType, tuple[int, ...], TensorType, Combine]:
    data = call.tensor("data")
    shape = index_operand(call)
    updates = call.tensor("updates")
    # coremltools 9.0 documents `update` as default of one operator and implements `add`; it always writes the mode.
    mode = call.text("mode", tuple(_MODES))
    if updates.dtype is not data.dtype or (mode == "div" and data.dtype not in FLOATS):
        raise call.error(f"mode {mode!r} of {data} by {updates} is not supported")
    return data, shape, updates, _MODES[mode]
