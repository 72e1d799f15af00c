"""The temporal shift of TSM (Lin et al. 2019, arXiv 1811.08383): some channels come from another frame.

With C channels and fold = C // 8, a shifted tensor holds in frame t

| channels | two-sided (clips) | one-sided (streams) |
|---|---|---|
| 0 .. fold - 1 | frame t + 1 | frame t - 1 |
| fold .. 2 fold - 1 | frame t - 1 | frame t |
| the rest | frame t | frame t |

with zeros beyond the ends of a clip and before the first frame of a stream. The same channels mean other frames in the two
forms, so weights trained with one do not serve the other.

The frames of N videos lie along the batch, frame by frame: (T N, C, H, W), row t N + n. One frame later is N rows further
down, so no shift needs a fifth axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from mvtool.ports import StateForm
from mvtool.streaming import StateInfo, declare_state, write_state

Size = tuple[int, int]
FOLDS = 8
"""One part in this many moves in each direction (`shift_div` of the published code)."""


class ShiftKind(StrEnum):
    """Form of the shift; the values stand in saved weights."""

    TWO_SIDED = "two-sided temporal shift"
    ONE_SIDED = "one-sided temporal shift"


class TwoSidedShift(nn.Module):
    """Looks one frame ahead and one back in a clip.

    Args:
        channels: C.
        frames: T.
    """

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.fold = channels // FOLDS

    def forward(self, x: Tensor) -> Tensor:
        """Shift (T N, C, H, W)."""
        clips = x.shape[0] // self.frames
        following = torch.constant_pad_nd(x[clips:, : self.fold], (0, 0, 0, 0, 0, 0, 0, clips))
        previous = torch.constant_pad_nd(x[:-clips, self.fold : 2 * self.fold], (0, 0, 0, 0, 0, 0, clips, 0))
        return torch.cat([following, previous, x[:, 2 * self.fold :]], 1)


class OneSidedShift(nn.Module):
    """Looks one frame back in a stream.

    The state is `buffer` (N, fold, H, W), the first channels of the newest frame.

    Args:
        batch: N.
        channels: C.
        size: (H, W) of the tensor.
    """

    buffer: Tensor

    def __init__(self, batch: int, channels: int, size: Size) -> None:
        super().__init__()
        self.fold = channels // FOLDS
        info = StateInfo("First channels of the previous frame, put in place of the present one's.", StateForm.FIFO, 1)
        declare_state(self, "buffer", (batch, self.fold, *size), info)

    def forward(self, x: Tensor) -> Tensor:
        """Shift (T N, C, H, W) for any T, and keep the newest frame's channels."""
        batch = self.buffer.shape[0]
        moving = x[:, : self.fold]
        # A single frame needs no join over time, which would stay in the exported graph.
        single = x.shape[0] == batch
        previous = self.buffer if single else torch.cat([self.buffer, moving[:-batch]])
        shifted = torch.cat([previous, x[:, self.fold :]], 1)
        write_state(self.buffer, moving if single else moving[-batch:])
        return shifted


@dataclass(frozen=True)
class Shifts:
    """The shifts of one network.

    Attributes:
        kind: Form of the shift.
        count: T of the two-sided form, N of the one-sided one; each fixes this number and leaves the other free.
    """

    kind: ShiftKind
    count: int

    def module(self, channels: int, size: Size) -> nn.Module:
        """A shift of a tensor with this number of channels and (H, W)."""
        if self.kind is ShiftKind.TWO_SIDED:
            return TwoSidedShift(channels, self.count)
        return OneSidedShift(self.count, channels, size)
