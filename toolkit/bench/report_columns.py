"""Columns of the table across records, for the page and for the comment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from mvtool.bench.report import RUNTIME_NAMES, Entry
from mvtool.bench.report_words import NOTHING, mib, ms, percent


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: Head of the column.
        unit: Of its figures, empty for words.
        text: What a cell shows.
        value: What rows are sorted by; None where a record has no such figure, which is then last.
        note: Smaller words below the text.
        brief: It belongs to the compact table of a comment.
        foreign: Its text comes from a record as it is, not from a fixed set of words.
    """

    title: str
    unit: str
    text: Callable[[Entry], str]
    value: Callable[[Entry], float | str | None]
    note: Callable[[Entry], str] = lambda entry: ""
    brief: bool = False
    foreign: bool = False

    @property
    def numeric(self) -> bool:
        """Figures, aligned to the right."""
        return bool(self.unit)


def interval(entry: Entry) -> str:
    """The 95 % interval of the median in milliseconds; a dash and the reason where one launch has none."""
    if entry.summary.single_launch:
        return f"{NOTHING} (one launch)"
    return f"{ms(entry.summary.median_ms.low)} to {ms(entry.summary.median_ms.high)}"


def delegate(entry: Entry) -> str:
    """What ran the graph, and on how many threads."""
    engine = entry.record.engine
    part = " in part" if engine.fully_accelerated is False else ""
    threads = "1\N{NO-BREAK SPACE}thread" if engine.threads == 1 else f"{engine.threads}\N{NO-BREAK SPACE}threads"
    return f"{engine.delegate}{part}, {threads}"


def memory(entry: Entry) -> str:
    """Peak memory in MiB."""
    size_bytes = entry.summary.peak_memory_bytes
    return NOTHING if size_bytes is None else mib(size_bytes)


def share(value: float | None) -> str:
    """A share, or a dash."""
    return NOTHING if value is None else percent(value)


def missed(entry: Entry) -> str:
    """Number of missed deadlines."""
    deadline = entry.summary.deadline
    return "not paced" if deadline is None else str(deadline.missed)


def missed_share(entry: Entry) -> str:
    """Their share, and the pace."""
    deadline = entry.summary.deadline
    return "" if deadline is None else f"{percent(deadline.share)} at {deadline.fps:g} fps"


def verdict(entry: Entry) -> str:
    """Whether the figures can be believed, in one word."""
    if entry.meaningless:
        return "meaningless"
    return "stable" if entry.summary.stability.stable else "unstable"


def reasons(entry: Entry) -> str:
    """How much there is against them."""
    count = len(entry.summary.stability.reasons)
    return "" if not count else "1 reason" if count == 1 else f"{count} reasons"


def _milliseconds(title: str, value: Callable[[Entry], float], **others: Any) -> Column:
    return Column(title, "ms", lambda entry: ms(value(entry)), value, **others)


COLUMNS: Final = (
    Column("Model", "", lambda e: e.model, lambda e: e.model, brief=True, foreign=True),
    Column("Device", "", lambda e: e.record.device.name, lambda e: e.record.device.name, brief=True, foreign=True),
    Column(
        "Runtime",
        "",
        lambda e: RUNTIME_NAMES[e.record.artifact.runtime],
        lambda e: e.record.artifact.runtime,
        delegate,
        brief=True,
    ),
    Column("Type", "", lambda e: e.record.artifact.precision, lambda e: e.record.artifact.precision, brief=True),
    _milliseconds("Median", lambda e: e.summary.median_ms.value, note=interval, brief=True),
    _milliseconds("p90", lambda e: e.summary.p90_ms, brief=True),
    _milliseconds("p99", lambda e: e.summary.p99_ms),
    _milliseconds("First", lambda e: e.summary.first_ms),
    _milliseconds("Load", lambda e: e.summary.load_ms),
    Column(
        "Frames",
        "per s",
        lambda e: f"{e.summary.frames_per_second:.1f}",
        lambda e: e.summary.frames_per_second,
        brief=True,
    ),
    Column(
        "Peak memory",
        "MiB",
        memory,
        lambda e: e.summary.peak_memory_bytes,
        lambda e: e.summary.peak_memory_kind or "",
        brief=True,
    ),
    Column("File", "MiB", lambda e: mib(e.record.artifact.bytes), lambda e: e.record.artifact.bytes),
    Column("Roofline", "of peak", lambda e: share(e.summary.roofline_share), lambda e: e.summary.roofline_share),
    Column(
        "Missed",
        "deadlines",
        missed,
        lambda e: None if e.summary.deadline is None else e.summary.deadline.share,
        missed_share,
    ),
    Column("Figures are", "", verdict, verdict, reasons, brief=True),
)
