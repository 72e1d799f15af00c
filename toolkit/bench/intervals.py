"""Intervals of 95 % that respect that samples of one launch are not independent.

Two launches of the same program differ in their level by more than their thousands of samples would let one think: in
where memory lies, which core they got, how warm the device was. So a launch counts as one observation here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95
_NORMAL: Final = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""
RESAMPLES: Final = 1000
BLOCKS: Final = 32
"""Blocks that a launch is cut into; a block of a default run lasts a third of a second, longer than scheduling noise."""
_POINTS: Final = 512
"""Values that a resampled median can take."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def median_interval(launches: Sequence[Floats], seed: int = 0) -> Estimate:
    """Median of all samples, with an interval by a bootstrap in two stages.

    Each resample draws launches, and from each of them as many blocks of consecutive invokes as it has. With few launches the
    spread of such medians is known to be too small, so it is widened on a logarithmic scale by `sqrt(n / (n - 1))` and by
    the ratio of Student's quantile of n - 1 degrees of freedom to the normal one, but never beyond the samples: with two launches it
    would else begin below the fastest call ever. A single launch shows only its own noise, nothing of the next launch.

    Args:
        launches: Positive samples of each launch, in the order in which they were taken.
        seed: Of the resamples; the same seed gives the same interval.
    """
    pooled = np.concatenate(list(launches))
    median = float(np.median(pooled))
    medians = _resampled_medians(launches, pooled, np.random.default_rng(seed))
    low, high = np.percentile(medians, (50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)))
    n = len(launches)
    widen = math.sqrt(n / (n - 1)) * student_quantile(n - 1) / _NORMAL if n > 1 else 1.0
    # A sample of 0 ns would have no logarithm; a nanosecond is the finest that any clock tells.
    floor = max(median, 1e-6)
    below, above = (max(float(end), 1e-6) / floor for end in (low, high))
    # Two launches that differ widely can have an end beyond any float; the logarithm is bounded before it is taken back.
    least, most = (max(float(end), 1e-6) / floor for end in (pooled.min(), pooled.max()))
    below, above = max(widen * math.log(below), math.log(least)), min(widen * math.log(above), math.log(most))
    return Estimate(median, min(median, floor * math.exp(below)), max(median, floor * math.exp(above)))


def _resampled_medians(launches: Sequence[Floats], pooled: Floats, draw: np.random.Generator) -> Floats:
    """Medians of `RESAMPLES` resamples, from how often each block was drawn and how its samples are distributed."""
    points = _points(launches, pooled)
    n = len(launches)
    # How often each launch is drawn; with one launch only blocks are.
    picked = draw.multinomial(n, [1 / n] * n, size=RESAMPLES)
    counts = np.zeros((RESAMPLES, len(points) + 1), dtype=np.float32)
    for i, launch in enumerate(launches):
        histogram = _block_histograms(launch, points)
        blocks = len(histogram)
        drawn = draw.multinomial(picked[:, i] * blocks, [1 / blocks] * blocks)
        counts += drawn.astype(np.float32) @ histogram
    below = np.cumsum(counts, axis=1, dtype=np.float64)
    half = below[:, -1:] / 2
    return np.asarray(points[np.argmax(below >= half, axis=1)], dtype=np.float64)


def _points(launches: Sequence[Floats], pooled: Floats) -> Floats:
    """Values that stand for the samples, ascending, between the lowest and the highest median of a block.

    The median of any blocks together lies between theirs.
    """
    medians = [
        np.partition(block, (block.size - 1) // 2)[(block.size - 1) // 2]
        for launch in launches
        for block in np.array_split(launch, min(BLOCKS, launch.size))
    ]
    within = pooled[(pooled >= min(medians)) & (pooled <= max(medians))]
    return np.unique(np.quantile(within, np.linspace(0, 1, _POINTS + 1), method="inverted_cdf"))


def _block_histograms(launch: Floats, points: Floats) -> NDArray[np.float32]:
    """Number of samples of each block up to each point but above the one before, and above all, `(blocks, points + 1)`."""
    columns = len(points) + 1
    sizes = [len(block) for block in np.array_split(launch, min(BLOCKS, launch.size))]
    block = np.repeat(np.arange(len(sizes)), sizes)
    counted = np.bincount(block * columns + np.searchsorted(points, launch), minlength=len(sizes) * columns)
    return counted.reshape(len(sizes), columns).astype(np.float32)


def unpaired_difference(base: Floats, new: Floats) -> Estimate | None:
    """Difference `new - base` of means with Welch's interval; None with fewer than 2 observations on a side.

    Args:
        base: Independent observations, for example logarithms of the medians of launches.
        new: The same of what it is compared with.
    """
    if min(base.size, new.size) < 2:
        return None
    parts = [(side.var(ddof=1) / side.size, side.size - 1) for side in (base, new)]
    variance = sum(v for v, _ in parts)
    freedom = variance**2 / sum(v**2 / f for v, f in parts) if variance > 0 else 1.0
    return _around(float(new.mean() - base.mean()), math.sqrt(variance), freedom)


def paired_difference(base: Floats, new: Floats) -> Estimate | None:
    """Mean of `new - base` of observations that were taken side by side; None with fewer than 2 pairs."""
    if base.size < 2:
        return None
    differences = new - base
    return _around(float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(base.size), base.size - 1)


def _around(value: float, standard_error: float, freedom: float) -> Estimate:
    half = student_quantile(freedom) * standard_error
    return Estimate(value, value - half, value + half)


def student_quantile(freedom: float) -> float:
    """Two-sided 95 % quantile of Student's distribution with `freedom` >= 1 degrees of freedom.

    With t = sqrt(freedom) tan(a) the density becomes cos(a)^(freedom - 1), which is summed here.

    Example:
        >>> [round(student_quantile(n), 3) for n in (1, 5, 10, 120)]
        [12.706, 2.571, 2.228, 1.98]
    """
    # Beyond t = 10 there is nothing left of a nearly normal distribution, which takes a sliver of the angles.
    end = math.pi / 2 if freedom < 100 else math.atan(10 / math.sqrt(freedom))
    angle = np.linspace(0, end, 4_001)
    density = np.abs(np.cos(angle)) ** (freedom - 1)
    area = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(float(np.interp(CONFIDENCE * area[-1], area, angle)))
