"""What a captured state means and how it holds the past."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mvtool.ports import StateForm
from mvtool.streaming.state import StateInfo

if TYPE_CHECKING:
    from torch.fx import Node

_aten = torch.ops.aten
# The value torch.export writes for "to the end" of a slice.
_END = 2**63 - 1


def describe_state(
    source: str, before: Node, after: Node, declared: StateInfo | None, frames_per_step: int
) -> StateInfo:
    """Describe a state by its declaration, or else by the way the graph updates it.

    Args:
        source: Where it lives in the module.
        before: Placeholder of the state.
        after: Node of the next state.
        declared: What the module itself says.
        frames_per_step: Video frames that one call consumes.
    """
    if declared is not None:
        return declared
    fifo = _fifo(before, after)
    if fifo is not None:
        frames = fifo.size * frames_per_step // fifo.added if fifo.size * frames_per_step % fifo.added == 0 else None
        return StateInfo(f"the last {fifo.size} entries of axis {fifo.axis}, oldest first", StateForm.FIFO, frames)
    if _is_counter(before, after):
        return StateInfo("a counter of steps", StateForm.COUNTER, None)
    return StateInfo(f"the value of {source} after the step before", StateForm.OPAQUE, None)


@dataclass(frozen=True)
class _Fifo:
    """A queue along `axis` with `size` entries, of which a step replaces `added`."""

    axis: int
    size: int
    added: int


def _fifo(before: Node, after: Node) -> _Fifo | None:
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
    return _Fifo(axis, size, whole - size if dropped is None else size - parts[0].meta["val"].shape[axis])  # type: ignore[union-attr]


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
