"""Comparisons in words: rows of a table, markdown for a pull-request comment, and JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import mvtool
from mvtool.bench.comparison import Compared, Comparison, Verdict
from mvtool.bench.metrics import Kind
from mvtool.bench.pairing import Outcome
from mvtool.bench.record import Record
from mvtool.bench.report_words import NOTHING, mib, ms, percent

COMPARISON_SCHEMA: Final = "mvtool.comparison/1"
HEADS: Final = ("metric", "base", "new", "new / base", "95 % interval", "threshold", "verdict")
_SIGNS: Final = {"worse": "🔴", "better": "🟢", "same": "⚪", "inconclusive": "🟡"}
_MARKUP: Final = re.compile(r"[\\`*|<>\[\]#~@&]|(?<!\w)_|_(?!\w)")


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
        value, low, high = (f"{100 * x:+.1f} pp" if share else _ratio(x) for x in (found.value, found.low, found.high))
        interval = f"{low} to {high}"
    bound = f"{one.threshold_percent:g} {'pp' if share else '%'}" + ("" if one.gated else ", not gated")
    return one.metric.title, _figure(one, one.base), _figure(one, one.new), value, interval, bound, str(one.verdict)


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 100 else f"{value:.0e}"


def _figure(one: Compared, value: float) -> str:
    if one.metric.kind == Kind.SIZE:
        return f"{mib(round(value))} MiB"
    return percent(value) if one.metric.kind == Kind.SHARE else f"{ms(value)} ms"


def reasons(comparison: Comparison) -> tuple[str, ...]:
    """Why metrics are inconclusive where their intervals do not show it."""
    return tuple(f"{one.metric.title}: {one.reason}." for one in comparison.metrics if one.reason)


def outcome_words(comparison: Comparison) -> str:
    """The gated metrics in one line, the bad news first.

    Example:
        `latency, median slower (1.102); peak memory same (1.000)`
    """
    gated = sorted((one for one in comparison.metrics if one.gated), key=lambda one: _rank(one.verdict))
    return "; ".join(f"{one.metric.title} {one.verdict}" + _in_brackets(one) for one in gated)


def _in_brackets(one: Compared) -> str:
    return "" if one.change is None or one.metric.kind == Kind.SHARE else f" ({_ratio(one.change.value)})"


def _rank(verdict: Verdict) -> int:
    return list(_SIGNS).index(standing(verdict))


def standing(verdict: Verdict) -> str:
    """`worse`, `better`, `same` or `inconclusive`."""
    return "worse" if verdict.worse else "better" if verdict.better else str(verdict)


def markdown(outcome: Outcome) -> str:
    """Text for a pull-request comment; every verdict carries a sign and a word."""
    parts = ["### Benchmark comparison"]
    for comparison in outcome.comparisons:
        parts.append(f"**{_plain(title(comparison))}**: {_plain(outcome_words(comparison))}")
        rows = [HEADS, [":---", *["---:"] * 5, ":---"], *(_signed(one) for one in comparison.metrics)]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
        parts.append(
            "\n".join(f"- {_plain(text)}" for text in (sides(comparison), *reasons(comparison), *comparison.notes))
        )
    parts += [_plain(note) for note in outcome.notes]
    return "\n\n".join(parts) + "\n"


def _signed(one: Compared) -> tuple[str, ...]:
    *figures, verdict = (_plain(cell) for cell in cells(one))
    return (*figures, f"{_SIGNS[standing(one.verdict)]} {verdict}")


def _plain(text: str) -> str:
    """Names of files and phones are foreign words; nothing in them may become markup."""
    return _MARKUP.sub(lambda sign: f"&#{ord(sign[0])};", text.replace("\n", " "))


def document(outcome: Outcome) -> dict[str, Any]:
    """Everything as plain JSON; latencies in ms, sizes in bytes, shares from 0 to 1."""
    return {
        "schema": COMPARISON_SCHEMA,
        "mvtool": mvtool.__version__,
        "worse": outcome.worse,
        "inconclusive": outcome.inconclusive,
        "comparisons": [_comparison(one) for one in outcome.comparisons],
        "notes": list(outcome.notes),
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
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
