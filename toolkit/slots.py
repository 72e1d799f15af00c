"""A queue of past frames whose entries are ports of their own.

An artifact takes every entry as a *slot* and gives the newest entries alone. Between two steps the slots move up:

    slots = slots[added:] + newest

so that an app hands pointers on and no frame is copied. What is written here works on any list, of arrays as of names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from mvtool.ports import AnyArray, TensorPort

T = TypeVar("T")
_MOST_AXES = 4


def moved_up(held: Sequence[T], newest: Sequence[T]) -> list[T]:
    """What enters the next step, oldest first.

    Args:
        held: What entered this one.
        newest: What left it, not more.

    Example:
        >>> moved_up(["a", "b", "c"], ["d"]), moved_up(["a"], ["b"])
        (['b', 'c', 'd'], ['b'])
    """
    return [*held[len(newest) :], *newest]


def whole_port(name: str, slots: Sequence[TensorPort], axis: int) -> TensorPort:
    """The port that would hold all slots in one tensor, one after another in memory.

    No artifact has it; sessions tell and take the state in its form.

    Args:
        name: Of the port.
        slots: All alike, with one entry of the logical `axis` each.
        axis: Axis of the logical state that the slots lie along.
    """
    first, count = slots[0], len(slots)
    logical = tuple(count if a == axis else size for a, size in enumerate(first.logical_shape))
    permutation = (axis, *(a for a in first.permutation if a != axis))
    update = {"name": name, "position": 0, "layout": None, "permutation": permutation, "logical_shape": logical}
    return first.model_copy(update={**update, "shape": _stacked(count, first.shape)})


def _stacked(count: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of `count` arrays in one, with at most four axes."""
    if len(shape) < _MOST_AXES:
        return (count, *shape)
    if 1 in shape:
        left_out = shape.index(1)
        return (count, *shape[:left_out], *shape[left_out + 1 :])
    return (count * shape[0], *shape[1:])


def split(whole: AnyArray, slots: Sequence[TensorPort]) -> list[AnyArray]:
    """The stored array of every slot, contiguous, from that of the whole."""
    rows = np.asarray(whole, order="C").reshape(len(slots), -1)
    return [row.reshape(slot.shape) for row, slot in zip(rows, slots, strict=True)]


def join(parts: Sequence[AnyArray], whole: TensorPort) -> AnyArray:
    """The stored array of the whole from those of its slots; of one, the same array."""
    return parts[0] if len(parts) == 1 else np.concatenate([part.reshape(-1) for part in parts]).reshape(whole.shape)
