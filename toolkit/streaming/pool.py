"""Pooling over time as a running mean.

The published cumulative pool keeps a running sum S and divides by the number of frames. Its range grows with
the stream and ruins int8. The mean m = S / n is the same function with a bounded range:

    m_t = m + cumsum(s - m)_t / (n + t + 1)         s: spatial means of the new frames, n: frames before them

For one frame this is m + (s - m) / (n + 1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvtool.ports import StateForm
from mvtool.streaming.clock import Clock
from mvtool.streaming.state import StateInfo, declare_state, write_state


class CumulativeMean(nn.Module):
    """Mean over all frames so far.

    Args:
        batch: N.
        channels: C.
    """

    buffer: Tensor

    def __init__(self, batch: int, channels: int) -> None:
        super().__init__()
        info = StateInfo("Mean over all frames seen and over space.", StateForm.MEAN)
        declare_state(self, "buffer", (batch, channels, 1, 1, 1), info)

    def forward(self, x: Tensor, clock: Clock) -> Tensor:
        """Mean up to every frame.

        Args:
            x: Spatial means, (N, C, T, 1, 1).
            clock: Times of the T frames.

        Returns:
            (N, C, T, 1, 1); the last frame's value is the new state.
        """
        change = x - self.buffer
        if x.shape[2] > 1:
            change = torch.cumsum(change, dim=2)
        mean = self.buffer + change * clock.weight
        write_state(self.buffer, mean[:, :, -1:] if x.shape[2] > 1 else mean)
        return mean
