"""Lower a graph to at most four axes.

`RankLowering` is a module that interprets a graph with `Folded` values in place of 5D tensors. One
eager run makes its constants; `torch.export` of it then gives the lowered program. Operators with a 4D
form are in the table that `lowers` fills (`rank_*.py`); element-wise operators need none; whatever is left
runs on the 5D tensor, with the reason in the report.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from mvtool.converters import places
from mvtool.converters.recipe import Recipe
from mvtool.converters.rewrites.draft import Changes
from mvtool.converters.rewrites.folded import Folded, fold, reshape_folded
from mvtool.errors import ConversionError

aten = torch.ops.aten
Handler = Callable[..., Any]
HANDLERS: dict[object, Handler] = {}

# Copies that change neither value nor shape.
COPIES = (aten.clone.default, aten.alias.default, aten.contiguous.default, aten.lift_fresh_copy.default)

# Element-wise operators that PyTorch does not tag as such.
POINTWISE = (
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.hardtanh.default,
    aten.relu6.default,
    aten.silu.default,
    aten.mish.default,
    aten.dropout.default,
    aten._to_copy.default,
    aten.to.dtype,
    aten.selu.default,
    aten.celu.default,
    aten.softplus.default,
    aten.log_sigmoid.default,
    aten.hardshrink.default,
)

MOST_OF_A_MAP = 1 << 16
"""Numbers of a constant map that is written out for every channel; a larger one would make the file grow by more than it is worth."""


@dataclass(frozen=True)
class Constant:
    """A weight of the graph under interpretation.

    Attributes:
        name: Its name, used for tensors made from it.
        value: The tensor; read it inside `RankLowering.hold` only, so that tracing never sees it.
    """

    name: str
    value: Tensor


@dataclass(frozen=True)
class HighRank:
    """An operator of the captured graph that takes or gives a tensor of more than four axes.

    Attributes:
        node: The operator.
        shape: Shape of that tensor.
    """

    node: fx.Node
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """Operator, layer and shape, without the file: reports travel with a build."""
        layer, *_ = places.of_node(self.node).partition(" (")
        return f"{self.node.target} {layer}, shape {self.shape},"


def lowers(*targets: object) -> Callable[[Handler], Handler]:
    """Register a handler `(lowering, node, *args, **kwargs)` for operators.

    Raises:
        ValueError: An operator is registered already.
    """

    def register(handler: Handler) -> Handler:
        for target in targets:
            if target in HANDLERS:
                raise ValueError(f"{target} has a handler already")
            HANDLERS[target] = handler
        return handler

    return register


class RankLowering(nn.Module):
    """Interprets `graph` on values of at most four axes; see the module docstring.

    Attributes:
        recipe: Choices for the target.
        changes: Filled during the first run only.
        high: Places of the first run that hold a tensor of more than four axes, each as operator, layer and shape.
    """

    def __init__(self, graph: fx.GraphModule, recipe: Recipe, changes: Changes) -> None:
        """Interpret `graph`; nothing of it becomes part of this module but the constants in use."""
        super().__init__()
        # In a list so that the graph's own buffers do not become buffers of this module.
        self._graph = [graph]
        self.recipe = recipe
        self.changes = changes
        self.first_run = True
        self.high: list[HighRank] = []
        self._known: dict[str, Any] = {}

    def hold(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """A constant, computed on the first run and a buffer from then on."""
        if not hasattr(self, name):
            if not self.first_run:
                raise RuntimeError(f"the constant {name} appeared in the second run only")
            self.register_buffer(name, make().detach().clone().contiguous())
        return getattr(self, name)  # type: ignore[no-any-return]

    def did(self, what: str) -> None:
        """Count a changed place, once."""
        if self.first_run:
            self.changes.did(what)

    def left(self, node: fx.Node, reason: str) -> None:
        """Record a place left alone, once."""
        if self.first_run:
            self.changes.left(node.name, reason)

    def forward(self, *values: Tensor | Folded) -> tuple[Tensor | Folded, ...]:
        """Run the graph.

        Args:
            values: One per placeholder; 5D tensors as `Folded`.
        """
        env: dict[fx.Node, Any] = {}
        supply, graph = iter(values), self._graph[0].graph
        read_for_the_last_time = _last_reads(graph)
        for node in graph.nodes:
            if node.op == "placeholder":
                env[node] = next(supply)
            elif node.op == "get_attr":
                env[node] = Constant(str(node.target), getattr(self._graph[0], str(node.target)))
            elif node.op == "output":
                return tuple(self._plain_constant(env[value]) for value in node.args[0])
            else:
                env[node] = self._call(node, *fx.map_arg((node.args, node.kwargs), lambda n: env[n]))
                self._record_high(node, env[node])
            # All values of X3D-XXL together take more than 13 GB.
            for done in read_for_the_last_time.get(node, ()):
                del env[done]
        raise RuntimeError("the graph has no output node")

    def _call(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if node.target is operator.getitem:
            return args[0][args[1]]
        if node.target in COPIES:
            return args[0]
        if not _has((args, kwargs), (Tensor, Folded)):
            return self._folded_constant(node, args, kwargs)
        pointwise = node.target in POINTWISE or torch.Tag.pointwise in node.target.tags  # type: ignore[union-attr]
        if pointwise:
            args = tuple(self._folded_weight(node, value) for value in args)
        handler = HANDLERS.get(node.target)
        if handler is not None:
            result = handler(self, node, *args, **kwargs)
            if result is not NotImplemented:
                return result
        if pointwise and _has(args, Folded):
            return self._pointwise(node, args, kwargs)
        plain = self.plain(_unfolded(args))
        result = node.target(*plain, **kwargs)  # type: ignore[operator]
        self._record_high(node, [plain if _has(args, Folded) else args, result])
        return self._refold(result)

    def _record_high(self, node: fx.Node, values: Any) -> None:
        """Record that one of `values` has more than four axes, once per operator."""
        shapes = [tuple(value.shape) for value in _leaves(values) if isinstance(value, Tensor) and value.dim() > 4]
        known = node.target is operator.getitem or any(high.node is node for high in self.high)
        if not shapes or known or not self.first_run:
            return
        high = HighRank(node, max(shapes, key=len))
        self.high.append(high)
        self.left(node, f"{high} has no form with four axes; it keeps its {len(high.shape)}")

    def _folded_constant(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operator on weights alone, or one that makes a tensor, is computed now."""
        raw = _tree_map(args, lambda value: value.value if isinstance(value, Constant) else value)
        return self.computed(node, lambda: node.target(*raw, **kwargs))  # type: ignore[operator]

    def computed(self, node: fx.Node, make: Callable[[], Any]) -> Any:
        """The result of `make` with tensors as constants; made on the first run only."""
        if node.name not in self._known:
            numbers = itertools.count()

            def constant(value: Any) -> Any:
                return Constant(_part(node.name, next(numbers)), value) if isinstance(value, Tensor) else value

            self._known[node.name] = _tree_map(make(), constant)
            self.did("operator on constants computed")
        return self._known[node.name]

    def _folded_weight(self, node: fx.Node, value: Any) -> Any:
        """A 5D weight beside a vector makes the result 5D: fold it first."""
        if not isinstance(value, Constant) or value.value.dim() != 5 or 1 not in value.value.shape:
            return value
        shape = list(value.value.shape)
        dropped = shape.index(1)
        kept = tuple(axis for axis in range(5) if axis != dropped)
        held = self.hold(
            f"{value.name}_for_{node.name}", lambda: self._every_channel(node, value.value).squeeze(dropped)
        )
        return Folded(held, kept)  # type: ignore[arg-type]

    def _every_channel(self, node: fx.Node, value: Tensor) -> Tensor:
        """A constant operand of `node`, where it is a map of one channel and small: written out for every channel.

        XNNPACK computes a product with a map of one channel pixel by pixel, which with few channels costs several times the product
        of two maps of the same shape.
        """
        result, picture = node.meta["val"], value.numel() > 1 and tuple(value.shape[-2:])
        if not self.recipe.channels_last_ports or picture != tuple(result.shape[-2:]) or result.dim() < 4:
            return value
        one_map = value.numel() == picture[0] * picture[1] and result.numel() <= MOST_OF_A_MAP
        if not one_map or result.numel() != result.shape[1] * value.numel():
            return value
        maps = value.reshape((1,) * (result.dim() - 2) + picture)
        return maps.expand(1, result.shape[1], *maps.shape[2:])

    def plain(self, args: Any) -> Any:
        """Arguments with constants as held tensors."""
        return _tree_map(args, self._plain_constant)

    def _plain_constant(self, value: Any) -> Any:
        return self.hold(value.name, lambda: value.value) if isinstance(value, Constant) else value

    def _refold(self, result: Any) -> Any:
        if isinstance(result, Tensor) and result.dim() == 5 and 1 in result.shape:
            return fold(result)
        return result

    def _pointwise(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Folded:
        order = common_order([a for a in args if isinstance(a, Folded)])
        aligned = [self.aligned(node, a, order) for a in args]
        return Folded(node.target(*aligned, **kwargs), order)  # type: ignore[operator]

    def aligned(self, node: fx.Node, value: Any, order: tuple[int, int, int, int]) -> Any:
        """`value` as a 4D tensor in `order`, ready to broadcast; scalars as they are."""
        if isinstance(value, Folded):
            return value.as_order(order)
        if isinstance(value, Constant):
            return self.hold(
                f"{value.name}_for_{node.name}", lambda: _broadcastable(self._every_channel(node, value.value), order)
            )
        return _broadcastable(value, order) if isinstance(value, Tensor) and value.dim() > 0 else value


def _last_reads(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """For each node the values that no later one reads."""
    last: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        last.update(dict.fromkeys((node, *node.all_input_nodes), node))
    found: dict[fx.Node, list[fx.Node]] = {}
    for value, reader in last.items():
        found.setdefault(reader, []).append(value)
    return found


def _part(name: str, number: int) -> str:
    """Name of one result of an operator: the parts of a split are constants of their own."""
    return f"{name}_part{number}" if number else name


def common_order(values: list[Folded]) -> tuple[int, int, int, int]:
    """An axis order that all values can take: the first value's that fits all."""
    for candidate in values:
        if all(value.shape[candidate.dropped] == 1 for value in values):
            return candidate.order
    raise ValueError(f"no common 4D form for shapes {[v.shape for v in values]}: capture with a batch of one")


def _broadcastable(value: Tensor, order: tuple[int, int, int, int]) -> Tensor:
    shape = (1,) * (5 - value.dim()) + tuple(value.shape)
    folded = reshape_folded(value, shape)
    if not isinstance(folded, Folded):
        raise ConversionError(f"Cannot broadcast shape {shape} over a video tensor. Capture with a batch of one.")
    return folded.as_order(order)


def _has(tree: Any, kind: type | tuple[type, ...]) -> bool:
    return any(isinstance(value, kind) for value in _leaves(tree))


def _leaves(tree: Any) -> list[Any]:
    found: list[Any] = []
    _tree_map(tree, found.append)
    return found


def _unfolded(tree: Any) -> Any:
    return _tree_map(tree, lambda value: value.unfold() if isinstance(value, Folded) else value)


def _tree_map(tree: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(tree, (list, tuple)):
        return type(tree)(_tree_map(item, function) for item in tree)
    if isinstance(tree, dict):
        return {key: _tree_map(item, function) for key, item in tree.items()}
    return function(tree)
