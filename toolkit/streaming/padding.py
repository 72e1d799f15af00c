"""TensorFlow's SAME padding, which is not symmetric for strides on even sizes.

    out = ceil(in / stride);  total = max((out - 1) stride + kernel - in, 0);  before = total // 2

So a 3x3 kernel with stride 2 pads (0, 1) on even sizes and (1, 1) on odd ones, where PyTorch's `padding=1`
always pads (1, 1) and shifts the picture by one pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

Pair = tuple[int, int]


def same_size(size: int, stride: int) -> int:
    """Output size of SAME padding: ceil(size / stride)."""
    return -(-size // stride)


def same_padding(size: int, kernel: int, stride: int) -> Pair:
    """Cells added before and after an axis of `size`."""
    total = max((same_size(size, stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: Pair, stride: Pair) -> tuple[Tensor, Pair]:
    """Prepare `x` (N, C, T, H, W) for a spatial kernel with SAME padding.

    Returns:
        The tensor and the symmetric padding (height, width) left to the operator itself; an explicit
        zero padding is added only where both sides differ, because it costs an operator on the phone.
    """
    height = same_padding(x.shape[3], kernel[0], stride[0])
    width = same_padding(x.shape[4], kernel[1], stride[1])
    if height[0] == height[1] and width[0] == width[1]:
        return x, (height[0], width[0])
    return torch.constant_pad_nd(x, (*width, *height)), (0, 0)
