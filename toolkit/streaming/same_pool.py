"""Average and maximum with TensorFlow's SAME padding, which counts in neither."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvtool.streaming.padding import Sizes, flat_pads, same_padding, same_paddings, same_size


class SameAveragePool(nn.Module):
    """Average pool over the last axes with SAME padding whose divisor leaves out padded cells.

    Written as zero padding, a plain average pool (divided by all cells of the kernel) and a constant map
    kernel / (cells inside), because a pool with a varying divisor is not delegated by any phone runtime.

    Args:
        size: Input size (H, W) or (T, H, W).
        kernel: Cells of a window along these axes.
        stride: Cells from one window to the next.
    """

    correction: Tensor

    def __init__(self, size: Sizes, kernel: Sizes, stride: Sizes) -> None:
        super().__init__()
        whole = (1,) * (3 - len(size))
        self.kernel, self.stride = (*whole, *kernel), (*whole, *stride)
        self.padding = flat_pads(same_paddings(size, kernel, stride))
        inside = torch.ones((1,) * 3)
        for axis, lengths in enumerate(zip(size, kernel, stride, strict=True), 3 - len(size)):
            shape = [1] * 3
            shape[axis] = -1
            inside = inside * _inside(*lengths).reshape(shape)
        self.register_buffer("correction", math.prod(kernel) / inside, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N, C, T, H, W) to sizes ceil(size / stride)."""
        padded = torch.constant_pad_nd(x, self.padding) if any(self.padding) else x
        return functional.avg_pool3d(padded, self.kernel, self.stride) * self.correction


def _inside(size: int, kernel: int, stride: int) -> Tensor:
    """Cells of each window along an axis that are no padding, (windows,); one entry where all have their one."""
    if kernel == 1:
        return torch.ones(1)
    start = torch.arange(same_size(size, stride)) * stride - same_padding(size, kernel, stride)[0]
    return ((start + kernel).clamp(max=size) - start.clamp(min=0)).float()


class SameMaxPool(nn.Module):
    """Maximum over the last axes with SAME padding.

    The padding repeats the cells at the edges. A window that reaches past an edge holds the cell there already, so
    this equals TensorFlow's minus infinity, which int8 does not have; zeros would be wrong for negative values.

    Args:
        kernel: Cells of a window along (H, W) or (T, H, W).
        stride: Cells from one window to the next.
    """

    def __init__(self, kernel: Sizes, stride: Sizes) -> None:
        super().__init__()
        whole = (1,) * (3 - len(kernel))
        self.kernel, self.stride = (*whole, *kernel), (*whole, *stride)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N, C, T, H, W) to sizes ceil(size / stride)."""
        padding = flat_pads(same_paddings(x.shape[2:], self.kernel, self.stride))
        if any(padding):
            x = functional.pad(x, padding, mode="replicate")
        return functional.max_pool3d(x, self.kernel, self.stride)
