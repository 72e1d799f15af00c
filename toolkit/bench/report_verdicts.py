"""Verdicts of a report: which records are compared with which, and the figures of each comparison in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mvtool.bench.comparability import ASPECTS
from mvtool.bench.comparison import Compared, Comparison, Verdict, compare
from mvtool.bench.metrics import Kind
from mvtool.bench.record import Record
from mvtool.bench.report_words import mib, ms, percent
from mvtool.errors import UsageError

if TYPE_CHECKING:
    from mvtool.bench.report import Entry

_IDENTITY: Final = ("model", "runtime", "precision", "device", "threads", "pacing")
"""Words of `ASPECTS` by which a baseline finds what it is compared with; the rest is checked by the comparison."""
_MAY_DIFFER_IN_TURNS: Final = ("runtime", "precision")
"""Whoever lets two artifacts of one model take turns in a session wants to know which is faster."""
HEADS: Final = ("Metric", "Verdict", "Change", "95 % interval", "Baseline", "New", "Threshold")


@dataclass(frozen=True)
class Pair:
    """Records of one artifact against those of another.

    Attributes:
        base: The baseline; empty where there is none.
        new: What is compared with it; empty where there is nothing.
        comparison: Its outcome; None where the records could not be compared.
        refusal: Why not; empty if they could.
    """

    base: tuple[Entry, ...]
    new: tuple[Entry, ...]
    comparison: Comparison | None
    refusal: str = ""

    @property
    def title(self) -> str:
        """Numbers and name of what was compared."""
        numbers = [", ".join(str(entry.number) for entry in side) for side in (self.new, self.base)]
        name = (self.new or self.base)[0].name
        return f"{numbers[0] or 'nothing'} against {numbers[1] or 'nothing'}: {name}"


def pairs(entries: Sequence[Entry]) -> tuple[Pair, ...]:
    """Compare new records with the baselines of the same model, runtime, precision and device.

    Without a baseline, artifacts of one model that took turns in a session are compared with the one that began.
    """
    if any(entry.baseline for entry in entries):
        return _against_baselines(entries)
    sessions: dict[tuple[str, str], list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: (entry.record.created, entry.record.launches[0].started_s)):
        if entry.record.interleaved:
            sessions.setdefault((entry.record.session, entry.record.model.name), []).append(entry)
    return tuple(
        _pair([first], [other], _MAY_DIFFER_IN_TURNS) for first, *others in sessions.values() for other in others
    )


def _against_baselines(entries: Sequence[Entry]) -> tuple[Pair, ...]:
    sides: dict[tuple[str, ...], tuple[list[Entry], list[Entry]]] = {}
    for entry in entries:
        base, new = sides.setdefault(_identity(entry.record), ([], []))
        (base if entry.baseline else new).append(entry)
    return tuple(_pair(base, new) for base, new in sides.values())


def _identity(record: Record) -> tuple[str, ...]:
    return tuple(str(ASPECTS[word](record)) for word in _IDENTITY)


def _pair(base: Sequence[Entry], new: Sequence[Entry], allow: Sequence[str] = ()) -> Pair:
    if not base or not new:
        lacking = "baseline" if new else "new record"
        return Pair(
            tuple(base), tuple(new), None, f"There is no {lacking} of this model, runtime, precision and device."
        )
    try:
        compared = compare([entry.record for entry in base], [entry.record for entry in new], allow=allow)
    except UsageError as error:
        return Pair(tuple(base), tuple(new), None, str(error))
    return Pair(tuple(base), tuple(new), compared)


def outcome(pair: Pair) -> tuple[str, str]:
    """The outcome in a word, and the gated metrics that it comes from.

    Example:
        `("Worse", "latency, median slower. Better: peak memory smaller.")`
    """
    if pair.comparison is None:
        return "Not compared", pair.refusal
    gated = [one for one in pair.comparison.metrics if one.gated]
    found = {
        "Worse": [f"{one.metric.title} {one.verdict}" for one in gated if one.verdict.worse],
        "Better": [f"{one.metric.title} {one.verdict}" for one in gated if _is_better(one.verdict)],
        "Inconclusive": [one.metric.title for one in gated if one.verdict == Verdict.INCONCLUSIVE],
        "Same": [one.metric.title for one in gated if one.verdict == Verdict.SAME],
    }
    first, *others = [(word, "; ".join(names)) for word, names in found.items() if names] or [("Same", "")]
    return first[0], " ".join([f"{first[1]}.", *(f"{word}: {names}." for word, names in others)])


def outcome_shade(word: str) -> str:
    """Class for the colour of an outcome."""
    return {"Worse": "slower", "Better": "faster", "Same": "same"}.get(word, "inconclusive")


def _is_better(verdict: Verdict) -> bool:
    return not verdict.worse and verdict not in (Verdict.SAME, Verdict.INCONCLUSIVE)


def shade(verdict: Verdict) -> str:
    """Class for the colour of a verdict."""
    return "slower" if verdict.worse else "faster" if _is_better(verdict) else str(verdict)


def cells(one: Compared) -> tuple[str, ...]:
    """What the row of a metric shows, as in `HEADS`."""
    points = "pp" if one.metric.kind == Kind.SHARE else "%"
    told = f"{one.verdict}, {one.reason}" if one.reason else str(one.verdict)
    change = interval = "–"
    if one.change is not None:
        value, low, high = (_change(one, x) for x in (one.change.value, one.change.low, one.change.high))
        change, interval = f"{value} {points}", f"{low} to {high} {points}"
    threshold = f"{one.threshold_percent:g} {points}" + ("" if one.gated else ", not gated")
    return one.metric.title, told, change, interval, _value(one, one.base), _value(one, one.new), threshold


def _value(one: Compared, value: float) -> str:
    if one.metric.kind == Kind.SIZE:
        return f"{mib(round(value))} MiB"
    return percent(value) if one.metric.kind == Kind.SHARE else f"{ms(value)} ms"


def _change(one: Compared, value: float) -> str:
    """A change in percent of the baseline; of shares in percentage points."""
    return f"{100 * (value if one.metric.kind == Kind.SHARE else value - 1):+.1f}"


def pair_document(pair: Pair) -> dict[str, Any]:
    """The comparison as plain JSON."""
    return {
        "base": [entry.number for entry in pair.base],
        "new": [entry.number for entry in pair.new],
        "outcome": ": ".join(outcome(pair)),
        "paired": None if pair.comparison is None else pair.comparison.paired,
        "notes": [] if pair.comparison is None else list(pair.comparison.notes),
        "metrics": [] if pair.comparison is None else [_metric_document(one) for one in pair.comparison.metrics],
    }


def _metric_document(one: Compared) -> dict[str, Any]:
    change = one.change
    return {
        "name": one.metric.name,
        "kind": str(one.metric.kind),
        "base": one.base,
        "new": one.new,
        "change": None if change is None else {"value": change.value, "low": change.low, "high": change.high},
        "threshold_percent": one.threshold_percent,
        "gated": one.gated,
        "verdict": str(one.verdict),
        "reason": one.reason,
    }
