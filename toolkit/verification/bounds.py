"""The limits that verify holds artifacts to, and the measures they are limits of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mvtool.ports import AnyArray, Precision

ERROR_FLOOR = 1e-3
"""Smallest magnitude that an error is divided by, so that a tensor of zeros does not blow it up."""

FP32_LIMIT = 1e-4
"""Error of every output and state of an fp32 artifact at every frame of the free-running stream."""

FP16_LIMIT = 3e-2
"""The same for fp16. Half precision keeps 11 bits, 5e-4 of a value; some sixty layers of a MoViNet multiply
that by less than 60 if their errors all add up. MoViNet-A0-Stream measured 5e-3 over 300 frames."""

INT8_STEPS = 2.0
"""Steps of an int8 state's scale that 99 % of its elements must stay within."""

GRID_SLACK = 0.13
"""Part of a step by which a value on the grid may lie beside it: float16 ports hold a multiple of up to 255 steps to
2^-11, an eighth of a step."""

INT8_BEYOND = 0.01
"""Share of its elements that may be further away."""

INT8_MEAN_STEPS = 0.5
"""Mean distance of an int8 state from its simulation, in steps of its scale."""

INT8_FLOAT_LIMIT = 5e-2
"""Error of float outputs and float states of an int8 artifact against its simulation, which is fed the artifact's own
state. They are computed from int8 feature maps, where one step is 1/255 of the range."""

LIMITS = {
    Precision.FP32: FP32_LIMIT,
    Precision.FP16: FP16_LIMIT,
    Precision.INT8: INT8_FLOAT_LIMIT,
    Precision.INT8_DYNAMIC: INT8_FLOAT_LIMIT,
    Precision.INT8_WEIGHTS: FP32_LIMIT,
}
"""Error of float outputs and states by precision. int8-dynamic rounds activations to 1/255 of their range, as int8 does;
int8-weights is float32 arithmetic, and its simulation has the weights of the file."""

ANCHOR_FRAMES = 8
ANCHOR_SNR_DB = 15.0
"""Signal to noise of the simulation without activation rounding against the fp32 stream: per-channel int8 weights
alone. Another model's simulation has about 0 dB."""

SNR_FRAMES = (1, 50, 300)
MAX_SNR_DB = 200.0


def relative_error(actual: AnyArray, reference: AnyArray) -> float:
    """max|actual - reference| / max(max|reference|, 1e-3); infinite where `actual` is not finite.

    Raises:
        ValueError: The shapes differ.
    """
    difference = _difference(actual, reference)
    scale = float(np.max(np.abs(reference), initial=0.0))
    error = float(np.max(np.abs(difference), initial=0.0)) / max(scale, ERROR_FLOOR)
    return error if math.isfinite(error) else math.inf


@dataclass(frozen=True)
class StepDistance:
    """Distance of an int8 tensor from its simulation, in steps of its scale.

    Attributes:
        beyond: Share of the elements that are more than `INT8_STEPS` away, 0..1.
        mean: Mean distance.
    """

    beyond: float
    mean: float


def step_distance(actual: AnyArray, simulated: AnyArray, step: float) -> StepDistance:
    """Compare two tensors on a grid of width `step`; real values of equal shape.

    Raises:
        ValueError: The shapes differ.
    """
    if np.array_equal(actual, simulated):
        return StepDistance(0.0, 0.0)
    distance = _difference(actual, simulated)
    np.abs(distance, out=distance)
    distance /= step
    if distance.size == 0:
        return StepDistance(0.0, 0.0)
    # Written so that a value that is not a number counts as far away.
    near = distance <= INT8_STEPS + GRID_SLACK
    mean = float(distance.mean())
    return StepDistance(1.0 - float(near.mean()), mean if math.isfinite(mean) else math.inf)


def snr_db(actual: AnyArray, reference: AnyArray) -> float:
    """10 log10(sum(reference^2) / sum(difference^2)), within -200..200; 200 where nothing differs."""
    noise = float(np.sum(np.square(_difference(actual, reference), dtype=np.float64)))
    signal = float(np.sum(np.square(reference, dtype=np.float64)))
    if noise == 0.0:
        return MAX_SNR_DB
    if signal == 0.0 or not math.isfinite(noise):
        return -MAX_SNR_DB
    return max(-MAX_SNR_DB, min(MAX_SNR_DB, 10.0 * math.log10(signal / noise)))


def _difference(actual: AnyArray, reference: AnyArray) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    if actual.shape != reference.shape:
        raise ValueError(f"shape {actual.shape} differs from {reference.shape}")
    wide: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = actual.astype(np.float64)
    wide -= reference
    return wide
