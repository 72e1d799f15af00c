"""A 5D value that is computed as a 4D tensor.

Phones' accelerators take at most four axes. A video tensor (1, C, T, H, W) is held as (T, C, H, W): the
batch of one is dropped and time takes its place, so that every 2D operator works on all frames at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mvtool.converters.recipe import Recipe

aten = torch.ops.aten
# Axes of the logical (N, C, T, H, W) tensor in the order in which the 4D tensor holds them.
ORDER = (2, 1, 3, 4)


@dataclass(frozen=True)
class Folded:
    """A logical 5D tensor with one axis of size 1 left out.

    Attributes:
        tensor: The 4D tensor.
        order: Logical axis of each axis of `tensor`.
        parts: Where `tensor` is a join of frames that are tensors of their own: these, joined along time. Whoever needs
            some of the frames alone reads them there, and the join is never made if nobody reads it.
    """

    tensor: Tensor
    order: tuple[int, int, int, int] = ORDER
    parts: tuple[Folded, ...] = ()

    @property
    def dropped(self) -> int:
        """The logical axis of size 1 that `tensor` does not have."""
        return 10 - sum(self.order)

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical 5D shape."""
        shape = [1] * 5
        for position, axis in enumerate(self.order):
            shape[axis] = int(self.tensor.shape[position])
        return tuple(shape)

    def position(self, axis: int) -> int:
        """Axis of `tensor` that holds the logical `axis`, which must not be the dropped one."""
        return self.order.index(axis % 5)

    def alone(self, first: int, last: int) -> Folded | None:
        """Frames `first` to `last` (not included), where they are a part of their own."""
        begin = 0
        for part in self.parts:
            end = begin + part.shape[2]
            if (begin, end) == (first, last):
                return part
            begin = end
        return None

    def unfold(self) -> Tensor:
        """The logical 5D tensor."""
        return self.ascending().unsqueeze(self.dropped)

    def canonical(self) -> Tensor:
        """The tensor as (T, C, H, W).

        Raises:
            ValueError: The batch is not one.
        """
        return self.as_order(ORDER)

    def as_order(self, order: tuple[int, int, int, int]) -> Tensor:
        """The tensor with its axes in `order`, which may leave out another axis of size 1.

        Raises:
            ValueError: `order` leaves out an axis that is not of size 1.
        """
        missing = 10 - sum(order)
        if self.shape[missing] != 1:
            raise ValueError(
                f"axis {missing} of a video tensor of shape {self.shape} is {self.shape[missing]}, expected 1: "
                "capture with a batch of one"
            )
        # Both the dropped and the missing axis have size 1, so one may stand for the other.
        relabelled = tuple(self.dropped if axis == missing else axis for axis in self.order)
        return permute(self.tensor, tuple(relabelled.index(axis) for axis in order))

    def ascending(self) -> Tensor:
        """The tensor with its axes in logical order, the dropped one left out."""
        return permute(self.tensor, tuple(self.order.index(axis) for axis in sorted(self.order)))


def fold(value: Tensor) -> Folded:
    """Fold a 5D tensor by leaving out its first axis of size 1.

    Raises:
        ValueError: There is none.
    """
    if value.dim() != 5 or 1 not in value.shape:
        raise ValueError(f"cannot fold shape {tuple(value.shape)}: expected five axes, one of them of size 1")
    dropped = list(value.shape).index(1)
    kept = tuple(axis for axis in range(5) if axis != dropped)
    return Folded(value.squeeze(dropped), kept)  # type: ignore[arg-type]


def permute(value: Tensor, order: tuple[int, ...]) -> Tensor:
    """Permute, as a reshape where only axes of size 1 move, and not at all where nothing does.

    A reshape costs nothing in every runtime; a transpose is a copy.
    """
    if order == tuple(range(value.dim())):
        return value
    moving = [axis for axis in order if value.shape[axis] != 1]
    if moving == sorted(moving):
        return value.reshape([value.shape[axis] for axis in order])
    return value.permute(order)


def reshape_folded(value: Tensor, shape: tuple[int, ...]) -> Tensor | Folded:
    """Reshape a row-major tensor; a 5D target with an axis of size 1 comes back folded."""
    if len(shape) != 5 or 1 not in shape:
        return value.reshape(shape)
    dropped = shape.index(1)
    kept = tuple(axis for axis in range(5) if axis != dropped)
    return Folded(value.reshape([shape[axis] for axis in kept]), kept)  # type: ignore[arg-type]


def every(recipe: Recipe, frames: Tensor, first: int, count: int, step: int) -> Tensor:
    """`count` frames of (T, C, H, W), `step` apart.

    XNNPACK takes no slice with a step, and each one splits its graph. In channels-last memory `step` frames of height H
    are one of height `step * H`, which costs nothing, and of that a plain slice is every `step`-th frame.
    """
    if step == 1 or count == 1:
        return aten.slice.Tensor(frames, 0, first, first + count)  # type: ignore[no-any-return]
    last = first + (count - 1) * step
    if not recipe.channels_last_ports:
        return aten.slice.Tensor(frames, 0, first, last + 1, step)  # type: ignore[no-any-return]
    # The first group may begin before the first frame wanted; else the last frame has no whole group and is joined.
    lead = max(0, first + count * step - frames.shape[0])
    if lead > first:
        rest = aten.slice.Tensor(frames, 0, last, last + 1)
        return torch.cat([every(recipe, frames, first, count - 1, step), rest])
    _, channels, height, width = frames.shape
    group = aten.slice.Tensor(frames, 0, first - lead, first - lead + count * step)
    tall = group.permute(0, 2, 3, 1).reshape(count, step * height, width, channels)
    taken = aten.slice.Tensor(tall, 1, lead * height, (lead + 1) * height)
    return taken.permute(0, 3, 1, 2)  # type: ignore[no-any-return]
