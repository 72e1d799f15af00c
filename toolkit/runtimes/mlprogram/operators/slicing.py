"""Slices, sliding windows, crops and bands."""

from __future__ import annotations

import torch

from mvtool.runtimes.mlprogram.dtypes import TensorType
from mvtool.runtimes.mlprogram.registry import Call, Kernel, operator


@operator("slice_by_index", exact=True)
def slice_by_index(call: Call) -> Kernel:
    """`x[begin:end:stride, ...]` with numpy's meaning of negative numbers; masks open or squeeze axes."""
    x = call.tensor("x")
    cut, squeezed = _cut(call, x)
    flipped = [axis for axis, part in enumerate(cut) if part.step < 0]
    index = tuple(_forward(part) for part in cut)
    kept = [len(part) for axis, part in enumerate(cut) if axis not in squeezed]

    def kernel(x: torch.Tensor) -> torch.Tensor:
        result = x[index]
        result = torch.flip(result, flipped) if flipped else result
        return result.reshape(kept) if squeezed else result

    return kernel


@operator("slice_update", exact=True)
def slice_update(call: Call) -> Kernel:
    """`x` with the slice `[begin:end:stride, ...]` replaced by `update`."""
    x = call.tensor("x")
    update = call.tensor("update")
    cut, squeezed = _cut(call, x)
    flipped = [axis for axis, part in enumerate(cut) if part.step < 0]
    index = tuple(_forward(part) for part in cut)
    shape = [len(part) for part in cut]
    kept = tuple(len(part) for axis, part in enumerate(cut) if axis not in squeezed)
    if update.shape != kept or update.dtype is not x.dtype:
        raise call.error(f"the update {update} does not fit the slice {kept} of {x}")

    def kernel(x: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
        result = x.clone()
        result[index] = torch.flip(update.reshape(shape), flipped)
        return result

    return kernel


@operator("slice_by_size", exact=True)
def slice_by_size(call: Call) -> Kernel:
    """`size` elements from `begin` on along each axis; -1 takes the rest."""
    x = call.tensor("x")
    begin, size = call.integers("begin", length=x.rank), call.integers("size", length=x.rank)
    index = []
    for first, count, extent in zip(begin, size, x.shape, strict=True):
        start = first + extent if first < 0 else first
        stop = extent if count == -1 else start + count
        if not 0 <= start <= stop <= extent:
            raise call.error(f"{count} elements from {first} on do not lie in {x}")
        index.append(slice(start, stop))
    cut = tuple(index)
    return lambda x: x[cut]


@operator("crop", exact=True)
def crop(call: Call) -> Kernel:
    """Cut margins off the last two axes."""
    x = call.tensor("x")
    top, bottom = call.integers("crop_height", length=2)
    left, right = call.integers("crop_width", length=2)
    if x.rank < 3 or min(top, bottom, left, right) < 0:
        raise call.error(f"margins {top}, {bottom}, {left}, {right} do not fit {x}")
    rows, columns = slice(top, x.shape[-2] - bottom), slice(left, x.shape[-1] - right)
    return lambda x: x[..., rows, columns]


@operator("sliding_windows", exact=True)
def sliding_windows(call: Call) -> Kernel:
    """All windows along `axis`; the axis of a window's elements follows `axis`."""
    axis = call.axis("axis", call.tensor("x").rank)
    size, stride = call.integer("size"), call.integer("stride", 1)
    return lambda x: x.unfold(axis, size, stride).movedim(-1, axis + 1)


@operator("band_part", exact=True)
def band_part(call: Call) -> Kernel:
    """Zero everything outside a band around the diagonal of the last two axes; negative widths keep all."""
    x = call.tensor("x")
    lower, upper = call.integer("lower", -1), call.integer("upper", -1)
    if x.rank < 2:
        raise call.error(f"{x} has no matrix axes")
    below = torch.arange(x.shape[-2])[:, None] - torch.arange(x.shape[-1])[None]
    inside = torch.ones(x.shape[-2:], dtype=torch.bool)
    inside &= (below <= lower) if lower >= 0 else inside
    inside &= (-below <= upper) if upper >= 0 else inside
    call.bind(inside)
    return lambda x, inside: torch.where(inside, x, torch.zeros((), dtype=x.dtype, device=x.device))


def _cut(call: Call, x: TensorType) -> tuple[list[range], set[int]]:
    """Return the positions taken along each axis, and the axes that are squeezed."""
    begin, end = call.integers("begin", length=x.rank), call.integers("end", length=x.rank)
    stride = call.integers("stride", [1] * x.rank, x.rank)
    open_begin = call.booleans("begin_mask", [False] * x.rank)
    open_end = call.booleans("end_mask", [False] * x.rank)
    squeeze = call.booleans("squeeze_mask", [False] * x.rank)
    if 0 in stride:
        raise call.error(f"a stride in {stride} is zero")
    cut = []
    for axis, extent in enumerate(x.shape):
        first = None if open_begin[axis] else begin[axis]
        if squeeze[axis]:
            position = call.normal_axis(first or 0, extent)
            cut.append(range(position, position + 1))
            continue
        last = None if open_end[axis] else end[axis]
        cut.append(range(*slice(first, last, stride[axis]).indices(extent)))
    return cut, {axis for axis in range(x.rank) if squeeze[axis]}


def _forward(part: range) -> slice:
    """Return the slice of the same positions in ascending order, since torch has no negative steps."""
    if len(part) == 0:
        return slice(0, 0)
    ascending = part if part.step > 0 else part[::-1]
    return slice(ascending.start, ascending.stop, ascending.step)
