"""int8 values of weights, biases and other constants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvtool.ports import AnyArray, Quantization
from mvtool.quantization.calibration import affine

# Weights are symmetric in [-127, 127] (https://ai.google.dev/edge/litert/models/quantization_spec).
LARGEST = 127
# A bias must leave room for the sum of products in int32.
LARGEST_BIAS = 2.0**30

FEWEST_STEPS, MOST_STEPS = 128, 255


@dataclass(frozen=True)
class Weights:
    """int8 weights with one scale per output channel.

    Attributes:
        values: int8, in the layout of the float weights.
        scales: float32, one per channel.
        axis: Axis of the channels.
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float32]
    axis: int


def per_channel(weight: AnyArray, axis: int, floor: NDArray[np.float64] | float = 0.0) -> Weights:
    """Quantize weights symmetrically, per output channel.

    Args:
        weight: Float weights.
        axis: Axis of the output channels.
        floor: Smallest scale of each channel, so that its bias fits.
    """
    moved = np.moveaxis(np.asarray(weight, dtype=np.float64), axis, 0)
    largest = np.abs(moved.reshape(moved.shape[0], -1)).max(axis=1)
    # A channel of zeros takes the largest channel's scale: any is exact, this one is in proportion.
    largest = np.where(largest > 0, largest, largest.max() or LARGEST)
    scales = np.maximum(largest / LARGEST, floor).astype(np.float32)
    shape = [1] * weight.ndim
    shape[axis] = -1
    steps = np.rint(np.asarray(weight, dtype=np.float64) / scales.reshape(shape).astype(np.float64))
    return Weights(np.clip(steps, -LARGEST, LARGEST).astype(np.int8), scales, axis)


def scale_floor(bias: AnyArray | None, input_scale: float) -> NDArray[np.float64] | float:
    """Smallest weight scale of each channel with which its bias fits into int32."""
    return 0.0 if bias is None else np.abs(np.asarray(bias, dtype=np.float64)) / (input_scale * LARGEST_BIAS)


def quantize_bias(
    bias: AnyArray, input_scale: float, weights: Weights
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """int32 bias in units of `input scale * weight scale`, and these units."""
    units = (np.float32(input_scale) * weights.scales).astype(np.float32)
    return np.rint(np.asarray(bias, dtype=np.float64) / units.astype(np.float64)).astype(np.int32), units


def constant_parameters(value: AnyArray) -> Quantization:
    """Scale and zero point under which a constant loses least.

    Constants take few values, such as 1/9, 1/6 and 1/4 of a border correction; a slightly coarser scale
    often represents all of them exactly (1/1008 does here, 0.25/255 is 0.3 % off).
    """
    real = np.asarray(value, dtype=np.float64)
    best = affine(float(real.min()), float(real.max()))
    if real.min() < 0 < real.max():
        return best
    extreme = np.abs(real).max()
    if extreme == 0:
        return best
    zero = -128 if real.max() > 0 else 127
    options = [
        Quantization(scale=float(np.float32(extreme / steps)), zero_point=zero)
        for steps in range(MOST_STEPS, FEWEST_STEPS - 1, -1)
    ]
    return min((best, *options), key=lambda q: _error(real, q))


def _error(real: NDArray[np.float64], parameters: Quantization) -> float:
    restored = (quantize(real, parameters).astype(np.float64) - parameters.zero_point) * parameters.scale
    # Rounded, so that a rounding of the last digit does not choose between equals.
    return round(float(np.abs(restored - real).max() / np.abs(real).max()), 9)


def quantize(value: AnyArray, parameters: Quantization) -> NDArray[np.int8]:
    """int8 form of real numbers."""
    steps: NDArray[np.float64] = np.rint(np.asarray(value, dtype=np.float64) / parameters.scale) + parameters.zero_point
    return np.clip(steps, -128, 127).astype(np.int8)
