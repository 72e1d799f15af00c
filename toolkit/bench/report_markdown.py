"""A report as GitHub flavoured markdown, for the comment of a pull request; it reads as text too.

Whatever a record says of itself stands in code spans or is escaped, so that a name can neither make markup nor call
people (`@name`) or link issues.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import mvtool
from mvtool.bench.report import Entry, Report, clean
from mvtool.bench.report_columns import COLUMNS, Column
from mvtool.bench.report_facts import facts
from mvtool.bench.report_verdicts import HEADS, Pair, cells, outcome

_MARKS = re.compile(r"([\\`*_{}\[\]|~])")
_CALLS = re.compile(r"(@|#|GH-|:(?=//)|www(?=\.))", re.IGNORECASE)
_DETAILED = ("Device", "Engine", "Run", "Tags")
LONGEST: Final = 65_536
"""Characters of a comment that GitHub takes."""


def page(report: Report) -> str:
    """The comment, ended by a line break; facts of single records are left out where it would be too long to post."""
    whole = _page(report, [_facts(entry) for entry in report.entries])
    return (
        whole if len(whole) <= LONGEST else _page(report, ["What was measured where is left out here for its length."])
    )


def _page(report: Report, details: Sequence[str]) -> str:
    brief = [column for column in COLUMNS if column.brief]
    others = [column for column in COLUMNS if not column.brief]
    parts = [
        "### Benchmark",
        *_alerts(report.entries),
        *_outcomes(report.verdicts),
        _table(report.entries, brief),
        *_doubts(report.entries),
        "<details>\n<summary>More figures, and what was measured where</summary>",
        *(_comparison(pair) for pair in report.verdicts if pair.comparison is not None),
        _table(report.entries, others),
        *details,
        "</details>",
        f"<sub>mvtool {mvtool.__version__}. Median of one call of the runtime, below it the 95 % interval.</sub>",
    ]
    return "\n\n".join(parts) + "\n"


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


def prose(text: str) -> str:
    """Text without markup, HTML, links and calls.

    Example:
        >>> prose("a_b <i>")
        'a\\\\_b &lt;i&gt;'
    """
    escaped = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # A word joiner after the sign ends what GitHub takes for a call or a link, and is not seen.
    return _CALLS.sub("\\1\N{WORD JOINER}", _MARKS.sub(r"\\\1", escaped))


def _alerts(entries: Sequence[Entry]) -> Iterable[str]:
    stamps = dict.fromkeys(stamp for entry in entries for stamp in entry.stamps)
    for stamp in stamps:
        numbers = ", ".join(str(entry.number) for entry in entries if stamp in entry.stamps)
        plural = "s" if "," in numbers else ""
        kind = "CAUTION" if stamp.meaningless else "NOTE"
        yield f"> [!{kind}]\n> **{stamp.word}** (record{plural} {numbers}): {stamp.sentence}"


def _outcomes(verdicts: Sequence[Pair]) -> Iterable[str]:
    lines = []
    for pair in verdicts:
        word, why = outcome(pair)
        lines.append(f"- {code(pair.title)} **{word}**: {prose(why)}")
    if lines:
        yield "\n".join(lines)


def _comparison(pair: Pair) -> str:
    lines = [f"**Comparison** {code(pair.title)}", "", _row(HEADS), _row([":---", ":---", *["---:"] * 5])]
    compared = () if pair.comparison is None else pair.comparison.metrics
    notes = () if pair.comparison is None else pair.comparison.notes
    lines += [_row([prose(text) for text in cells(one)]) for one in compared]
    return "\n".join([*lines, *(f"\n{prose(note)}" for note in notes)])


def _table(entries: Sequence[Entry], columns: Sequence[Column]) -> str:
    heads = [column.title + (f", {column.unit}" if column.unit else "") for column in columns]
    lines = [_row(["", *heads]), _row(["---:", *("---:" if column.numeric else ":---" for column in columns)])]
    lines += [_row([str(entry.number), *(_cell(column, entry) for column in columns)]) for entry in entries]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


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
    lines = [
        f"- Record {entry.number} is unstable: {prose(reason)}"
        for entry in entries
        if not entry.meaningless
        for reason in entry.summary.stability.reasons
    ]
    if lines:
        yield "\n".join(lines)


def _facts(entry: Entry) -> str:
    lines = [f"**{entry.number}** {code(entry.name)}", ""]
    for title, rows in facts(entry):
        if title in _DETAILED:
            told = "; ".join(f"{prose(name)} {code(value)}" for name, value in rows if name != "serial")
            lines.append(f"- {title}: {told}")
    lines += [f"- Note: {prose(note)}" for note in entry.record.notes]
    return "\n".join(lines)
