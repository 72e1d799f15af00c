"""3D convolutions that remember the frames their kernel still needs.

A causal kernel of kt frames looks at the present frame and the kt - 1 before it. In a stream these come from
a buffer that starts with zeros, which is the same as zero padding before the first frame:

    window = concat(buffer, x)            over time, kt - 1 + T frames
    y      = conv(window)                 T frames
    buffer = last kt - 1 frames of window

This holds for any T, also T < kt - 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvtool.ports import StateForm
from mvtool.streaming.padding import pad_same
from mvtool.streaming.state import StateInfo, declare_state, write_state

Triple = tuple[int, int, int]


class StreamBuffer(nn.Module):
    """The last `frames` frames of a tensor, put before the next ones.

    Args:
        shape: (N, C, H, W) of the tensor.
        frames: Number of frames held.
    """

    buffer: Tensor

    def __init__(self, shape: tuple[int, int, int, int], frames: int) -> None:
        super().__init__()
        batch, channels, height, width = shape
        info = StateInfo("Last input frames of the temporal kernel, oldest first.", StateForm.FIFO, frames)
        declare_state(self, "buffer", (batch, channels, frames, height, width), info)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (N, C, T, H, W) into (N, C, frames + T, H, W) and keep the newest frames."""
        window = torch.cat([self.buffer, x], dim=2)
        write_state(self.buffer, window[:, :, x.shape[2] :])
        return window


class StreamConv3d(nn.Conv3d):
    """Conv3d with SAME padding in space, and in time either symmetric zeros or a stream buffer.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: (kt, kh, kw).
        stride: Spatial stride; the temporal stride is 1.
        groups: As in `nn.Conv3d`.
        bias: As in `nn.Conv3d`.
        causal: Look at the past only.
        input_shape: (N, H, W) of the input, needed for the buffer of a causal kernel with kt > 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Triple,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        causal: bool = False,
        input_shape: Triple = (1, 1, 1),
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, (1, stride, stride), groups=groups, bias=bias)
        held = kernel_size[0] - 1
        batch, height, width = input_shape
        self.stream = StreamBuffer((batch, in_channels, height, width), held) if causal and held else None
        self.time_padding = 0 if causal else held // 2

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, T, H, W) to (N, C', T, ceil(H / stride), ceil(W / stride))."""
        x = input if self.stream is None else self.stream(input)
        _, kernel_height, kernel_width = self.kernel_size
        x, padding = pad_same(x, (kernel_height, kernel_width), (self.stride[1], self.stride[2]))
        full = (self.time_padding, *padding)
        return functional.conv3d(x, self.weight, self.bias, self.stride, full, self.dilation, self.groups)
