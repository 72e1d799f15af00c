"""Pooling over time as a running mean, and the average pool of strided skips.

The published cumulative pool keeps a running sum S and divides by the number of frames. Its range grows with
the stream and ruins int8. The mean m = S / n is the same function with a bounded range:

    m_t = m + cumsum(s - m)_t / (n + t + 1)         s: spatial means of the new frames, n: frames before them

For one frame this is m + (s - m) / (n + 1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvtool.ports import StateForm
from mvtool.streaming.clock import Clock
from mvtool.streaming.padding import same_padding, same_size
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


class SkipAveragePool(nn.Module):
    """1x3x3 average pool with stride 2 and SAME padding whose divisor leaves out padded cells.

    Written as zero padding, a plain average pool (divisor 9) and a constant map 9 / (cells inside), because
    a pool with a varying divisor is not delegated by any phone runtime.

    Args:
        height: Input height.
        width: Input width.
        stride: Spatial stride.
    """

    correction: Tensor
    KERNEL = 3

    def __init__(self, height: int, width: int, stride: int = 2) -> None:
        super().__init__()
        self.stride = stride
        self.padding = (*same_padding(width, self.KERNEL, stride), *same_padding(height, self.KERNEL, stride))
        inside = torch.outer(self._inside(height), self._inside(width))
        self.register_buffer("correction", self.KERNEL**2 / inside, persistent=False)

    def _inside(self, size: int) -> Tensor:
        start = (
            torch.arange(same_size(size, self.stride)) * self.stride - same_padding(size, self.KERNEL, self.stride)[0]
        )
        return ((start + self.KERNEL).clamp(max=size) - start.clamp(min=0)).float()

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N, C, T, H, W) to (N, C, T, ceil(H / stride), ceil(W / stride))."""
        padded = torch.constant_pad_nd(x, self.padding)
        kernel, stride = (1, self.KERNEL, self.KERNEL), (1, self.stride, self.stride)
        return functional.avg_pool3d(padded, kernel, stride) * self.correction
