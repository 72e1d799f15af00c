"""What a captured state means and how it holds the past."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mvtool.ports import StateForm
from mvtool.streaming.state import StateInfo

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import Node

_aten = torch.ops.aten
# The value torch.export writes for "to the end" of a slice.
_END = 2**63 - 1
SLOW = 0.5
"""An average that keeps more than this share of its value in a step moves by less than it is rounded to in int8."""
_SHAPES = frozenset(
    {"clone", "alias", "view", "reshape", "unsqueeze", "squeeze", "expand", "clamp", "minimum", "maximum"}
)


def describe_state(
    source: str,
    before: Node,
    after: Node,
    declared: StateInfo | None,
    frames_per_step: int,
    constants: Mapping[Node, Tensor] | None = None,
) -> StateInfo:
    """Describe a state by its declaration, or else by the way the graph updates it.

    Args:
        source: Where it lives in the module.
        before: Placeholder of the state.
        after: Node of the next state.
        declared: What the module itself says.
        frames_per_step: Video frames that one call consumes.
        constants: Values of the placeholders of weights.
    """
    if declared is not None:
        return declared
    fifo = queue_of(before, after)
    if fifo is not None:
        frames = fifo.size * frames_per_step // fifo.added if fifo.size * frames_per_step % fifo.added == 0 else None
        return StateInfo(f"the last {fifo.size} entries of axis {fifo.axis}, oldest first", StateForm.FIFO, frames)
    if _is_counter(before, after):
        return StateInfo("a counter of steps", StateForm.COUNTER, None)
    if before.meta["val"].dtype.is_floating_point:
        kept = _Kept(before, constants or {}).share(after)
        if kept is not None and not abs(kept) <= SLOW:
            share = "a share" if math.isnan(kept) else f"{kept:.3g}"
            return StateInfo(f"a running sum or average that keeps {share} of its value in a step", StateForm.MEAN)
    return StateInfo(f"the value of {source} after the step before", StateForm.OPAQUE, None)


@dataclass(frozen=True)
class Queue:
    """A queue along `axis` with `size` entries, of which a step replaces `added`."""

    axis: int
    size: int
    added: int


def queue_of(before: Node, after: Node) -> Queue | None:
    """The queue, if the next state is the end of `cat([state, new])`, or `cat([end of state, new])`."""
    joined, cut = _unslice(after)
    if joined.target is not _aten.cat.default:
        return None
    parts, axis = joined.args[0], _axis(joined.args[1] if len(joined.args) > 1 else 0, joined)
    assert isinstance(parts, list | tuple)
    first, dropped = _unslice(parts[0])  # type: ignore[arg-type]
    if first is not before or (cut is not None and dropped is not None):
        return None
    size = before.meta["val"].shape[axis]
    whole = joined.meta["val"].shape[axis]
    if cut is not None and cut != (axis, whole - size, whole):
        return None
    if dropped is not None and dropped != (axis, size - parts[0].meta["val"].shape[axis], size):  # type: ignore[union-attr]
        return None
    return Queue(axis, size, whole - size if dropped is None else size - parts[0].meta["val"].shape[axis])  # type: ignore[union-attr]


def new_entries(after: Node) -> list[Node]:
    """What a step puts behind the entries of a queue, see `queue_of`; joined along its axis."""
    joined, _ = _unslice(after)
    parts = joined.args[0]
    assert isinstance(parts, list | tuple)
    return list(parts[1:])


def _unslice(node: Node) -> tuple[Node, tuple[int, int, int] | None]:
    """Look through copies and one slice: the sliced node and (axis, start, end), if there is one."""
    node = _uncopy(node)
    if node.target is not _aten.slice.Tensor or (len(node.args) > 4 and node.args[4] != 1):
        return node, None
    source = node.args[0]
    axis = _axis(node.args[1] if len(node.args) > 1 else 0, node)
    size = source.meta["val"].shape[axis]  # type: ignore[union-attr]
    start = (node.args[2] if len(node.args) > 2 else 0) or 0
    end = node.args[3] if len(node.args) > 3 and node.args[3] is not None else _END
    low, high, _ = slice(start, end).indices(size)
    return _uncopy(source), (axis, low, high)  # type: ignore[arg-type]


def _uncopy(node: Node) -> Node:
    while node.op == "call_function" and node.target in (_aten.clone.default, _aten.alias.default, operator.pos):
        node = node.args[0]  # type: ignore[assignment]
    return node


def _axis(value: object, node: Node) -> int:
    assert isinstance(value, int)
    return value % len(node.meta["val"].shape)


def _is_counter(before: Node, after: Node) -> bool:
    node = _uncopy(after)
    return (
        node.target is _aten.add.Tensor
        and before in node.args
        and all(isinstance(argument, int | float) for argument in node.args if argument is not before)
    )


class _Kept:
    """How much of a state its next value keeps, where that does not depend on the model's inputs."""

    def __init__(self, before: Node, constants: Mapping[Node, Tensor]) -> None:
        self._constants = constants
        # In the graph's own order, which no depth of a network makes too deep for the interpreter.
        self._free: set[object] = set()
        self._shares: dict[object, float | None] = {before: 1.0}
        for node in before.graph.nodes:
            if self._is_free_of_inputs(node):
                self._free.add(node)
            if node.op == "call_function" and any(self.share(source) != 0.0 for source in node.all_input_nodes):
                self._shares[node] = self._computed(node)

    def share(self, node: object) -> float | None:
        """The factor of the state in `node`; None if there is no such factor, not a number if its size is unknown."""
        return self._shares.get(node, 0.0)

    def _computed(self, node: Node) -> float | None:
        packet = getattr(node.target, "overloadpacket", None)
        name = "" if packet is None else packet.__name__
        first, *others = (*node.args, None)
        if name in ("add", "sub", "rsub"):
            step = self._constant(node.kwargs.get("alpha", 1))
            signs = {"add": (1.0, step), "sub": (1.0, -step), "rsub": (-step, 1.0)}[name]
            return _sum([self.share(first), self.share(others[0])], signs)
        if name in ("mul", "div"):
            if self.share(others[0]) == 0.0:
                return _times(self.share(first), self._constant(others[0]), inverse=name == "div")
            return (
                _times(self.share(others[0]), self._constant(first))
                if name == "mul" and not self.share(first)
                else None
            )
        if name == "neg":
            return _times(self.share(first), -1.0)
        if name == "lerp":
            weight = self._constant(others[1])
            return _sum([self.share(first), self.share(others[0])], (1.0 - weight, weight))
        return self.share(first) if name in _SHAPES else None

    def _constant(self, value: object) -> float:
        """A number that does not depend on the inputs; infinite for one that does, not a number if it is unknown."""
        if isinstance(value, int | float):
            return float(value)
        if value in self._constants:
            return float(self._constants[value].detach().float().mean())  # type: ignore[index]
        return math.nan if value in self._free else math.inf

    def _is_free_of_inputs(self, node: Node) -> bool:
        """Whether weights and single numbers of the stream's position, such as a frame counter, decide `node`."""
        if node.op == "placeholder":
            return node in self._constants or math.prod(node.meta["val"].shape) == 1
        return node.op == "call_function" and all(source in self._free for source in node.all_input_nodes)


def _sum(shares: list[float | None], signs: tuple[float, float]) -> float | None:
    parts = [_times(share, sign) for share, sign in zip(shares, signs, strict=True)]
    return None if None in parts else math.fsum(part for part in parts if part is not None)


def _times(share: float | None, factor: float, inverse: bool = False) -> float | None:
    if share == 0.0:
        return 0.0
    if share is None or math.isinf(factor) or (inverse and factor == 0.0):
        return None
    return share / factor if inverse else share * factor
