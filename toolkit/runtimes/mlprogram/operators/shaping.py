"""Shapes, layouts, joining, splitting and filling."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mvtool.runtimes.mlprogram.carriers import carrier_dtype
from mvtool.runtimes.mlprogram.registry import Call, Kernel, operator


@operator("reshape", exact=True)
def reshape(call: Call) -> Kernel:
    """Row-major reshape; 0 copies the extent of the input, -1 is inferred."""
    x = call.tensor("x")
    shape = call.integers("shape")
    if 0 in shape and len(shape) != x.rank:
        raise call.error(f"the shape {shape} copies extents of an input of {x.rank} axes")
    filled = [x.shape[axis] if extent == 0 else extent for axis, extent in enumerate(shape)]
    return lambda x: x.reshape(filled)


@operator("reshape_like", exact=True)
def reshape_like(call: Call) -> Kernel:
    """Reshape to slices `[begin:end]` of the shapes of reference tensors, joined."""
    call.tensor("x")
    # The kernel receives the references as well, but only their shapes count.
    references = call.tensors("ref_tensors")
    begins, ends = call.scalars("begins"), call.scalars("ends")
    masks = call.scalars("end_masks")
    if not len(references) == len(begins) == len(ends) == len(masks):
        raise call.error("ref_tensors, begins, ends and end_masks differ in length")
    shape: list[int] = []
    for reference, begin, end, mask in zip(references, begins, ends, masks, strict=True):
        shape.extend(reference.shape[begin:] if mask else reference.shape[begin:end])
    return lambda x, *_: x.reshape(shape)


@operator("transpose", exact=True)
def transpose(call: Call) -> Kernel:
    """Permute the axes."""
    rank = call.tensor("x").rank
    order = [call.normal_axis(axis, rank) for axis in call.integers("perm", length=rank)]
    return lambda x: x.permute(order)


@operator("expand_dims", exact=True)
def expand_dims(call: Call) -> Kernel:
    """Insert axes of extent 1 at positions of the result."""
    x = call.tensor("x")
    axes = call.integers("axes")
    rank = x.rank + len(axes)
    positions = {call.normal_axis(axis, rank) for axis in axes}
    extents = iter(x.shape)
    if len(positions) != len(axes):
        raise call.error(f"the axes {axes} repeat")
    shape = [1 if axis in positions else next(extents) for axis in range(rank)]
    return lambda x: x.reshape(shape)


@operator("squeeze", exact=True)
def squeeze(call: Call) -> Kernel:
    """Remove axes of extent 1; named axes of another extent stay."""
    x = call.tensor("x")
    axes = {call.normal_axis(axis, x.rank) for axis in call.integers("axes", list(range(x.rank)))}
    shape = [extent for axis, extent in enumerate(x.shape) if axis not in axes or extent != 1]
    return lambda x: x.reshape(shape)


@operator("flatten2d", exact=True)
def flatten2d(call: Call) -> Kernel:
    """Join the axes before `axis` and those from `axis` on."""
    x = call.tensor("x")
    axis = call.integer("axis", 1)
    if not -x.rank <= axis <= x.rank:
        raise call.error(f"axis {axis} does not exist in {x}")
    rows = 1
    for extent in x.shape[:axis]:
        rows *= extent
    return lambda x: x.reshape(rows, -1)


@operator("shape", exact=True)
def shape(call: Call) -> Kernel:
    """The extents of the input, which are known at load time."""
    x = call.tensor("x")
    call.bind(torch.tensor(x.shape, dtype=carrier_dtype(call.output.dtype)))
    return lambda _, extents: extents


@operator("concat", exact=True)
def concat(call: Call) -> Kernel:
    """Join along `axis`, one tensor after the other or interleaved; scalars join to a vector."""
    values = call.tensors("values")
    axis = call.axis("axis", max(values[0].rank, 1))
    if len({value.dtype for value in values}) > 1:
        raise call.error(f"its operands are {', '.join(map(str, values))}, expected one element type")
    if not call.boolean("interleave", False):
        if values[0].rank == 0:
            return lambda *values: torch.stack(values)
        return lambda *values: torch.cat(values, axis)
    if len({value.shape for value in values}) > 1:
        raise call.error("interleaved operands must have one shape")
    return lambda *values: torch.stack(values, axis + 1).flatten(axis, axis + 1)


@operator("stack", exact=True)
def stack(call: Call) -> Kernel:
    """Join along a new axis."""
    values = call.tensors("values")
    axis = call.axis("axis", values[0].rank + 1)
    if len({value.dtype for value in values}) > 1:
        raise call.error(f"its operands are {', '.join(map(str, values))}, expected one element type")
    return lambda *values: torch.stack(values, axis)


@operator("split", exact=True)
def split(call: Call) -> Kernel:
    """Cut along `axis` into equal parts or into parts of given sizes."""
    x = call.tensor("x")
    axis = call.axis("axis", x.rank)
    count = call.integer("num_splits", len(call.outputs))
    if count < 1 or count != len(call.outputs):
        raise call.error(f"num_splits is {count}, but it has {len(call.outputs)} results")
    sizes = call.integers("split_sizes", [x.shape[axis] // count] * count, count)
    if sum(sizes) != x.shape[axis]:
        raise call.error(f"parts of sizes {sizes} do not make up axis {axis} of {x}")
    return lambda x: tuple(torch.split(x, sizes, axis))


@operator("tile", exact=True)
def tile(call: Call) -> Kernel:
    """Repeat along each axis."""
    rank = call.tensor("x").rank
    repetitions = call.integers("reps", length=rank)
    return lambda x: x.repeat(repetitions)


@operator("reverse", exact=True)
def reverse(call: Call) -> Kernel:
    """Reverse the order along `axes`, by default along all."""
    rank = call.tensor("x").rank
    axes = [call.normal_axis(axis, rank) for axis in call.integers("axes", list(range(rank)))]
    return lambda x: torch.flip(x, axes)


@operator("pad", exact=True)
def pad(call: Call) -> Kernel:
    """Pad the last axes by a constant, by reflection without the border, or by repeating the border."""
    x = call.tensor("x")
    amounts = call.integers("pad")
    mode = call.text("mode", ("constant", "reflect", "replicate"), default="constant")
    value = call.number("constant_val", 0.0)
    if len(amounts) % 2 or len(amounts) > 2 * x.rank or min(amounts, default=0) < 0:
        raise call.error(f"the padding {amounts} does not fit {x}")
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))
    if mode == "constant":
        margins = [amount for pair in reversed(pairs) for amount in pair]
        return lambda x: F.pad(x, margins, value=value)
    axes = list(range(x.rank - len(pairs), x.rank))
    for axis, (before, after) in zip(axes, pairs, strict=True):
        extent = x.shape[axis]
        limit = extent - 1 if mode == "reflect" else extent
        if max(before, after) > limit:
            raise call.error(f"padding {before}, {after} of axis {axis} of {x} exceeds {limit}")
        positions = torch.arange(-before, extent + after)
        if mode == "reflect":
            positions = (extent - 1) - (positions.abs() - (extent - 1)).abs()
        call.bind(positions.clamp(0, extent - 1))

    def kernel(x: torch.Tensor, *positions: torch.Tensor) -> torch.Tensor:
        for axis, position in zip(axes, positions, strict=True):
            x = x.index_select(axis, position)
        return x

    return kernel


@operator("fill")
def fill(call: Call) -> Kernel:
    """A tensor of one value."""
    extents = call.integers("shape")
    value = call.array("value").item() if call.has("value") else 0.0
    carrier = carrier_dtype(call.output.dtype)
    call.bind(torch.tensor(value, dtype=carrier))
    if tuple(extents) != call.output.shape:
        raise call.error(f"the shape {extents} contradicts the declared result {call.output}")
    return lambda value: value.expand(extents)


@operator("fill_like")
def fill_like(call: Call) -> Kernel:
    """A tensor of one value with the shape of another."""
    extents = call.tensor("ref_tensor").shape
    value = call.array("value").item() if call.has("value") else 0.0
    call.bind(torch.tensor(value, dtype=carrier_dtype(call.output.dtype)))
    return lambda _, value: value.expand(extents)


@operator("range_1d")
def range_1d(call: Call) -> Kernel:
    """`start, start + step, ...` below `end`; the bounds must be constants."""
    start, end, step = call.number("start"), call.number("end"), call.number("step")
    count = call.output.size
    if call.output.rank != 1 or step == 0 or max(0, -int(-(end - start) // step)) != count:
        raise call.error(f"{start} to {end} by {step} does not make the declared result {call.output}")
    carrier = carrier_dtype(call.output.dtype)
    call.bind(torch.arange(count, dtype=torch.float64))
    return lambda steps: (start + steps * step).to(carrier)


@operator("pixel_shuffle", exact=True)
def pixel_shuffle(call: Call) -> Kernel:
    """`(N, C f^2, H, W)` to `(N, C, H f, W f)`."""
    call.tensor("x")
    factor = call.integer("upscale_factor")
    return lambda x: F.pixel_shuffle(x, factor)


@operator("pixel_unshuffle", exact=True)
def pixel_unshuffle(call: Call) -> Kernel:
    """`(N, C, H f, W f)` to `(N, C f^2, H, W)`."""
    call.tensor("x")
    factor = call.integer("downscale_factor")
    return lambda x: F.pixel_unshuffle(x, factor)
