"""3D convolutions that remember the frames their kernel still needs.

A causal kernel of kt frames looks at the present frame and the kt - 1 before it. In a stream these come from
a buffer that starts with zeros, which is the same as zero padding before the first frame:

    window = concat(buffer, x)            over time, kt - 1 + T frames
    y      = conv(window)                 T frames
    buffer = last kt - 1 frames of window

This holds for any T, also T < kt - 1.

With a stride of st frames the buffer holds kt - st frames, and T is a multiple of st. Output frame j then ends with input
frame j st + st - 1, the newest of its group of st: after a call the outputs know every frame of that call. It is SAME
padding (which adds kt - st frames to whole groups) with all of it put before the first frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvtool.ports import StateForm
from mvtool.streaming.padding import Sizes, pad_same
from mvtool.streaming.state import StateInfo, declare_state, write_state

Triple = tuple[int, int, int]


def frames_held(kernel: int, stride: int) -> int:
    """Past frames that a causal kernel needs: kernel - stride.

    Raises:
        ValueError: The kernel is shorter than its stride, so frames between two outputs would be lost.
    """
    if kernel < stride:
        raise ValueError(f"A causal kernel of {kernel} frames with stride {stride} skips frames; take a longer kernel.")
    return kernel - stride


def whole_groups(x: Tensor, stride: int) -> None:
    """Check that the frames of `x` (N, C, T, H, W) are a multiple of a temporal stride.

    Raises:
        ValueError: They are not, so the rest would be lost.
    """
    if x.shape[2] % stride:
        raise ValueError(
            f"A causal layer with temporal stride {stride} got {x.shape[2]} frames; give a multiple of {stride} per call."
        )


class StreamBuffer(nn.Module):
    """The last `frames` frames of a tensor, put before the next ones.

    Args:
        shape: (N, C, H, W) of the tensor.
        frames: Number of frames held.
        span: Video frames for one frame of the tensor, more than 1 behind a stride in time.
    """

    buffer: Tensor

    def __init__(self, shape: tuple[int, int, int, int], frames: int, span: int = 1) -> None:
        super().__init__()
        batch, channels, height, width = shape
        self.span = span
        info = StateInfo("Last input frames of the temporal kernel, oldest first.", StateForm.FIFO, frames * span)
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
        stride: Spatial stride.
        time_stride: Temporal stride.
        groups: As in `nn.Conv3d`.
        bias: As in `nn.Conv3d`.
        causal: Look at the past only.
        input_shape: (N, H, W) of the input, needed for the buffer of a causal kernel.
        span: Video frames for one frame of the input, for the description of the buffer.

    Raises:
        ValueError: A causal kernel shorter than its temporal stride.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Triple,
        *,
        stride: int = 1,
        time_stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        causal: bool = False,
        input_shape: Triple = (1, 1, 1),
        span: int = 1,
    ) -> None:
        steps = (time_stride, stride, stride)
        super().__init__(in_channels, out_channels, kernel_size, steps, groups=groups, bias=bias)
        self.causal = causal
        held = frames_held(kernel_size[0], time_stride) if causal else 0
        batch, height, width = input_shape
        self.stream = StreamBuffer((batch, in_channels, height, width), held, span) if held else None
        self.time_padding = 0 if causal else kernel_size[0] // 2

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, T, H, W) to (N, C', ceil(T / time_stride), ceil(H / stride), ceil(W / stride)).

        Raises:
            ValueError: The frames of a causal convolution are no multiple of its temporal stride.
        """
        x, padding = self._padded(self._extended(input))
        return functional.conv3d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _extended(self, x: Tensor) -> Tensor:
        """The frames, behind those that a stream remembers."""
        if not self.causal:
            return x
        whole_groups(x, self.stride[0])
        if self.stream is not None:
            x = self.stream(x)
        return x

    def _padded(self, x: Tensor) -> tuple[Tensor, Sizes]:
        if not self.causal and self.stride[0] > 1:
            return pad_same(x, self.kernel_size, self.stride)
        x, padding = pad_same(x, self.kernel_size[1:], self.stride[1:])
        return x, (self.time_padding, *padding)
