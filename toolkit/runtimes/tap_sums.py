"""Depthwise convolution in float64, tap by tap.

For float64 torch has one kernel per group only: hundreds of tiny matrix products for a depthwise layer, most of the time
of a step. Here the layer is one multiplication and addition per tap over all channels, which lie side by side in memory. Sums of products of float16 numbers are
exact in float64 but for the last bits, so their order is of no account to what is rounded to float16.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

MOST_TAPS = 64
"""With more of them the many small products are faster."""


def suits(weight: Sequence[int], groups: int) -> bool:
    """Whether a convolution with weights of this shape is one that `tap_sums` computes."""
    return groups > 1 and weight[0] == groups and math.prod(weight[1:]) <= MOST_TAPS


def tap_sums(
    value: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Convolution with as many groups as output channels.

    Args:
        value: (N, C, *extents).
        weight: (groups, C / groups, *kernel).
        bias: (groups,), or None.
        stride: One per axis of the kernel.
        padding: Zeros on both sides, one number per axis.
        dilation: One per axis.

    Returns:
        (N, groups, *extents of the result), in the type of `value`.
    """
    groups, per_group, *kernel = weight.shape
    last = value.movedim(1, -1)
    if any(padding):
        last = F.pad(last, [0, 0, *(amount for amount in reversed(padding) for _ in range(2))])
    grouped = last.reshape(*last.shape[:-1], groups, per_group).movedim(-1, 0).contiguous()
    extents = [
        (size - (k - 1) * d - 1) // s + 1
        for size, k, d, s in zip(last.shape[1:-1], kernel, dilation, stride, strict=True)
    ]
    start = value.new_zeros(groups) if bias is None else bias
    total = start.expand(value.shape[0], *extents, groups).clone()
    # By tap: (C / groups, *kernel, groups).
    factors = weight.movedim(0, -1).contiguous()
    for channel, tap in itertools.product(range(per_group), itertools.product(*map(range, kernel))):
        window: tuple[slice, ...] = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, dilation, extents, stride, strict=True)
        )
        total.addcmul_(grouped[channel][(slice(None), *window)], factors[channel][tap])
    return total.movedim(-1, 1)


def convolution(
    value: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv2d`, depthwise layers tap by tap."""
    if not suits(tuple(weight.shape), groups) or isinstance(padding, str):
        return F.conv2d(value, weight, bias, stride, padding, dilation, groups)
    return tap_sums(value, weight, bias, _pair(stride), _pair(padding), _pair(dilation))


def _pair(given: int | Sequence[int]) -> Sequence[int]:
    if isinstance(given, int):
        return (given, given)
    return tuple(given) * (2 // len(given))
