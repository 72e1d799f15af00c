"""Keep every value between operators channels-last, so that a `.tflite` graph needs no TRANSPOSE.

PyTorch convolves (N, C, H, W), TensorFlow Lite (N, H, W, C). litert-torch cancels two permutations only
where they meet, and a reshape between them keeps them apart: an A0 stream had 28 TRANSPOSE left, and none
when every permutation stands directly around its convolution. This pass pushes them there.

Each (N, C, H, W) value gets a channels-last *twin*; operators that can compute on the twin do so, and the
value itself becomes a permutation of the twin, which dies when nobody needs it.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from mvtool.converters.rewrites.nodes import argument

if TYPE_CHECKING:
    from torch.export import ExportedProgram

aten = torch.ops.aten

TO_LAST = (0, 2, 3, 1)
TO_FIRST = (0, 3, 1, 2)
# Where axis i of (N, C, H, W) lies in (N, H, W, C).
AXIS_IN_LAST = (0, 3, 1, 2)

# Operators that work on pictures and exist for (N, C, H, W) only.
PICTURE = {
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.convolution.default,
    aten.avg_pool2d.default,
    aten.max_pool2d.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_nearest2d.vec,
}
ELEMENTWISE = {
    aten.relu.default,
    aten.relu6.default,
    aten.hardtanh.default,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.sigmoid.default,
    aten.silu.default,
    aten.tanh.default,
    aten.gelu.default,
    aten.leaky_relu.default,
    aten.clamp.default,
    aten.neg.default,
    aten.abs.default,
    aten.exp.default,
    aten.sqrt.default,
    aten.rsqrt.default,
    aten.reciprocal.default,
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.minimum.default,
    aten.maximum.default,
    aten.pow.Tensor_Scalar,
    aten.clone.default,
}
PERMUTES = {aten.permute.default}
REDUCTIONS = {aten.mean.dim, aten.sum.dim_IntList, aten.amax.default}
RESHAPES = {aten.view.default, aten.reshape.default, aten._unsafe_view.default}
PADS = {aten.pad.default, aten.constant_pad_nd.default}
SPLITS = {aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default}


def channels_last_inside(exported: ExportedProgram) -> ExportedProgram:
    """A copy of `exported` that computes the same with permutations only around picture operators."""
    result = copy.deepcopy(exported)
    _Pass(result.graph).run()
    return result


class _Pass:
    """One walk over a graph; see the module docstring."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.twin: dict[fx.Node, fx.Node] = {}

    def run(self) -> None:
        """Rewrite the graph in place."""
        for node in list(self.graph.nodes):
            if node.op == "call_function":
                self._visit(node)
        self.graph.eliminate_dead_code()
        self.graph.lint()

    def _visit(self, node: fx.Node) -> None:
        if node.target in PERMUTES:
            self._permute(node)
        elif node.target in PICTURE:
            self._picture(node)
        elif (rule := _rule(node.target)) is not None:
            with self.graph.inserting_before(node):
                twin = rule(self, node)
            if twin is not None:
                self._take_over(node, twin)

    def _permute(self, node: fx.Node) -> None:
        source, order = node.args[0], tuple(axis % 4 for axis in argument(node, 1))
        if not isinstance(source, fx.Node) or _rank(source) != 4:
            return
        if source in self.twin:
            # Axis j of the result is axis order[j] of (N, C, H, W), which the twin holds elsewhere.
            composed = tuple(AXIS_IN_LAST[axis] for axis in order)
            replacement = self._permuted(self.twin[source], composed, node)
            node.replace_all_uses_with(replacement)
            if composed == TO_FIRST:
                self.twin[replacement] = self.twin[source]
        elif order == TO_FIRST:
            self.twin[node] = source

    def _picture(self, node: fx.Node) -> None:
        if _rank(node) != 4:
            return
        source = node.args[0]
        if isinstance(source, fx.Node) and source in self.twin:
            with self.graph.inserting_before(node):
                node.replace_input_with(source, self._call(aten.permute.default, (self.twin[source], TO_FIRST), source))
        with self.graph.inserting_after(node):
            last = self._call(aten.permute.default, (node, TO_LAST), node, permute=TO_LAST)
        with self.graph.inserting_after(last):
            first = self._call(aten.permute.default, (last, TO_FIRST), node)
        node.replace_all_uses_with(first, delete_user_cb=lambda user: user is not last)
        self.twin[first] = last

    def _take_over(self, node: fx.Node, twin: fx.Node) -> None:
        """Let `twin` compute, and `node`'s readers read a permutation of it."""
        if _rank(node) == 4:
            with self.graph.inserting_after(twin):
                first = self._call(aten.permute.default, (twin, TO_FIRST), node)
            self.twin[first] = twin
            node.replace_all_uses_with(first)
        else:
            node.replace_all_uses_with(twin)

    def _permuted(self, source: fx.Node, order: tuple[int, ...], like: fx.Node) -> fx.Node:
        if order == (0, 1, 2, 3):
            return source
        with self.graph.inserting_before(like):
            return self._call(aten.permute.default, (source, order), like)

    def _call(
        self, target: Any, arguments: tuple[Any, ...], like: fx.Node, permute: tuple[int, ...] | None = None
    ) -> fx.Node:
        node = self.graph.call_function(target, arguments)
        value = like.meta.get("val")
        node.meta["val"] = value.permute(permute) if permute is not None and value is not None else value
        return node

    def last(self, value: Any, like: fx.Node) -> Any:
        """The channels-last form of an operand of an elementwise operator, None if it has none."""
        if not isinstance(value, fx.Node):
            return value
        if value in self.twin:
            return self.twin[value]
        if _rank(value) == 0:
            return value
        if _rank(value) == 4:
            return self._call(aten.permute.default, (value, TO_LAST), value, permute=TO_LAST)
        return None


Rule = Callable[[_Pass, fx.Node], fx.Node | None]


def _rule(target: Any) -> Rule | None:
    if target in ELEMENTWISE:
        return _elementwise
    if target in REDUCTIONS:
        return _reduction
    if target in RESHAPES:
        return _reshape
    if target in PADS:
        return _pad
    rules: dict[Any, Rule] = {
        aten.cat.default: _cat,
        aten.slice.Tensor: _slice,
        aten.adaptive_avg_pool2d.default: _global_mean,
        operator.getitem: _part,
    }
    return rules.get(target)


def _twin_call(walk: _Pass, node: fx.Node, arguments: tuple[Any, ...], **kwargs: Any) -> fx.Node:
    twin = walk.graph.call_function(node.target, arguments, {**node.kwargs, **kwargs})  # type: ignore[arg-type]
    value = node.meta.get("val")
    twin.meta["val"] = value.permute(TO_LAST) if value is not None and value.dim() == 4 else value
    return twin


def _elementwise(walk: _Pass, node: fx.Node) -> fx.Node | None:
    tensors = [a for a in node.args if isinstance(a, fx.Node)]
    if _rank(node) != 4 or not any(a in walk.twin for a in tensors):
        return None
    operands = [walk.last(a, node) for a in node.args]
    if any(o is None and a is not None for o, a in zip(operands, node.args, strict=True)):
        return None
    return _twin_call(walk, node, tuple(operands))


def _reduction(walk: _Pass, node: fx.Node) -> fx.Node | None:
    source, axes = argument(node, 0), argument(node, 1)
    keep = bool(node.args[2]) if len(node.args) > 2 else False
    if source not in walk.twin or not axes:
        return None
    chosen = [a % 4 for a in axes]
    # Without keepdim the axes that are left must come in the same order in both layouts.
    if not keep and not ({2, 3} <= set(chosen) or 1 in chosen):
        return None
    moved = sorted(AXIS_IN_LAST[a] for a in chosen)
    return _twin_call(walk, node, (walk.twin[source], moved, *node.args[2:]))


def _reshape(walk: _Pass, node: fx.Node) -> fx.Node | None:
    """Free where the two layouts hold the same sequence of numbers."""
    source = argument(node, 0)
    before, after = _shape(source), _shape(node)
    if source in walk.twin and _same_in_both(before):
        target = tuple(after[axis] for axis in TO_LAST) if len(after) == 4 and _same_in_both(after) else after
        if len(after) == 4 and target == after and not _same_in_both(after):
            return None
        return _twin_call(walk, node, (walk.twin[source], target))
    if len(before) != 4 and len(after) == 4 and after[2:] == (1, 1):
        return _twin_call(walk, node, (source, tuple(after[axis] for axis in TO_LAST)))
    return None


def _same_in_both(shape: Sequence[int]) -> bool:
    return len(shape) == 4 and (shape[2:] == (1, 1) or shape[1] == 1)


def _pad(walk: _Pass, node: fx.Node) -> fx.Node | None:
    source, amounts = argument(node, 0), list(argument(node, 1))
    if source not in walk.twin:
        return None
    constant = node.target is aten.constant_pad_nd.default or len(node.args) < 3 or node.args[2] == "constant"
    if not constant:
        return None
    amounts += [0] * (8 - len(amounts))
    # Pairs come from the last axis on: (W, H, C, N) becomes (C, W, H, N).
    width, height, channel, batch = (amounts[i : i + 2] for i in range(0, 8, 2))
    return _twin_call(walk, node, (walk.twin[source], [*channel, *width, *height, *batch], *node.args[2:]))


def _cat(walk: _Pass, node: fx.Node) -> fx.Node | None:
    parts: Sequence[fx.Node] = argument(node, 0)
    axis = int(argument(node, 1)) if len(node.args) > 1 else 0
    if _rank(node) != 4 or not any(p in walk.twin for p in parts):
        return None
    return _twin_call(walk, node, ([walk.last(p, node) for p in parts], AXIS_IN_LAST[axis % 4]))


def _slice(walk: _Pass, node: fx.Node) -> fx.Node | None:
    source = argument(node, 0)
    if source not in walk.twin:
        return None
    axis = int(argument(node, 1)) if len(node.args) > 1 else 0
    return _twin_call(walk, node, (walk.twin[source], AXIS_IN_LAST[axis % 4], *node.args[2:]))


def _part(walk: _Pass, node: fx.Node) -> fx.Node | None:
    """One part of a split value, as a slice of the value's twin."""
    split, index = argument(node, 0), argument(node, 1)
    if not isinstance(split, fx.Node) or split.target not in SPLITS or split.args[0] not in walk.twin:
        return None
    axis = int(argument(split, 2)) if len(split.args) > 2 else 0
    lengths = [int(part.shape[axis]) for part in split.meta["val"]]
    start = sum(lengths[: int(index)])
    bounds = (AXIS_IN_LAST[axis % 4], start, start + lengths[int(index)])
    twin = walk.graph.call_function(aten.slice.Tensor, (walk.twin[argument(split, 0)], *bounds))
    twin.meta["val"] = node.meta["val"].permute(TO_LAST)
    return twin


def _global_mean(walk: _Pass, node: fx.Node) -> fx.Node | None:
    """A pool to one pixel is a mean."""
    if tuple(argument(node, 1)) != (1, 1) or argument(node, 0) not in walk.twin:
        return None
    twin = walk.graph.call_function(aten.mean.dim, (walk.twin[argument(node, 0)], [1, 2], True))
    twin.meta["val"] = node.meta["val"].permute(TO_LAST)
    return twin


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in node.meta["val"].shape)


def _rank(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.dim() if isinstance(value, torch.Tensor) else -1
