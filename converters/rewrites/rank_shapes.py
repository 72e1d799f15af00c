"""4D forms of operators that move, cut or join data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from mvtool.converters import places
from mvtool.converters.rewrites.folded import Folded, reshape_folded
from mvtool.converters.rewrites.nodes import argument
from mvtool.converters.rewrites.rank import Constant, RankLowering, common_order, lowers
from mvtool.converters.rewrites.ring import JOINED
from mvtool.errors import ConversionError

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
    frames = dim % 5 == 2 and JOINED in node.meta
    parts = tuple(Folded(tensor, order) for tensor in tensors) if frames else ()
    return Folded(torch.cat(tensors, order.index(dim % 5)), order, parts)


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
    if axis == 2 and step == 1 and (part := value.alone(first, last)) is not None:
        return part
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


@lowers(aten.unbind.int)
def unbind(lowering: RankLowering, node: fx.Node, value: Any, dim: int = 0) -> Any:
    """Take every entry of an axis, each as a cut and a reshape."""
    if isinstance(value, Folded):
        return tuple(select(lowering, node, value, dim, index) for index in range(value.shape[dim % 5]))
    if not isinstance(value, Tensor):
        return NotImplemented
    axis = dim % value.dim()
    kept = [size for a, size in enumerate(value.shape) if a != axis]
    return tuple(aten.slice.Tensor(value, axis, i, i + 1).reshape(kept) for i in range(value.shape[axis]))


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
    mode, fill = ("constant", rest[0] if rest else 0) if node.target is aten.constant_pad_nd.default else _mode(rest)
    if isinstance(value, Tensor) and mode == "circular":
        # Core ML has no such mode.
        return _with_border(lowering, node, value, {value.dim() - 1 - axis: a for axis, a in _pairs(pads)}, mode)
    if not isinstance(value, Folded):
        return NotImplemented
    amounts = {4 - axis: pair for axis, pair in _pairs(pads)}
    if amounts.get(value.dropped, (0, 0)) != (0, 0):
        if value.shape[0] != 1 or amounts.get(0, (0, 0)) != (0, 0):
            return NotImplemented
        value = Folded(value.canonical())
    amounts = {value.position(axis): pair for axis, pair in amounts.items() if pair != (0, 0)}
    if not amounts:
        return value
    if mode != "constant":
        return Folded(_with_border(lowering, node, value.tensor, amounts, mode), value.order)
    flat = [amount for position in reversed(range(4)) for amount in amounts.get(position, (0, 0))]
    while flat[-2:] == [0, 0]:
        flat = flat[:-2]

    def padded(one: Folded) -> Folded:
        return Folded(torch.nn.functional.pad(one.tensor, flat, mode, fill), one.order)

    frames = 2 in value.order and value.position(2) not in amounts
    parts = tuple(padded(part) for part in value.parts) if frames else ()
    return Folded(padded(value).tensor, value.order, parts)


def _pairs(pads: list[int]) -> list[tuple[int, tuple[int, int]]]:
    """Cells before and after per axis, counted from the last one."""
    return [(i // 2, (int(pads[i]), int(pads[i + 1]))) for i in range(0, len(pads), 2)]


def _with_border(
    lowering: RankLowering, node: fx.Node, value: Tensor, amounts: dict[int, tuple[int, int]], mode: str
) -> Tensor:
    """Pad with the tensor's own cells, axis by axis, as a join of slices.

    Args:
        lowering: Takes the report.
        node: The padding.
        value: What to pad.
        amounts: Axis to the cells before and after.
        mode: `replicate`, `reflect` or `circular`, as in `torch.nn.functional.pad`.

    Raises:
        ConversionError: An amount is negative, or the mode is another.
    """
    if mode not in BORDERS or any(min(pair) < 0 for pair in amounts.values()):
        raise ConversionError(
            f"The padding {node.name!r} {places.of_node(node)} has the mode {mode!r} and the amounts "
            f"{list(argument(node, 1))}; expected one of {', '.join(BORDERS)} and no negative amount. "
            "Cut the tensor with a slice instead."
        )
    for axis, (before, after) in amounts.items():
        size = int(value.shape[axis])
        spans = BORDERS[mode](size, before), [(0, size)], BORDERS[mode](size, -after)
        cuts = [aten.slice.Tensor(value, axis, *span) for part in spans for span in part]
        value = torch.cat(cuts, axis) if len(cuts) > 1 else value
    lowering.did(f"padding in the mode {mode} as a join of slices")
    return value


def _replicate(size: int, amount: int) -> list[tuple[int, int]]:
    return [(0, 1)] * amount if amount > 0 else [(size - 1, size)] * -amount


def _reflect(size: int, amount: int) -> list[tuple[int, int]]:
    cells = range(amount, 0, -1) if amount > 0 else range(size - 2, size - 2 + amount, -1)
    return [(cell, cell + 1) for cell in cells]


def _circular(size: int, amount: int) -> list[tuple[int, int]]:
    if amount == 0:
        return []
    return [(size - amount, size)] if amount > 0 else [(0, -amount)]


# Slices of an axis (its size) that stand before it (amount > 0) or after it (amount < 0).
BORDERS: dict[str, Callable[[int, int], list[tuple[int, int]]]] = {
    "replicate": _replicate,
    "reflect": _reflect,
    "circular": _circular,
}


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
