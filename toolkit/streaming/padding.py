"""TensorFlow's SAME padding, which is not symmetric for strides on even sizes.

    out = ceil(in / stride);  total = max((out - 1) stride + kernel - in, 0);  before = total // 2

So a 3x3 kernel with stride 2 pads (0, 1) on even sizes and (1, 1) on odd ones, where PyTorch's `padding=1`
always pads (1, 1) and shifts the picture by one pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

Pair = tuple[int, int]
Sizes = tuple[int, ...]


def same_size(size: int, stride: int) -> int:
    """Output size of SAME padding: ceil(size / stride)."""
    return -(-size // stride)


def same_padding(size: int, kernel: int, stride: int) -> Pair:
    """Cells added before and after an axis of `size`."""
    total = max((same_size(size, stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: Sizes, stride: Sizes) -> tuple[Tensor, Sizes]:
    """Prepare `x` (N, C, T, H, W) for a kernel over its last axes with SAME padding.

    Args:
        x: Video tensor.
        kernel: Cells of the kernel along the last two axes, or the last three.
        stride: As many.

    Returns:
        The tensor and the symmetric padding per axis that is left to the operator itself; an explicit
        zero padding is added only where both sides differ, because it costs an operator on the phone.
    """
    amounts = same_paddings(x.shape[-len(kernel) :], kernel, stride)
    if all(before == after for before, after in amounts):
        return x, tuple(before for before, _ in amounts)
    return torch.constant_pad_nd(x, flat_pads(amounts)), (0,) * len(kernel)


def same_paddings(sizes: Sizes, kernel: Sizes, stride: Sizes) -> tuple[Pair, ...]:
    """`same_padding` of several axes."""
    return tuple(same_padding(*axis) for axis in zip(sizes, kernel, stride, strict=True))


def flat_pads(amounts: tuple[Pair, ...]) -> Sizes:
    """Cells before and after the last axes in the order of `torch.nn.functional.pad`, the last axis first."""
    return tuple(cells for pair in reversed(amounts) for cells in pair)
