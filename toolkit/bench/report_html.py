"""A report as one page that needs nothing but itself: no network, no fonts, no style or script from elsewhere.

Its content security policy allows the one style sheet and the one script that the page holds, by their hashes, and
nothing else, so that even a text that got past the escaping could load and run nothing.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Final

import mvtool
from mvtool.bench import comparison_text
from mvtool.bench.comparison import Compared, Comparison
from mvtool.bench.report import Entry, Report, Stamp
from mvtool.bench.report_columns import COLUMNS, Column
from mvtool.bench.report_columns import verdict as verdict_words
from mvtool.bench.report_document import document
from mvtool.bench.report_markup import Html, breakable, element, joined, json_block
from mvtool.bench.report_sections import across, section, stamp_element
from mvtool.bench.report_verdicts import Pair

TITLE: Final = "Benchmark report"
_STYLE, _SCRIPT = "bench_report.css", "bench_report.js"
GLOSSARY: Final = (
    (
        "Inference",
        (
            "The call of the runtime alone. A step is that, reading the frame into the port before it, and handing "
            "states over and reading outputs after it."
        ),
    ),
    (
        "Median and its 95 % interval",
        (
            "Of the timed calls of all launches. The interval respects that calls of one launch are alike, and there is none "
            "for a single launch, which does not show how the next one differs."
        ),
    ),
    (
        "First, load",
        (
            "The first call of a process, and loading and compiling the model. Medians over launches; neither is part of the "
            "other figures."
        ),
    ),
    (
        "Peak memory",
        (
            "The highest resident memory of the process (VmHWM) less what was resident with the runtime library open and no "
            "model. Exact, or a lower bound where the system swapped something out, which the counter does not see."
        ),
    ),
    (
        "Roofline",
        (
            "Multiply-adds per second of the median call, as part of the peak that a large matrix product reached on the same "
            "device, in the same run, with the same library and number of threads."
        ),
    ),
    ("Missed deadline", "A paced call whose whole step ended later than one period after it was due."),
)


def page(report: Report) -> str:
    """The page, as text to be stored in UTF-8.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    style, script = _resource(_STYLE), _resource(_SCRIPT)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="generator", content=f"mvtool {mvtool.__version__}"),
        element("title", f"{TITLE}: {_subject(report)}"),
        element("style", Html(style)),
    )
    body = element(
        "body",
        _header(report),
        element(
            "main", _summary(report), _verdicts(report), across(report), *(section(entry) for entry in report.entries)
        ),
        _footer(),
        json_block(document(report), "figures"),
        element("script", Html(script)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _resource(name: str) -> str:
    return (files("mvtool") / "data" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _subject(report: Report) -> str:
    models = list(dict.fromkeys(entry.record.model.name for entry in report.entries))
    return ", ".join(models[:3]) + (f" and {len(models) - 3} more" if len(models) > 3 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _header(report: Report) -> Html:
    records = [entry.record for entry in report.entries]
    days = sorted({record.created[:10] for record in records})
    parts = [
        _count(len(records), "record"),
        _count(len({record.model.name for record in records}), "model"),
        _count(len({record.device.serial for record in records}), "device"),
        days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
        f"mvtool {mvtool.__version__}",
    ]
    return element("header", element("h1", TITLE), element("p", " · ".join(parts), class_="lead"), *_banners(report))


def _banners(report: Report) -> list[Html]:
    """One line for each stamp, with the rows that it holds for."""
    holders: dict[Stamp, list[Entry]] = {}
    for entry in report.entries:
        for stamp in entry.stamps:
            holders.setdefault(stamp, []).append(entry)
    lines = []
    for stamp, entries in holders.items():
        numbers = ", ".join(str(entry.number) for entry in entries)
        rows = f"Record{'s' if len(entries) > 1 else ''} {numbers}"
        rows = "Every record" if len(entries) == len(report.entries) else rows
        level = "alarm" if stamp.meaningless else "caution"
        words = joined(stamp_element(stamp), element("strong", f"{rows}. "), stamp.sentence)
        lines.append(element("p", words, class_=f"banner {level}", role="note"))
    return lines


def _summary(report: Report) -> Html:
    """The table across records."""
    heads = [
        element(
            "th",
            column.title,
            element("span", column.unit or "\N{NO-BREAK SPACE}", class_="unit"),
            scope="col",
            data_column=column.title,
            data_numeric="" if column.numeric else None,
            class_="figure" if column.numeric else None,
        )
        for column in COLUMNS
    ]
    rows = [_row(entry) for entry in report.entries]
    table = element("table", element("thead", element("tr", *heads)), element("tbody", *rows), id="records")
    scroll = element("div", table, class_="scroll", tabindex="0", role="region", aria_label="Table of all records")
    return element("section", element("h2", "All records"), scroll, aria_label="All records")


def _row(entry: Entry) -> Html:
    first, *others = COLUMNS
    marks = [stamp_element(stamp) for stamp in entry.stamps]
    if entry.baseline:
        marks.append(element("span", "BASELINE", class_="stamp quiet"))
    link = element(
        "a", breakable(f"{entry.number}\N{NO-BREAK SPACE} {first.text(entry)}"), href=f"#record-{entry.number}"
    )
    name = element("th", link, *([element("br"), *marks] if marks else []), scope="row", data_value=_key(first, entry))
    cells = [_cell(column, entry) for column in others]
    return element("tr", name, *cells, class_="void" if entry.meaningless else None)


def _cell(column: Column, entry: Entry) -> Html:
    kinds = [
        "figure" if column.numeric else "name" if column.foreign else "",
        "main" if column.title == "Median" else "",
    ]
    if column.text is verdict_words:
        kinds.append(verdict_words(entry))
    note = column.note(entry)
    if note and column.text is verdict_words:
        note = element("a", note, href=f"#record-{entry.number}")
    content = joined(
        breakable(column.text(entry)) if column.foreign else column.text(entry),
        *([element("small", note)] if note else []),
    )
    return element("td", content, class_=" ".join(filter(None, kinds)) or None, data_value=_key(column, entry))


def _verdicts(report: Report) -> Html:
    """One table per pair of artifacts that were compared."""
    pairs, notes = report.verdicts.pairs, report.verdicts.notes
    if not pairs and not notes:
        return Html("")
    parts = [element("div", *map(_verdict, pairs), class_="pairs")] if pairs else []
    parts += [element("p", note, class_="muted") for note in notes]
    return element("section", element("h2", "Verdicts"), *parts, aria_label="Verdicts")


def _verdict(pair: Pair) -> Html:
    said = element("p", element("strong", f"{pair.word}: ", class_=pair.standing), pair.outcome)
    parts = [] if pair.comparison is None else _comparison(pair.comparison, pair.title)
    return element("article", element("h3", breakable(pair.title)), said, *parts)


def _comparison(comparison: Comparison, title: str) -> list[Html]:
    numeric = comparison_text.NUMERIC
    heads = [
        element("th", head, scope="col", class_="figure" if head in numeric else None) for head in comparison_text.HEADS
    ]
    rows = [_metric(one) for one in comparison.metrics]
    table = element("table", element("thead", element("tr", *heads)), element("tbody", *rows))
    told = (comparison_text.sides(comparison), *comparison_text.reasons(comparison), *comparison.notes)
    return [
        element("div", table, class_="scroll verdicts", tabindex="0", role="region", aria_label=title),
        element("ul", *(element("li", breakable(text)) for text in told), class_="plain muted"),
    ]


def _metric(one: Compared) -> Html:
    name, *figures, verdict = comparison_text.cells(one)
    return element(
        "tr",
        element("th", name, scope="row"),
        *(element("td", text, class_="figure") for text in figures),
        element("td", verdict, class_=comparison_text.standing(one.verdict)),
    )


def _key(column: Column, entry: Entry) -> str:
    """What the script sorts by: a number, a word, or nothing."""
    value = column.value(entry)
    return "" if value is None else str(value)


def _footer() -> Html:
    entries = [element("div", element("dt", name), element("dd", meaning)) for name, meaning in GLOSSARY]
    return element("footer", element("h2", "How to read the figures"), element("dl", *entries))
