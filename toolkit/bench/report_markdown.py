"""A report as GitHub flavoured markdown, for the comment of a pull request; it reads as text too.

Whatever a record says of itself stands in code spans or is escaped, so that a name can neither make markup nor call
people (`@name`) or link issues.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import mvtool
from mvtool.bench import comparison_text, cross_check
from mvtool.bench.comparison import Comparison
from mvtool.bench.markdown_text import LONGEST, clean, prose, row
from mvtool.bench.report import Entry, Report
from mvtool.bench.report_columns import COLUMNS, Column
from mvtool.bench.report_facts import facts
from mvtool.bench.report_verdicts import Pair

_DETAILED: Final = ("Device", "Engine", "Run", cross_check.LABEL, "Tags")


@dataclass(frozen=True)
class _Part:
    """Items of one kind, of which the last are left out first.

    Attributes:
        items: Texts.
        told: What a reader who misses some is told that they are.
        gap: Between items.
        before: What stands above the first.
    """

    items: tuple[str, ...]
    told: str = ""
    gap: str = "\n"
    before: str = ""

    def text(self, kept: int) -> str:
        """The first items; empty if there are none."""
        shown = self.gap.join(self.items[:kept])
        return f"{self.before}{shown}" if shown else ""


def page(report: Report) -> str:
    """The comment, ended by a line break; where it would be too long to post, details are left out one by one."""
    parts, order = _parts(report)

    def without(dropped: int) -> str:
        return _page(parts, _kept(parts, order, dropped))

    droppable = sum(len(parts[place].items) for place in order)
    fewest = bisect_left(range(droppable), True, key=lambda dropped: len(without(dropped)) <= LONGEST)
    text = without(fewest)
    assert len(text) <= LONGEST, "what cannot be left out is a few lines"
    return text


def _parts(report: Report) -> tuple[list[_Part], list[int]]:
    """Everything in the order of the page, and the places of what is left out where it is too long, the first first."""
    entries, compared = report.entries, [pair for pair in report.verdicts.worst_first if pair.comparison]
    brief = [column for column in COLUMNS if column.brief]
    others = [column for column in COLUMNS if not column.brief]
    parts = [
        _Part(tuple(_alerts(entries)), "warnings", gap="\n\n"),
        _Part(tuple(_outcomes(report)), "outcomes"),
        _table(entries, brief, "rows of the table"),
        _Part(tuple(_doubts(entries)), "reasons against figures"),
        _Part(tuple(_comparison(pair, pair.comparison) for pair in compared if pair.comparison), "comparisons", "\n\n"),
        _table(entries, others, "rows of further figures"),
        _Part(tuple(_facts(entry) for entry in entries), "descriptions of what was measured where", "\n\n"),
    ]
    return parts, [6, 4, 5, 3, 1, 2, 0]


def _kept(parts: Sequence[_Part], order: Sequence[int], dropped: int) -> list[int]:
    """How many items of each part stay."""
    kept = [len(part.items) for part in parts]
    for place in order:
        fewer = min(dropped, kept[place])
        kept[place] -= fewer
        dropped -= fewer
    return kept


def _page(parts: Sequence[_Part], kept: Sequence[int]) -> str:
    texts = [part.text(count) for part, count in zip(parts, kept, strict=True)]
    lost = [f"{len(p.items) - n} {p.told}" for p, n in zip(parts, kept, strict=True) if n < len(p.items)]
    left_out = (
        f"Left out here for its length: {', '.join(lost)}. The page of `mvtool report` holds all." if lost else ""
    )
    blocks = [
        "### Benchmark",
        *texts[:4],
        "<details>\n<summary>More figures, and what was measured where</summary>",
        *texts[4:],
        "</details>",
        left_out,
        f"<sub>mvtool {mvtool.__version__}. Median of one call of the runtime, below it the 95 % interval.</sub>",
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def code(text: str, in_table: bool = False) -> str:
    """A code span that holds `text` whatever is in it.

    Example:
        >>> code("a0|b", in_table=True), code("a`b")
        ('`a0\\\\|b`', '``a`b``')
    """
    line = clean(text) or " "
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    blank = " " if line[0] == "`" or line[-1] == "`" else ""
    span = f"{fence}{blank}{line}{blank}{fence}"
    return span.replace("|", "\\|") if in_table else span


def _alerts(entries: Sequence[Entry]) -> Iterable[str]:
    stamps = dict.fromkeys(stamp for entry in entries for stamp in entry.stamps)
    for stamp in stamps:
        numbers = ", ".join(str(entry.number) for entry in entries if stamp in entry.stamps)
        plural = "s" if "," in numbers else ""
        kind = "CAUTION" if stamp.meaningless else "NOTE"
        yield f"> [!{kind}]\n> **{stamp.word}** (record{plural} {numbers}): {stamp.sentence}"


def _outcomes(report: Report) -> Iterable[str]:
    for pair in report.verdicts.worst_first:
        yield f"- {code(pair.title)} **{pair.word}**: {prose(pair.outcome)}"
    for note in report.verdicts.notes:
        yield f"- {prose(note)}"


def _comparison(pair: Pair, comparison: Comparison) -> str:
    return f"**Comparison** {code(pair.title)}\n\n{comparison_text.markdown_details(comparison)}"


def _table(entries: Sequence[Entry], columns: Sequence[Column], told: str) -> _Part:
    heads = [column.title + (f", {column.unit}" if column.unit else "") for column in columns]
    lines = [row(["", *heads]), row(["---:", *("---:" if column.numeric else ":---" for column in columns)])]
    rows = [row([str(entry.number), *(_cell(column, entry) for column in columns)]) for entry in entries]
    return _Part(tuple(rows), told, before="\n".join([*lines, ""]))


def _cell(column: Column, entry: Entry) -> str:
    said: Callable[[str], str] = (lambda text: code(text, in_table=True)) if column.foreign else prose
    text, note = column.text(entry), column.note(entry)
    if column.title == "Median":
        text = f"**{text}**"
    elif column.title == "Model":
        marks = [f"**{stamp.word}**" for stamp in entry.stamps] + (["baseline"] if entry.baseline else [])
        return " ".join([said(text), *marks])
    else:
        text = said(text)
    return f"{text}<br>{said(note)}" if note else text


def _doubts(entries: Sequence[Entry]) -> Iterable[str]:
    """What makes figures doubtful, one list for all records."""
    for entry in entries:
        for reason in () if entry.meaningless else entry.summary.stability.reasons:
            yield f"- Record {entry.number} is unstable: {prose(reason)}"


def _facts(entry: Entry) -> str:
    lines = [f"**{entry.number}** {code(entry.name)}", ""]
    for title, rows in facts(entry):
        if title in _DETAILED:
            told = "; ".join(f"{prose(name)} {code(value)}" for name, value in rows if name != "serial")
            lines.append(f"- {prose(title)}: {told}")
    lines += [f"- Note: {prose(note)}" for note in entry.record.notes]
    return "\n".join(lines)
