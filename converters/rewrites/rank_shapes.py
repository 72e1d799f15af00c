"""4D forms of operators that move, cut or join data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from mvtool.converters.rewrites.folded import Folded, reshape_folded
from mvtool.converters.rewrites.rank import Constant, RankLowering, common_order, lowers

aten = torch.ops.aten


@lowers(aten.zeros_like.default, aten.ones_like.default, aten.full_like.default)
def like(lowering: RankLowering, node: fx.Node, value: Any, *fill: Any, **kwargs: Any) -> Any:
    """A constant of the shape that capture fixed."""
    known = node.meta["val"]
    number = fill[0] if fill else float(node.target is aten.ones_like.default)
    return lowering.computed(node, lambda: torch.full(tuple(known.shape), number, dtype=known.dtype))


@lowers(aten.cat.default)
def cat(lowering: RankLowering, node: fx.Node, values: list[Any], dim: int = 0) -> Any:
    """Join along any axis but the one that is left out."""
    folded = [v for v in values if isinstance(v, Folded)]
    if not folded:
        return NotImplemented
    order = common_order(folded)
    if dim % 5 not in order:
        return NotImplemented
    tensors = [lowering.aligned(node, v, order) for v in values]
    return Folded(torch.cat(tensors, order.index(dim % 5)), order)


@lowers(aten.slice.Tensor)
def slice_tensor(
    lowering: RankLowering,
    node: fx.Node,
    value: Any,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Any:
    """Cut along any axis but the one that is left out; a cut that keeps everything vanishes."""
    if not isinstance(value, Folded):
        return NotImplemented
    axis = dim % 5
    size = value.shape[axis]
    first, last, _ = slice(start, end).indices(size)
    if (first, last, step) == (0, size, 1):
        return value
    if axis == value.dropped:
        return NotImplemented
    return Folded(aten.slice.Tensor(value.tensor, value.position(axis), first, last, step), value.order)


@lowers(aten.select.int)
def select(lowering: RankLowering, node: fx.Node, value: Any, dim: int, index: int) -> Any:
    """Take one entry of an axis: a cut and a reshape, since runtimes do not delegate SELECT."""
    if not isinstance(value, Folded):
        return NotImplemented
    shape = value.shape
    axis = dim % 5
    index %= shape[axis]
    cut = slice_tensor(lowering, node, value, axis, index, index + 1)
    return cut.ascending().reshape([size for a, size in enumerate(shape) if a != axis])


@lowers(aten.split.Tensor, aten.chunk.default)
def split(lowering: RankLowering, node: fx.Node, value: Any, count: int, dim: int = 0) -> Any:
    """Cut into parts of `count` (split) or into `count` parts (chunk)."""
    if not isinstance(value, Folded) or dim % 5 == value.dropped:
        return NotImplemented
    target: Any = node.target
    return tuple(Folded(part, value.order) for part in target(value.tensor, count, value.position(dim)))


@lowers(aten.split_with_sizes.default)
def split_with_sizes(lowering: RankLowering, node: fx.Node, value: Any, sizes: list[int], dim: int = 0) -> Any:
    """Cut into parts of the given sizes."""
    return split(lowering, node, value, sizes, dim)


@lowers(aten.permute.default)
def permute_axes(lowering: RankLowering, node: fx.Node, value: Any, dims: list[int]) -> Any:
    """Relabel the axes; nothing moves."""
    if not isinstance(value, Folded):
        return NotImplemented
    places = [d % 5 for d in dims]
    order = tuple(places.index(axis) for axis in value.order)
    return Folded(value.tensor, order)  # type: ignore[arg-type]


@lowers(aten.transpose.int)
def transpose(lowering: RankLowering, node: fx.Node, value: Any, dim0: int, dim1: int) -> Any:
    """Relabel two axes; nothing moves."""
    places = list(range(5))
    places[dim0 % 5], places[dim1 % 5] = places[dim1 % 5], places[dim0 % 5]
    return permute_axes(lowering, node, value, places)


@lowers(aten.unsqueeze.default)
def unsqueeze(lowering: RankLowering, node: fx.Node, value: Any, dim: int) -> Any:
    """A fifth axis of size 1 is only a label."""
    if isinstance(value, Tensor) and value.dim() == 4:
        axis = dim % 5
        return Folded(value, tuple(a for a in range(5) if a != axis))  # type: ignore[arg-type]
    return NotImplemented


@lowers(aten.squeeze.dim, aten.squeeze.dims)
def squeeze(lowering: RankLowering, node: fx.Node, value: Any, dims: int | list[int]) -> Any:
    """Drop axes of size 1."""
    if not isinstance(value, Folded):
        return NotImplemented
    asked = {d % 5 for d in ([dims] if isinstance(dims, int) else dims)}
    shape = value.shape
    kept = [size for axis, size in enumerate(shape) if axis not in asked or size != 1]
    return value if len(kept) == 5 else value.ascending().reshape(kept)


@lowers(aten.view.default, aten.reshape.default, aten._unsafe_view.default)
def view(lowering: RankLowering, node: fx.Node, value: Any, shape: list[int]) -> Any:
    """Reshape; leaving out an axis of size 1 does not change the row-major order."""
    if isinstance(value, Constant):
        return NotImplemented
    target = tuple(int(size) for size in node.meta["val"].shape)
    if isinstance(value, Folded):
        return value if value.shape == target else reshape_folded(value.ascending(), target)
    return reshape_folded(value, target)


@lowers(aten.flatten.using_ints)
def flatten(lowering: RankLowering, node: fx.Node, value: Any, *axes: int) -> Any:
    """Merge neighbouring axes."""
    return view(lowering, node, value, [])


@lowers(aten.expand.default)
def expand(lowering: RankLowering, node: fx.Node, value: Any, shape: list[int]) -> Any:
    """Repeat axes of size 1 of a video tensor."""
    if not isinstance(value, Folded) or len(shape) != 5 or shape[value.dropped] not in (1, -1):
        return NotImplemented
    return Folded(value.tensor.expand([shape[axis] for axis in value.order]), value.order)


@lowers(aten.pad.default, aten.constant_pad_nd.default)
def pad(lowering: RankLowering, node: fx.Node, value: Any, pads: list[int], *rest: Any) -> Any:
    """Pad any axis but the one that is left out."""
    if not isinstance(value, Folded):
        return NotImplemented
    amounts = {4 - i // 2: (pads[i], pads[i + 1]) for i in range(0, len(pads), 2)}
    if amounts.get(value.dropped, (0, 0)) != (0, 0):
        if value.shape[0] != 1 or amounts.get(0, (0, 0)) != (0, 0):
            return NotImplemented
        value = Folded(value.canonical())
    mode, fill = ("constant", rest[0] if rest else 0) if node.target is aten.constant_pad_nd.default else _mode(rest)
    flat = [amount for axis in reversed(value.order) for amount in amounts.get(axis, (0, 0))]
    while flat and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    if not flat:
        return value
    return Folded(torch.nn.functional.pad(value.tensor, flat, mode, fill), value.order)


def _mode(rest: tuple[Any, ...]) -> tuple[str, float | None]:
    mode = rest[0] if rest else "constant"
    fill = rest[1] if len(rest) > 1 else None
    return mode, (fill or 0.0) if mode == "constant" else fill


@lowers(aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default)
def reduce(
    lowering: RankLowering,
    node: fx.Node,
    value: Any,
    dims: list[int] | int | None = None,
    keepdim: bool = False,
    **kw: Any,
) -> Any:
    """Reduce over any axes."""
    if not isinstance(value, Folded) or kw.get("dtype") is not None:
        return NotImplemented
    asked = {d % 5 for d in ([dims] if isinstance(dims, int) else dims or range(5))}
    shape = value.shape
    positions = sorted(value.position(axis) for axis in asked if axis != value.dropped)
    target: Any = node.target
    reduced = Folded(target(value.tensor, positions, True) if positions else value.tensor, value.order)
    if keepdim:
        return reduced
    return reduced.ascending().reshape([size for axis, size in enumerate(shape) if axis not in asked])


@lowers(aten.softmax.int, aten._softmax.default, aten.cumsum.default, aten.log_softmax.int)
def along(lowering: RankLowering, node: fx.Node, value: Any, dim: int, *rest: Any) -> Any:
    """Operators along one axis."""
    if not isinstance(value, Folded) or dim % 5 == value.dropped:
        return NotImplemented
    target: Any = node.target
    return Folded(target(value.tensor, value.position(dim), *rest), value.order)
