"""Whether a benchmark got faster or slower, or whether that cannot be told.

A launch is one observation of each metric. Times and sizes are compared on a logarithmic scale, so that the interval is one of the
ratio new / base: Welch's interval between launches, or that of paired differences where the launches of both sides took
turns in the same sessions. `docs/decisions/011-comparing-benchmarks.md` says why, and how often it errs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvtool.bench import comparability
from mvtool.bench.intervals import Estimate
from mvtool.bench.metrics import METRICS, Kind, Metric
from mvtool.bench.record import Record
from mvtool.bench.statistics import launch_peak_bytes
from mvtool.bench.verdict import Verdict, change, verdict
from mvtool.errors import UsageError

__all__ = ["Compared", "Comparison", "Verdict", "check_thresholds", "compare"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Compared:
    """One metric of both sides.

    Attributes:
        metric: Which.
        base: Geometric mean of its launches in ms or bytes; mean for shares.
        new: The same of the new side.
        change: Ratio new / base, for shares the difference new - base, with its 95 % interval; None where launches are too
            few to have one.
        threshold_percent: Changes up to it do not matter.
        gated: Whether it decides the exit code.
        verdict: What follows.
        reason: Why it is inconclusive where the interval alone does not say so; empty otherwise.
    """

    metric: Metric
    base: float
    new: float
    change: Estimate | None
    threshold_percent: float
    gated: bool
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """All metrics of one artifact against another.

    Attributes:
        base: Records of the base side.
        new: Records of the new side.
        paired: Launches were paired, since they took turns.
        metrics: One entry each.
        notes: What a reader should know, one sentence each.
    """

    base: tuple[Record, ...]
    new: tuple[Record, ...]
    paired: bool
    metrics: tuple[Compared, ...]
    notes: tuple[str, ...]

    @property
    def worse(self) -> bool:
        """Some gated metric got worse."""
        return any(one.gated and one.verdict.worse for one in self.metrics)

    @property
    def inconclusive(self) -> bool:
        """Some gated metric cannot be told."""
        return any(one.gated and one.verdict == Verdict.INCONCLUSIVE for one in self.metrics)


def compare(
    base: Sequence[Record],
    new: Sequence[Record],
    thresholds: Mapping[str, float] | None = None,
    allow: Collection[str] = (),
) -> Comparison:
    """Compare the records of one artifact with those of another.

    Args:
        base: At least one record.
        new: At least one record.
        thresholds: Name of a metric to percent; each that is named is gated.
        allow: Words of `comparability.ALLOWED_WORDS`: what may differ beside the artifact.

    Raises:
        UsageError: The records cannot be compared, or `thresholds` names what is no metric.
    """
    thresholds = thresholds or {}
    check_thresholds(thresholds)
    if not base or not new:
        raise UsageError("Nothing to compare: give at least one record on each side.")
    notes = comparability.check(base, new, allow)
    base, new = sorted(base, key=_order), sorted(new, key=_order)
    paired = _took_turns(base, new)
    compared = [_compare(metric, base, new, paired, thresholds.get(name)) for name, metric in METRICS.items()]
    known = tuple(one for one in compared if one is not None)
    return Comparison(tuple(base), tuple(new), paired, known, notes)


def check_thresholds(thresholds: Mapping[str, float]) -> None:
    """Refuse thresholds that mean nothing.

    Raises:
        UsageError: A name is no metric, or a percentage is not positive.
    """
    for name, percent in thresholds.items():
        if name not in METRICS:
            raise UsageError(f"--threshold names {name!r}; expected one of {', '.join(METRICS)}.")
        if not 0 < percent < 100:
            raise UsageError(
                f"--threshold {name}={percent:g} is no percentage between 0 and 100, for example {name}=3."
            )


def _order(record: Record) -> tuple[str, str, str]:
    return record.created, record.session, record.id


def _took_turns(base: Sequence[Record], new: Sequence[Record]) -> bool:
    """Each record has a partner whose launches were interleaved with its own."""
    return all(record.interleaved for record in (*base, *new)) and [
        (record.session, len(record.launches)) for record in base
    ] == [(record.session, len(record.launches)) for record in new]


def _compare(
    metric: Metric, base: Sequence[Record], new: Sequence[Record], paired: bool, threshold: float | None
) -> Compared | None:
    """One metric; None where a side does not tell it."""
    before, after = (_observations(metric, records) for records in (base, new))
    if before is None or after is None:
        return None
    percent, gated = (metric.threshold_percent, metric.gated) if threshold is None else (threshold, True)
    values = _middle(metric.kind, before), _middle(metric.kind, after)
    found = change(metric.kind, before, after, paired) if metric.repeated else Estimate(*[values[1] / values[0]] * 3)
    reason = _unknown(metric, found, (*base, *new))
    said = Verdict.INCONCLUSIVE if reason or found is None else verdict(metric.kind, found, percent / 100)
    return Compared(metric, *values, found, percent, gated, said, reason)


def _observations(metric: Metric, records: Sequence[Record]) -> list[Floats] | None:
    """Values of each record; None if one lacks them, or has a time of 0, which has no ratio."""
    observed = [metric.observe(record) for record in records]
    known = [one for one in observed if one is not None and (metric.kind == Kind.SHARE or (one > 0).all())]
    return known if len(known) == len(records) else None


def _middle(kind: Kind, parts: Sequence[Floats]) -> float:
    values = np.concatenate(list(parts))
    return float(values.mean()) if kind == Kind.SHARE else float(np.exp(np.log(values).mean()))


def _unknown(metric: Metric, found: Estimate | None, records: Sequence[Record]) -> str:
    """Why nothing can be said whatever the interval; empty if something can."""
    if found is None:
        return "one launch does not show how much launches differ; measure at least two, better the default profile"
    swapped = metric.name == "peak_memory" and any(
        launch_peak_bytes(launch)[1] for record in records for launch in record.launches
    )
    return (
        "memory was swapped out, so the peak is a lower bound; close other programs and measure again"
        if swapped
        else ""
    )
