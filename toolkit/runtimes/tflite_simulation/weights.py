"""Convolutions, dense layers and pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mvtool.errors import RuntimeLoadError
from mvtool.ports import AnyArray
from mvtool.runtimes.tflite_simulation.arithmetic import fused
from mvtool.runtimes.tflite_simulation.table import Place, Step, offset_operator, operator
from mvtool.runtimes.xnnpack_arithmetic import weighted_factors

SAME = 0


def padding(size: int, kernel: int, stride: int, dilation: int, mode: int) -> tuple[int, int]:
    """Cells before and after, by TensorFlow's rule; the odd cell comes after.

    Examples:
        >>> padding(172, 3, 2, 1, SAME), padding(43, 5, 2, 1, SAME)
        ((0, 1), (2, 2))
    """
    if mode != SAME:
        return 0, 0
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _window(place: Place, kernel: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int], list[int]]:
    options = place.options
    stride = (int(options["strideH"]), int(options["strideW"]))
    dilation = (int(options.get("dilationHFactor", 1)), int(options.get("dilationWFactor", 1)))
    source = place.given(0)
    vertical, horizontal = (
        padding(source.shape[1 + i], kernel[i], stride[i], dilation[i], int(options["padding"])) for i in (0, 1)
    )
    return stride, dilation, [*horizontal, *vertical]


def _picture(x: Tensor, amounts: list[int]) -> Tensor:
    """(N, H, W, C) as (N, C, H, W) without copying, padded."""
    picture = x.permute(0, 3, 1, 2)
    return F.pad(picture, amounts) if any(amounts) else picture


@operator("CONV_2D", "DEPTHWISE_CONV_2D")
def convolution(place: Place) -> Step:
    """2D convolution; depthwise weights are (1, H, W, C)."""
    compute = _convolve(place, place.constant(1), _bias(place))
    activate, enter = fused(place), _entry(place)
    return lambda x, *_: activate(compute(enter(x)))


@offset_operator("CONV_2D", "DEPTHWISE_CONV_2D")
def offset_convolution(place: Place) -> Step:
    """The exact sum of products of integers, then one factor per channel."""
    compute, factors = _convolve(place, _integers(place, 1), _integer_bias(place)), _factors(place)
    return lambda x, *_: compute(x) * factors


def _convolve(place: Place, weights: AnyArray, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    raw = torch.from_numpy(weights.copy())
    weight = raw.permute(3, 0, 1, 2) if place.operator.kind == "DEPTHWISE_CONV_2D" else raw.permute(0, 3, 1, 2)
    groups = place.given(0).shape[3] // weight.shape[1]
    weight = weight.contiguous(memory_format=torch.channels_last)
    stride, dilation, amounts = _window(place, (weight.shape[2], weight.shape[3]))

    def compute(x: Tensor) -> Tensor:
        return F.conv2d(_picture(x, amounts), weight, bias, stride, 0, dilation, groups).permute(0, 2, 3, 1)

    return compute


@operator("FULLY_CONNECTED")
def fully_connected(place: Place) -> Step:
    """Dense layer over the last axis."""
    if _dynamic(place):
        return _dynamic_dense(place)
    weight, bias = torch.from_numpy(place.constant(1).copy()), _bias(place)
    activate, shape = fused(place), place.output.shape
    return lambda x, *_: activate(F.linear(x.reshape(-1, weight.shape[1]), weight, bias)).reshape(shape)


def _dynamic_dense(place: Place) -> Step:
    """Float activations, rounded on the fly, times int8 weights.

    The sum of integers is exact. XNNPACK's kernels (src/qd8-f32-qc8w-gemm) multiply it by the activations' step,
    then multiply by the weights' and add the bias with one rounding, which float64 imitates.
    """
    weight, scales = torch.from_numpy(_integers(place, 1)), _weight_scales(place)
    factors = torch.from_numpy(scales).double()
    bias = _bias(place)
    offsets = torch.zeros(len(scales), dtype=torch.float64) if bias is None else bias.double()
    activate, shape = fused(place), place.output.shape

    def step(x: Tensor, *_: Tensor | None) -> Tensor:
        steps, unit = round_dynamically(x.reshape(-1, weight.shape[1]), lambda s: place.borders.round(place.site, s))
        scaled = F.linear(steps, weight) * unit
        return activate((scaled.double() * factors + offsets).float()).reshape(shape)

    return step


@offset_operator("FULLY_CONNECTED")
def offset_fully_connected(place: Place) -> Step:
    """The exact sum of products of integers, then one factor per channel."""
    weight, bias = torch.from_numpy(_integers(place, 1)), _integer_bias(place)
    factors, shape = _factors(place), place.output.shape
    return lambda x, *_: (F.linear(x.reshape(-1, weight.shape[1]), weight, bias) * factors).reshape(shape)


def _bias(place: Place) -> Tensor | None:
    return None if place.tensor(2) is None else torch.from_numpy(place.constant(2).copy())


def _integers(place: Place, index: int) -> AnyArray:
    """Stored weights as float32, symmetric around 0."""
    value = place.given(index).value
    if value is None:
        raise RuntimeLoadError(f"The weights of {place.output.name!r} are not constant.")
    return value.astype(np.float32)


def _integer_bias(place: Place) -> Tensor | None:
    return None if place.tensor(2) is None else torch.from_numpy(_integers(place, 2))


def _factors(place: Place) -> Tensor:
    return torch.from_numpy(weighted_factors(place.scale(0), _weight_scales(place), place.output.scale))


def _weight_scales(place: Place) -> NDArray[np.float32]:
    scales = place.given(1).scales
    if scales is None:
        raise RuntimeLoadError(f"The weights of {place.output.name!r} have no scales.")
    # One scale may stand for all channels.
    return np.broadcast_to(scales.astype(np.float32), (place.output.shape[-1],)).copy()


def _dynamic(place: Place) -> bool:
    """Whether float activations meet int8 weights: the runtime then rounds the activations on the fly."""
    return place.round_activations and place.given(0).dtype == "float32" and place.given(1).dtype == "int8"


def _entry(place: Place) -> Step:
    """What happens to the activations (N, H, W, C) before the weights.

    XNNPACK rounds each picture by itself, and each of its positions where it makes a dense layer of a 1x1 convolution.
    """
    if not _dynamic(place):
        return lambda x: x
    weights, (stride, _, amounts) = place.constant(1).shape, _window(place, place.constant(1).shape[1:3])
    by_position = is_dense(weights[1:3], stride, amounts, place.given(0).shape[3] // weights[3])

    def rounded(x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[3]) if by_position else x.reshape(x.shape[0], -1)
        steps, unit = round_dynamically(rows, lambda s: place.borders.round(place.site, s))
        return (steps * unit).reshape(x.shape)

    return rounded


def is_dense(kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], groups: int) -> bool:
    """Whether XNNPACK computes a convolution as a dense layer over the channels of each position."""
    return max(*kernel, *stride) == 1 and not any(padding) and groups == 1


def round_dynamically(rows: Tensor, rounding: Callable[[Tensor], Tensor] = torch.round) -> tuple[Tensor, Tensor]:
    """8-bit steps from zero (N, C), and the size of a step (N, 1), for each row by itself.

    Scale and zero point as in `xnn_f32_qd8_asymmetric_quantization_params` of XNNPACK
    (src/xnnpack/quantization.h): the range is widened to hold 0, and the zero point is nudged from the end
    with the smaller error.
    """
    low, high = rows.amin(1, keepdim=True).clamp(max=0.0), rows.amax(1, keepdim=True).clamp(min=0.0)
    # Two tensors: PyTorch turns `number / tensor` into a reciprocal and a product, one rounding more.
    inverse = torch.where(low == high, torch.ones_like(low), torch.full_like(low, 255.0) / (high - low))
    lowest, highest = low * inverse, high * inverse
    from_low = (-128.0 + lowest) + (127.0 + highest) > 0
    zero = torch.where(from_low, -128.0 - lowest, 127.0 - highest).clamp(-128.0, 127.0).round()
    # Multiplied by the inverse, not divided by the step: that decides halves as the runtime does.
    steps = (rounding(rows * inverse) + zero).clamp(-128.0, 127.0)
    return steps - zero, torch.ones_like(inverse) / inverse


@operator("MAX_POOL_2D", carries=True)
def max_pool(place: Place) -> Step:
    """Largest value; padding never wins."""
    kernel = (int(place.options["filterHeight"]), int(place.options["filterWidth"]))
    stride, _, amounts = _window(place, kernel)
    activate = fused(place)

    def largest(x: Tensor) -> Tensor:
        picture = F.pad(x.permute(0, 3, 1, 2), amounts, value=-np.inf)
        return activate(F.max_pool2d(picture, kernel, stride)).permute(0, 2, 3, 1)

    return largest


@operator("AVERAGE_POOL_2D")
def average_pool(place: Place) -> Step:
    """Mean; padding does not count in the divisor."""
    kernel = (int(place.options["filterHeight"]), int(place.options["filterWidth"]))
    stride, _, amounts = _window(place, kernel)
    activate = fused(place)

    def average(x: Tensor) -> Tensor:
        picture = _picture(x, amounts)
        counts = F.avg_pool2d(F.pad(torch.ones_like(x[:1, :, :, :1]).permute(0, 3, 1, 2), amounts), kernel, stride)
        return activate(F.avg_pool2d(picture, kernel, stride) / counts).permute(0, 2, 3, 1)

    return average
