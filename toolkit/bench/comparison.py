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
from mvtool.bench.metrics import METRICS, Kind, Metric, told_by
from mvtool.bench.record import Record
from mvtool.bench.stability import SEVERE, judge, thermal_status
from mvtool.bench.statistics import launch_peak_bytes
from mvtool.bench.verdict import Verdict, change, verdict
from mvtool.errors import UsageError

__all__ = ["Compared", "Comparison", "Verdict", "check_thresholds", "check_told", "compare"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Compared:
    """One metric of both sides.

    Attributes:
        metric: Which.
        base: Geometric mean of its launches in ms or bytes (0 if one of them is 0); mean for shares; None where a record of
            the side does not tell the metric.
        new: The same of the new side.
        change: Ratio new / base, for shares the difference new - base, with its 95 % interval; None where launches are too
            few to have one.
        threshold_percent: Changes up to it do not matter.
        gated: Whether it decides the exit code.
        verdict: What follows.
        reason: Why it is inconclusive where the interval alone does not say so; empty otherwise.
    """

    metric: Metric
    base: float | None
    new: float | None
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
        UsageError: The records cannot be compared, or `thresholds` names what is no metric or none that a record has.
    """
    thresholds = thresholds or {}
    check_thresholds(thresholds)
    if not base or not new:
        raise UsageError("Nothing to compare: give at least one record on each side.")
    notes = comparability.check(base, new, allow)
    check_told(thresholds, [*base, *new])
    base, new = sorted(base, key=_order), sorted(new, key=_order)
    paired = _took_turns(base, new)
    compared = [_compare(metric, base, new, paired, thresholds.get(name)) for name, metric in METRICS.items()]
    known = tuple(one for one in compared if one is not None)
    doubts = (*_sessions(base, new, paired), *_doubts("base", base), *_doubts("new", new))
    return Comparison(tuple(base), tuple(new), paired, known, (*notes, *doubts))


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


def check_told(thresholds: Mapping[str, float], records: Sequence[Record]) -> None:
    """Refuse thresholds of metrics that no record has: what is asked to be gated must not go missing in silence.

    Raises:
        UsageError: None of the records tells a metric.
    """
    for name in thresholds:
        if not told_by(METRICS[name], records):
            raise UsageError(
                f"--threshold names {name!r}, but no record tells it: missed deadlines need a pace (`mvtool bench --fps`), "
                "memory a device that is not emulated. Measure so, or leave the threshold out."
            )


def _sessions(base: Sequence[Record], new: Sequence[Record], paired: bool) -> tuple[str, ...]:
    """What the number of records does not let one see."""
    fewest = min(len(base), len(new))
    remedy = "measure in turns with --interleave, or give three records a side"
    if paired or fewest > 2:
        return ()
    if fewest == 1:
        return (f"One record of a side cannot see the difference between two sessions; {remedy}.",)
    return (f"With two records a side only a large change can be told from the difference between sessions; {remedy}.",)


def _doubts(side: str, records: Sequence[Record]) -> tuple[str, ...]:
    """Why the figures of a side may not be believed, and what was noted when they were measured."""
    told = [(record.id, text) for record in records for text in (*judge(record).reasons, *record.notes)]
    which = {identifier: f", record {identifier[:8]}" if len(records) > 1 else "" for identifier, _ in told}
    return tuple(dict.fromkeys(f"{side.capitalize()}{which[identifier]}: {text}" for identifier, text in told))


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
    """One metric; None where neither side tells it."""
    observed = [[metric.observe(record) for record in records] for records in (base, new)]
    if all(one is None for side in observed for one in side):
        return None
    before, after = (_complete(side) for side in observed)
    percent, gated = (metric.threshold_percent, metric.gated) if threshold is None else (threshold, True)
    values = _middle(metric.kind, before), _middle(metric.kind, after)
    found = None
    if not (reason := _lacking(metric, before, after)):
        found = _change(metric, before or [], after or [], paired)
        reason = _unknown(metric, found, (*base, *new))
    said = Verdict.INCONCLUSIVE if reason or found is None else verdict(metric.kind, found, percent / 100)
    return Compared(metric, *values, found, percent, gated, said, reason)


def _complete(observed: Sequence[Floats | None]) -> list[Floats] | None:
    """Values of each record of a side; None if one lacks them."""
    known = [one for one in observed if one is not None]
    return known if len(known) == len(observed) else None


def _change(metric: Metric, base: Sequence[Floats], new: Sequence[Floats], paired: bool) -> Estimate | None:
    if metric.repeated:
        return change(metric.kind, base, new, paired)
    ratio = float(new[0][0] / base[0][0])
    return Estimate(ratio, ratio, ratio)


def _middle(kind: Kind, parts: Sequence[Floats] | None) -> float | None:
    if parts is None:
        return None
    values = np.concatenate(list(parts))
    if kind == Kind.SHARE:
        return float(values.mean())
    return float(np.exp(np.log(values).mean())) if (values > 0).all() else 0.0


def _lacking(metric: Metric, base: Sequence[Floats] | None, new: Sequence[Floats] | None) -> str:
    """Why there is no change to speak of; empty if there is one."""
    for side, parts in (("base", base), ("new", new)):
        if parts is None:
            return f"the {side} side does not tell it; measure both sides in the same way"
        if metric.kind != Kind.SHARE and any((part <= 0).any() for part in parts):
            return f"the {side} side has values of 0, which have no ratio; the call is too short for the clock, or a record is broken"
    return ""


def _unknown(metric: Metric, found: Estimate | None, records: Sequence[Record]) -> str:
    """Why nothing can be said whatever the interval; empty if something can."""
    if found is None:
        return "one launch does not show how much launches differ; measure at least two, better the default profile"
    worst = max(thermal_status(record) for record in records)
    if worst >= SEVERE and metric.kind != Kind.SIZE:
        return (
            f"a device was throttled (thermal status {worst}, from {SEVERE} it is severe), so its times are those of the heat; let it "
            "cool down (--max-temperature) and measure again"
        )
    swapped = metric.name == "peak_memory" and any(
        launch_peak_bytes(launch)[1] for record in records for launch in record.launches
    )
    return (
        "memory was swapped out, so the peak is a lower bound; close other programs and measure again"
        if swapped
        else ""
    )
