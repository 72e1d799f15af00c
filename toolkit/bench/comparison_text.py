"""Comparisons in words: rows of a table, markdown for a pull-request comment, and JSON.

The command, the comment and the report take their words from here, so that one comparison reads the same wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any, Final

import mvtool
from mvtool.bench.comparison import Compared, Comparison, Verdict
from mvtool.bench.markdown_text import LONGEST, prose, row
from mvtool.bench.metrics import Kind
from mvtool.bench.pairing import Outcome
from mvtool.bench.record import Record
from mvtool.bench.report_words import NOTHING, mib, ms, percent

COMPARISON_SCHEMA: Final = "mvtool.comparison/1"
HEADS: Final = ("metric", "base", "new", "new / base", "95 % interval", "threshold", "verdict")
NUMERIC: Final = HEADS[1:6]
SIGNS: Final = {"worse": "🔴", "inconclusive": "🟡", "better": "🟢", "same": "⚪"}
"""Standing to its sign, the bad news first."""
LIMIT: Final = LONGEST - 1_536
"""Of the markdown, so that a workflow can put a mark and links beside it."""


def title(comparison: Comparison) -> str:
    """What was compared."""
    record = comparison.new[0]
    artifact, device = record.artifact, record.device
    stamp = " (no real device)" if device.loopback or device.emulated else ""
    return f"{record.model.name} · {artifact.runtime} {artifact.precision} · {device.name}{stamp}"


def sides(comparison: Comparison) -> str:
    """The two artifacts, and how they were measured."""
    parts = [f"{name} {_side(records)}" for name, records in (("base", comparison.base), ("new", comparison.new))]
    taken = "launches in pairs, they took turns" if comparison.paired else "launches on their own"
    return f"{'; '.join(parts)}; {taken}"


def _side(records: Sequence[Record]) -> str:
    artifact = records[0].artifact
    launches = sum(len(record.launches) for record in records)
    count = "" if len(records) == 1 else f" of {len(records)} records"
    return f"{artifact.file} {artifact.sha256[:12]}, {launches} launches{count}"


def cells(one: Compared) -> tuple[str, ...]:
    """The row of a metric, as in `HEADS`."""
    share = one.metric.kind == Kind.SHARE
    value = interval = NOTHING
    if (found := one.change) is not None:
        value, low, high = (f"{100 * x:+.1f} pp" if share else ratio(x) for x in (found.value, found.low, found.high))
        interval = f"{low} to {high}"
    bound = f"{one.threshold_percent:g} {'pp' if share else '%'}" + ("" if one.gated else ", not gated")
    return one.metric.title, figure(one, one.base), figure(one, one.new), value, interval, bound, str(one.verdict)


def ratio(value: float) -> str:
    """A ratio new / base with three digits behind the point, a huge one as a power of ten."""
    return f"{value:.3f}" if value < 100 else f"{value:.0e}"


def figure(one: Compared, value: float | None) -> str:
    """The value of a side with its unit."""
    if value is None:
        return NOTHING
    if one.metric.kind == Kind.SIZE:
        return f"{mib(round(value))} MiB"
    return percent(value) if one.metric.kind == Kind.SHARE else f"{ms(value)} ms"


def reasons(comparison: Comparison) -> tuple[str, ...]:
    """Why metrics are inconclusive where their intervals do not show it; one sentence for all that share a reason."""
    metrics: dict[str, list[str]] = {}
    for one in (one for one in comparison.metrics if one.reason):
        metrics.setdefault(one.reason, []).append(one.metric.title)
    return tuple(f"{'; '.join(titles)}: {reason}." for reason, titles in metrics.items())


def outcome_words(comparison: Comparison) -> str:
    """The gated metrics in one line, the bad news first.

    Example:
        `latency, median slower (1.102); peak memory same (1.000)`
    """
    gated = sorted((one for one in comparison.metrics if one.gated), key=lambda one: _rank(standing(one.verdict)))
    return "; ".join(f"{one.metric.title} {one.verdict}" + _in_brackets(one) for one in gated)


def _in_brackets(one: Compared) -> str:
    return "" if one.change is None or one.metric.kind == Kind.SHARE else f" ({ratio(one.change.value)})"


def standing(verdict: Verdict) -> str:
    """`worse`, `inconclusive`, `better` or `same`."""
    return "worse" if verdict.worse else "better" if verdict.better else str(verdict)


def overall(comparison: Comparison) -> str:
    """The worst standing of the gated metrics."""
    return min((standing(one.verdict) for one in comparison.metrics if one.gated), key=_rank, default="same")


def _rank(standing: str) -> int:
    return list(SIGNS).index(standing)


def worst_first(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """In the order of `overall`, otherwise as given."""
    return sorted(comparisons, key=lambda comparison: _rank(overall(comparison)))


def markdown(outcome: Outcome, limit: int = LIMIT) -> str:
    """Text for a pull-request comment, what is worse first; every verdict carries a sign and a word.

    Where it would be longer than `limit` characters, the details of the last comparisons are left out; each keeps its line.
    """
    ordered = worst_first(outcome.comparisons)
    lines = [_line(comparison) for comparison in ordered]
    notes = "\n".join(f"- {prose(note)}" for note in outcome.notes)
    details: list[str] = []
    for comparison in ordered:
        tried = [*details, markdown_details(comparison)]
        if len(_page(lines, tried, notes)) > limit:
            break
        details = tried
    while lines and len(_page(lines, details, notes, left_out=len(ordered) - len(lines))) > limit:
        lines.pop()
    return _page(lines, details, notes, left_out=len(ordered) - len(lines))


def _page(lines: Sequence[str], details: Sequence[str], notes: str, left_out: int = 0) -> str:
    """The comment: each line with its details, where there are some."""
    parts = ["### Benchmark comparison"]
    for line, told in zip_longest(lines, details, fillvalue=""):
        parts += [line, told]
    if len(details) < len(lines):
        parts.append(f"The tables of {len(lines) - len(details)} comparisons are left out here for their length.")
    if left_out:
        parts.append(f"{left_out} more comparisons, none of them worse than these, are left out here for their length.")
    return "\n\n".join(part for part in (*parts, notes) if part) + "\n"


def _line(comparison: Comparison) -> str:
    sign = SIGNS[overall(comparison)]
    return f"{sign} **{prose(title(comparison))}**: {prose(outcome_words(comparison))}"


def markdown_details(comparison: Comparison) -> str:
    """The table of a comparison, how it was measured, and what a reader should know."""
    told = (sides(comparison), *reasons(comparison), *comparison.notes)
    return markdown_table(comparison) + "\n\n" + "\n".join(f"- {prose(text)}" for text in told)


def markdown_table(comparison: Comparison) -> str:
    """All metrics as a table with `HEADS`."""
    aligned = ["---:" if head in NUMERIC else ":---" for head in HEADS]
    return "\n".join(row(cells) for cells in (HEADS, aligned, *(_signed(one) for one in comparison.metrics)))


def _signed(one: Compared) -> tuple[str, ...]:
    *figures, verdict = (prose(cell) for cell in cells(one))
    return (*figures, f"{SIGNS[standing(one.verdict)]} {verdict}")


def document(outcome: Outcome) -> dict[str, Any]:
    """Everything as plain JSON; latencies in ms, sizes in bytes, shares from 0 to 1."""
    return {
        "schema": COMPARISON_SCHEMA,
        "mvtool": mvtool.__version__,
        "worse": outcome.worse,
        "inconclusive": outcome.inconclusive,
        "comparisons": [comparison_document(one) for one in outcome.comparisons],
        "notes": list(outcome.notes),
    }


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """One comparison as plain JSON, as in `document`."""
    record = comparison.new[0]
    return {
        "model": record.model.name,
        "runtime": str(record.artifact.runtime),
        "precision": str(record.artifact.precision),
        "device": record.device.name,
        "base": _records(comparison.base),
        "new": _records(comparison.new),
        "paired": comparison.paired,
        "worse": comparison.worse,
        "inconclusive": comparison.inconclusive,
        "outcome": overall(comparison),
        "metrics": {one.metric.name: _metric(one) for one in comparison.metrics},
        "notes": list(comparison.notes),
    }


def _records(records: Sequence[Record]) -> dict[str, Any]:
    artifact = records[0].artifact
    return {
        "records": [record.id for record in records],
        "launches": sum(len(record.launches) for record in records),
        "artifact": {"file": artifact.file, "bytes": artifact.bytes, "sha256": artifact.sha256},
    }


def _metric(one: Compared) -> dict[str, Any]:
    unit = {Kind.TIME: "ms", Kind.SIZE: "bytes", Kind.SHARE: "share"}[one.metric.kind]
    scale = "difference" if one.metric.kind == Kind.SHARE else "ratio"
    return {
        f"base_{unit}": one.base,
        f"new_{unit}": one.new,
        scale: None if one.change is None else asdict(one.change),
        "threshold_percent": one.threshold_percent,
        "gated": one.gated,
        "verdict": str(one.verdict),
        "reason": one.reason,
    }
