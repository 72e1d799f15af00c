"""Maximum over a cube of space and time, for clips and streams."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from mvtool.streaming.conv import StreamBuffer, frames_held, whole_groups
from mvtool.streaming.padding import pad_same, same_size


class StreamMaxPool3d(nn.Module):
    """Maximum over a cube, of values that are not negative, with SAME padding.

    Zeros never win against such values, so they do for the padding and for the frames before a video. A stream takes the
    maximum over space first and over time second: the same number, and the buffer holds pictures that are smaller by the
    square of the stride. It holds kernel - stride of them; which frames an output sees is said in `mvtool.streaming.conv`.

    Args:
        kernel: Edge of the cube.
        stride: In all three axes.
        causal: Look at the past only.
        input_shape: (N, C, H, W) of the input, needed for the buffer.
        span: Video frames for one frame of the input, for the description of the buffer.

    Raises:
        ValueError: A causal kernel shorter than its stride.
    """

    def __init__(
        self,
        kernel: int,
        stride: int,
        *,
        causal: bool = False,
        input_shape: tuple[int, int, int, int] = (1, 1, 1, 1),
        span: int = 1,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.causal = kernel, stride, causal
        batch, channels, height, width = input_shape
        pooled = (batch, channels, same_size(height, stride), same_size(width, stride))
        held = frames_held(kernel, stride) if causal else 0
        self.stream = StreamBuffer(pooled, held, span) if held else None

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N, C, T, H, W) to (N, C, ceil(T / stride), ceil(H / stride), ceil(W / stride)).

        Raises:
            ValueError: The frames of a causal pool are no multiple of its stride.
        """
        k, s = self.kernel, self.stride
        if not self.causal:
            x, padding = pad_same(x, (k, k, k), (s, s, s))
            return functional.max_pool3d(x, k, s, padding)
        whole_groups(x, s)
        x, padding = pad_same(x, (k, k), (s, s))
        x = functional.max_pool3d(x, (1, k, k), (1, s, s), (0, *padding))
        window = x if self.stream is None else self.stream(x)
        return functional.max_pool3d(window, (k, 1, 1), (s, 1, 1))
