"""Intervals of shares and of differences between shares that were counted on the same clips."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final, NamedTuple

Z: Final = NormalDist().inv_cdf(0.975)
"""Quantile of the normal distribution for two-sided 95 %."""


class Interval(NamedTuple):
    """A share or difference with its 95 % interval; all are shares of 1."""

    value: float
    low: float
    high: float


def share(right: int, count: int) -> Interval:
    """The share `right / count` with Wilson's score interval.

    E. B. Wilson: Probable Inference, the Law of Succession, and Statistical Inference, JASA 22 (1927). It covers 95 % also near
    0 and 1, where the plain interval of the normal distribution has no width.

    Args:
        right: Number of right answers.
        count: Number of answers, at least 1.

    Example:
        >>> round(share(0, 10).high, 4)
        0.2775
    """
    value, weight = right / count, Z * Z / count
    centre = (value + weight / 2) / (1 + weight)
    half = Z / (1 + weight) * math.sqrt(value * (1 - value) / count + weight / (4 * count))
    return Interval(value, max(0.0, centre - half), min(1.0, centre + half))


def paired_drop(only_base: int, only_new: int, count: int) -> Interval:
    """How much lower the share of right answers of `new` is than that of `base`, counted on the same clips.

    The adjusted Wald interval of D. G. Bonett and R. M. Price: Adjusted Wald Confidence Interval for a Difference of Binomial
    Proportions Based on Paired Data, J. Educational and Behavioral Statistics 37 (2012). Clips on which both are right or both
    are wrong say nothing about the difference, so that it is known far better than either share.

    Args:
        only_base: Clips that `base` alone got right.
        only_new: Clips that `new` alone got right.
        count: All clips, at least 1.

    Example:
        >>> round(paired_drop(30, 20, 1000).high, 4)
        0.0241
    """
    lost, won = (only_base + 1) / (count + 2), (only_new + 1) / (count + 2)
    half = Z * math.sqrt((lost + won - (lost - won) ** 2) / (count + 2))
    centre = lost - won
    return Interval((only_base - only_new) / count, max(-1.0, centre - half), min(1.0, centre + half))
