"""One frame counter per model, from which every running mean and position is computed.

The published networks keep one integer counter per pooling layer; all of them hold the same number at any
time. Integer counters are not delegated on phones and split the graph, a float32 counter is exact up to
2**24 frames (186 hours at 25 frames per second) and then stands still, which turns the running means into
exponential ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mvtool.ports import StateForm
from mvtool.streaming.state import StateInfo, declare_state, write_state


class Clock(NamedTuple):
    """Time of the frames in one call, handed to the layers.

    Attributes:
        seen: Frames seen up to and including frame t, 1 for the first frame of a stream. Shape (1,) for one
            frame, else (1, 1, T, 1, 1), so that it broadcasts against (N, C, T, H, W).
        weight: 1 / seen, the share of frame t in the mean of all frames.
    """

    seen: Tensor
    weight: Tensor


class FrameClock(nn.Module):
    """Counts the frames of the stream.

    The state `frame_count` has shape (1,): Core ML takes no tensor of rank 0.

    Args:
        span: Video frames for one count. A clock of layers behind a stride in time counts their frames, which are
            the ones that running means divide by.
    """

    frame_count: Tensor
    one: Tensor

    def __init__(self, span: int = 1) -> None:
        super().__init__()
        meaning = "Number of frames seen." if span == 1 else f"Number of groups of {span} frames seen."
        declare_state(self, "frame_count", (1,), StateInfo(meaning, StateForm.COUNTER))
        # A tensor divided by a tensor: 1.0 / x exports as `reciprocal`, which XNNPACK does not take.
        self.register_buffer("one", torch.ones(1), persistent=False)

    def forward(self, frames: int) -> Clock:
        """Advance by `frames` and return the times of these frames."""
        if frames == 1:
            seen = self.frame_count + 1.0
            write_state(self.frame_count, seen)
        else:
            steps = torch.arange(1, frames + 1, dtype=torch.float32, device=self.frame_count.device)
            seen = self.frame_count + steps.view(1, 1, frames, 1, 1)
            write_state(self.frame_count, self.frame_count + float(frames))
        return Clock(seen, self.one / seen)
