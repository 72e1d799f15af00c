"""The verdict on one metric from its observations on both sides.

Worse: the whole interval of the change is worse than no change, and the change is beyond the threshold. Better likewise. Same: the
whole interval is within the threshold. Anything else is inconclusive, which is no weaker word for same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mvtool.bench.intervals import Estimate, paired_difference, unpaired_difference
from mvtool.bench.metrics import Kind

Floats = NDArray[np.float64]
MIN_SESSIONS: Final = 2
"""From so many records on each side a record counts as one observation: its launches share the day, the heat and the phone."""
MIN_PAIRED_SESSIONS: Final = 3
"""The same where launches took turns: both sides share the day, so two sessions hide nothing that pairs of launches do not show."""


class Verdict(StrEnum):
    """What a comparison says of one metric."""

    FASTER = "faster"
    SLOWER = "slower"
    SMALLER = "smaller"
    LARGER = "larger"
    FEWER = "fewer"
    MORE = "more"
    SAME = "same"
    INCONCLUSIVE = "inconclusive"

    @property
    def worse(self) -> bool:
        """It got worse for sure."""
        return self in (Verdict.SLOWER, Verdict.LARGER, Verdict.MORE)

    @property
    def better(self) -> bool:
        """It got better for sure."""
        return self in (Verdict.FASTER, Verdict.SMALLER, Verdict.FEWER)


_WORDS: Final = {
    Kind.TIME: (Verdict.FASTER, Verdict.SLOWER),
    Kind.SIZE: (Verdict.SMALLER, Verdict.LARGER),
    Kind.SHARE: (Verdict.FEWER, Verdict.MORE),
}


def change(kind: Kind, base: Sequence[Floats], new: Sequence[Floats], paired: bool = False) -> Estimate | None:
    """The change from base to new with its 95 % interval; None where launches are too few to have one.

    Args:
        kind: Times and sizes change by a ratio new / base, shares by a difference new - base.
        base: Of each record, one observation per launch; above 0 unless they are shares.
        new: The same of the new side.
        paired: The observations of both sides belong together one by one.
    """
    ratio = kind != Kind.SHARE
    sides = [[np.log(part) if ratio else part for part in side] for side in (base, new)]
    if min(len(base), len(new)) >= (MIN_PAIRED_SESSIONS if paired else MIN_SESSIONS):
        sides = [[np.array([part.mean() for part in side])] for side in sides]
    before, after = (np.concatenate(side) for side in sides)
    found = paired_difference(before, after) if paired else unpaired_difference(before, after)
    if found is None or not ratio:
        return found
    # Two launches alone can have an interval whose end is beyond any float.
    return Estimate(*(math.exp(min(value, 700.0)) for value in (found.value, found.low, found.high)))


def verdict(kind: Kind, change: Estimate, threshold: float) -> Verdict:
    """What follows from a change.

    Args:
        kind: Decides the words.
        change: As `change` gives it.
        threshold: Part of 1: 0.05 for 5 %, or for 5 percentage points of a share.

    Example:
        >>> verdict(Kind.TIME, Estimate(1.08, 1.02, 1.14), 0.05)
        <Verdict.SLOWER: 'slower'>
        >>> verdict(Kind.TIME, Estimate(1.08, 0.98, 1.19), 0.05)
        <Verdict.INCONCLUSIVE: 'inconclusive'>
    """
    better, worse = _WORDS[kind]
    unchanged = 0.0 if kind == Kind.SHARE else 1.0
    if change.low > unchanged and change.value > unchanged + threshold:
        return worse
    if change.high < unchanged and change.value < unchanged - threshold:
        return better
    if unchanged - threshold <= change.low and change.high <= unchanged + threshold:
        return Verdict.SAME
    return Verdict.INCONCLUSIVE
