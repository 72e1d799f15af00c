"""Pooling over one to three spatial axes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mvtool.runtimes.mlprogram.dtypes import TensorType
from mvtool.runtimes.mlprogram.operators.padding import flat_padding, is_symmetric, window_padding
from mvtool.runtimes.mlprogram.registry import Call, Kernel, operator

_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MAXIMUM = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


@dataclass(frozen=True)
class _Window:
    """Geometry of a pooling operation, one entry per spatial axis."""

    kernel: list[int]
    strides: list[int]
    padding: list[tuple[int, int]]
    ceil_mode: bool

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def fits_torch(self) -> bool:
        """Whether torch's own padding, symmetric and at most half the window, can express this one."""
        return is_symmetric(self.padding) and all(
            2 * before <= k for (before, _), k in zip(self.padding, self.kernel, strict=True)
        )


@operator("max_pool", exact=True)
def max_pool(call: Call) -> Kernel:
    """Maximum over each window; padding never wins."""
    window = _window(call, call.tensor("x"))
    compute, kernel, strides, ceil = _MAXIMUM[window.rank], window.kernel, window.strides, window.ceil_mode
    if window.fits_torch:
        before = [amount for amount, _ in window.padding]
        return lambda x: compute(x, kernel, strides, before, 1, ceil)
    margins = _margins(call, window)
    return lambda x: compute(F.pad(x, margins, value=-math.inf), kernel, strides)


@operator("avg_pool", wide=True)
def avg_pool(call: Call) -> Kernel:
    """Mean over each window; padding counts as zeros unless it is excluded from the average."""
    x = call.tensor("x")
    window = _window(call, x)
    exclude = call.boolean("exclude_padding_from_average", False)
    compute, kernel, strides, ceil = _AVERAGE[window.rank], window.kernel, window.strides, window.ceil_mode
    if window.fits_torch:
        before = [amount for amount, _ in window.padding]
        return lambda x: compute(x, kernel, strides, before, ceil, not exclude)
    margins = _margins(call, window)
    if not exclude:
        return lambda x: compute(F.pad(x, margins), kernel, strides)
    # Mean of window and mean of its mask both divide by the window's size, which cancels.
    call.bind(compute(F.pad(torch.ones(1, 1, *x.shape[2:]), margins), kernel, strides))
    return lambda x, share: compute(F.pad(x, margins), kernel, strides) / share


@operator("l2_pool")
def l2_pool(call: Call) -> Kernel:
    """Square root of the sum of squares over each window."""
    window = _window(call, call.tensor("x"))
    if window.ceil_mode or window.rank > 2:
        raise call.error("ceil_mode and three spatial axes are not supported")
    compute, kernel, strides = _AVERAGE[window.rank], window.kernel, window.strides
    margins, count = flat_padding(window.padding), math.prod(window.kernel)
    return lambda x: torch.sqrt(compute(F.pad(x * x, margins), kernel, strides) * count)


def _window(call: Call, x: TensorType) -> _Window:
    spatial = x.rank - 2
    if spatial not in _AVERAGE:
        raise call.error(f"an input of {x.rank} axes has no 1 to 3 spatial axes")
    kernel = call.integers("kernel_sizes", length=spatial)
    strides = call.integers("strides", [1] * spatial, spatial)
    if min(kernel) < 1:
        raise call.error(f"kernel_sizes {kernel} are out of range")
    padding = window_padding(call, x.shape[2:], kernel, strides)
    return _Window(kernel, strides, padding, call.boolean("ceil_mode", False))


def _margins(call: Call, window: _Window) -> list[int]:
    if window.ceil_mode:
        raise call.error(f"ceil_mode with padding {window.padding} is not supported")
    return flat_padding(window.padding)
