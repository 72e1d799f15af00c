"""The parts of the page below the table: plots across records, and a section for each record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from mvtool.bench import plots, report_captions, report_overview, report_timeline
from mvtool.bench.record import Record
from mvtool.bench.report import Entry, Report, Stamp
from mvtool.bench.report_columns import interval, share
from mvtool.bench.report_facts import deadline_words, facts
from mvtool.bench.report_markup import Html, breakable, element, joined
from mvtool.bench.report_svg import inline
from mvtool.bench.report_words import NOTHING, mib, ms, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS_PX: Final = 460
SHARE_HEADS: Final = ("Record", "10⁹ MAC/s", "MAC/byte", "Of peak", "Of attainable")


def stamp_element(stamp: Stamp) -> Html:
    """The stamp as a framed word."""
    return element("span", stamp.word, class_=f"stamp {'alarm' if stamp.meaningless else 'caution'}")


def figure(svg: str, title: str, caption: str, class_: str | None = None) -> Html:
    """A drawing with its caption."""
    return element("figure", Html(svg), element("figcaption", element("strong", title), " ", caption), class_=class_)


def across(report: Report) -> Html:
    """Latencies of all records, and one roofline per device."""
    drawings = []
    if len(report.entries) > 1:
        drawings.append(_latencies(report.entries))
    for index, entries in enumerate(_roofline_groups(report.entries)):
        drawings.append(_roofline(entries, f"roof{index}"))
    if not drawings:
        return Html("")
    alone = len(report.entries) == 1
    title = "Roofline" if alone else "Across records"
    grid = element("div", *drawings, class_="plots pair solo" if alone else "plots pair")
    return element("section", element("h2", title), grid, aria_label=title)


def _latencies(entries: Sequence[Entry]) -> Html:
    label = "Median latency of each record with its interval, 90th and 99th percentile; the figures are in the table."
    svg = inline(lambda: report_overview.latencies(entries, ACROSS_PX), "all", label)
    return figure(svg, "Latency.", report_captions.latencies(entries))


def _roofline_groups(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Records that stand under the same roofs: one device and one number of threads."""
    groups: dict[tuple[str, int], list[Entry]] = {}
    for entry in entries:
        record = entry.record
        if entry.summary.roofline_share is not None and not entry.meaningless:
            key = (record.device.serial, record.engine.threads)
            groups.setdefault(key, []).append(entry)
    return list(groups.values())


def _roofline(entries: Sequence[Entry], prefix: str) -> Html:
    record = entries[0].record
    svg = inline(
        lambda: report_overview.roofline(entries, ACROSS_PX),
        prefix,
        f"Roofline of {record.device.name}; the caption names the shares.",
    )
    threads = "1 thread" if record.engine.threads == 1 else f"{record.engine.threads} threads"
    title = f"Roofline of {record.device.name}, {threads}."
    method = record.roofline.method if record.roofline is not None else ""
    caption = (
        f"Attainable is what the peaks of computing and of memory allow together at this intensity. Peaks: {method}. "
        "Where records measured different peaks, the highest is drawn; the percentages use each record's own."
    )
    captioned = element("figcaption", element("strong", title), " ", caption)
    return element("figure", Html(svg), captioned, _shares(entries))


def _shares(entries: Sequence[Entry]) -> Html:
    heads = [element("th", text, scope="col", class_="figure" if at else None) for at, text in enumerate(SHARE_HEADS)]
    rows = []
    for entry in entries:
        name = f"{entry.number}\N{NO-BREAK SPACE} {entry.model}, {entry.record.artifact.precision}"
        cells = [
            f"{(entry.macs_per_second or 0.0) / 1e9:.2f}",
            f"{entry.intensity or 0.0:.2f}",
            share(entry.summary.roofline_share),
            share(entry.summary.attainable_share),
        ]
        rows.append(
            element(
                "tr", element("th", breakable(name), scope="row"), *(element("td", c, class_="figure") for c in cells)
            )
        )
    table = element("table", element("thead", element("tr", *heads)), element("tbody", *rows))
    return element("div", table, class_="aside", tabindex="0", role="region", aria_label="Shares of the roofline")


def section(entry: Entry) -> Html:
    """Everything of one record."""
    record, name = entry.record, f"record-{entry.number}"
    device = f"{entry.kind} on {record.device.name}, {record.engine.delegate}"
    heading = element("h2", breakable(f"{entry.number}\N{NO-BREAK SPACE} {entry.model}"), id=f"{name}-title")
    banners = [
        element(
            "p", stamp_element(stamp), stamp.sentence, class_=f"banner {'alarm' if stamp.meaningless else 'caution'}"
        )
        for stamp in entry.stamps
    ]
    return element(
        "section",
        element("div", heading, element("p", device, class_="lead")),
        *banners,
        _stability(entry),
        _key_figures(entry),
        _timeline(entry),
        element("div", *_drawings(entry), class_="plots"),
        *_notes(record),
        _facts(entry),
        class_="record",
        id=name,
        aria_labelledby=f"{name}-title",
    )


def _stability(entry: Entry) -> Html:
    stability = entry.summary.stability
    if entry.meaningless:
        words = " The figures below say nothing of any device; they show only that the measurement runs."
        first = element("p", element("strong", "Meaningless.", class_="meaningless"), words)
    elif stability.stable:
        first = element("p", element("strong", "Stable.", class_="stable"), " Nothing speaks against the figures.")
    else:
        first = element("p", element("strong", "Unstable.", class_="unstable"), " What makes the figures doubtful:")
    reasons = [element("li", reason) for reason in stability.reasons]
    reasons += [element("li", hint, class_="muted") for hint in stability.hints]
    return element("div", first, *([element("ul", *reasons, class_="plain")] if reasons else []))


def _key_figures(entry: Entry) -> Html:
    summary = entry.summary
    launches = "1 launch" if summary.launches == 1 else f"{summary.launches} launches"
    calls = f"{summary.invokes} calls in {launches}, {summary.seconds:.1f} s"
    figures = [
        ("Median", f"{ms(summary.median_ms.value)} ms", f"95 %: {interval(entry)}"),
        ("p90 · p99", f"{ms(summary.p90_ms)} · {ms(summary.p99_ms)} ms", f"slowest {ms(summary.max_ms)} ms"),
        ("Throughput", f"{summary.frames_per_second:.1f} frames/s", calls),
        ("Step", f"{ms(summary.step_median_ms)} ms", _step_words(entry)),
        ("First · load", f"{ms(summary.first_ms)} · {ms(summary.load_ms)} ms", f"library {ms(summary.library_ms)} ms"),
    ]
    if summary.peak_memory_bytes is None:
        figures.append(("Peak memory", NOTHING, "not told by an emulator"))
    else:
        figures.append(("Peak memory", f"{mib(summary.peak_memory_bytes)} MiB", summary.peak_memory_kind or ""))
    if summary.roofline_share is not None:
        attainable = summary.attainable_share
        note = "" if attainable is None else f"{percent(attainable)} of attainable"
        figures.append(("Roofline", f"{percent(summary.roofline_share)} of peak", note))
    if summary.deadline is not None:
        worst = f"worst by {ms(summary.deadline.worst_late_ms)} ms"
        figures.append(("Missed deadlines", deadline_words(entry), worst if summary.deadline.missed else "all in time"))
    return element(
        "dl",
        *(element("div", element("dt", n), element("dd", v, element("small", note))) for n, v, note in figures),
        class_="key void" if entry.meaningless else "key",
    )


def _step_words(entry: Entry) -> str:
    summary = entry.summary
    return f"in {ms(summary.input_median_ms)}, state {ms(summary.state_median_ms)}, out {ms(summary.output_median_ms)}"


def _words(entry: Entry) -> str:
    """Across every plot of a record whose figures mean nothing."""
    return " ".join(stamp.word for stamp in entry.stamps if stamp.meaningless)


def _timeline(entry: Entry) -> Html:
    record, words, title = entry.record, _words(entry), f"Every timed call of record {entry.number} over time"

    def draw(width_px: int) -> Callable[[], Figure]:
        return lambda: report_timeline.timeline(record, words, width_px)

    wide = inline(draw(report_timeline.WIDE_PX), f"tw{entry.number}", title)
    narrow = inline(draw(report_timeline.NARROW_PX), f"tn{entry.number}", title)
    both = joined(element("div", Html(wide), class_="wide"), element("div", Html(narrow), class_="narrow"))
    return figure(both, "Over time.", report_captions.timeline(entry))


def _drawings(entry: Entry) -> list[Html]:
    record, summary, number, words = entry.record, entry.summary, entry.number, _words(entry)
    drawings = [
        figure(
            inline(lambda: plots.distribution(record, summary, words), f"d{number}", "Histogram of the latency"),
            "Distribution.",
            report_captions.distribution(entry),
        ),
        figure(
            inline(lambda: plots.tail(record, words), f"q{number}", "Latency against percentile"),
            "Tail.",
            report_captions.tail(entry),
        ),
    ]
    if not record.device.emulated:
        drawings.append(
            figure(
                inline(lambda: plots.memory(record, summary, words), f"m{number}", "Memory of the process"),
                "Memory.",
                report_captions.memory(entry),
            )
        )
    return drawings


def _notes(record: Record) -> list[Html]:
    return [element("ul", *(element("li", note) for note in record.notes), class_="plain")] if record.notes else []


def _facts(entry: Entry) -> Html:
    groups = []
    for title, rows in facts(entry):
        pairs = [part for name, value in rows for part in (element("dt", name), element("dd", breakable(value)))]
        groups.append(element("div", element("h3", title), element("dl", *pairs)))
    return element("div", *groups, class_="facts")
