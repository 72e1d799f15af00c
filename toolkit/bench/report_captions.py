"""Captions of the plots, which speak only of what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from mvtool.bench import plots, report_timeline
from mvtool.bench.record import Record
from mvtool.bench.report import Entry
from mvtool.bench.report_markup import Html, element, joined
from mvtool.bench.report_words import ms
from mvtool.bench.statistics import samples_ms
from mvtool.ports import Precision

MARKS: Final = {
    Precision.INT8: "blue circles",
    Precision.INT8_DYNAMIC: "blue triangles",
    Precision.FP16: "green diamonds",
    Precision.INT8_WEIGHTS: "orange triangles that point down",
    Precision.FP32: "orange squares",
}
"""How `report_overview` draws precisions, in words."""
SLOW_CHANGE: Final = 0.05
"""Change of the median from the first to the last tenth of a run that its caption speaks of."""


def latencies(entries: Sequence[Entry]) -> str:
    """Of the plot of all records."""
    single = [str(entry.number) for entry in entries if entry.summary.single_launch]
    parts = ["Median of one call, in figures at the right."]
    if len(single) < len(entries):
        parts.append("The grey bar is its 95 % interval.")
    if single:
        parts.append(f"One launch has no interval: {', '.join(single)}.")
    parts.append("The thick line goes on to p90, the thin one from the fastest call to p99.")
    drawn = {entry.record.artifact.precision for entry in entries}
    marks = [f"{mark} are {precision}" for precision, mark in MARKS.items() if precision in drawn]
    return " ".join([*parts, f"{', '.join(marks).capitalize()}."])


def timeline(entry: Entry) -> Html:
    """Of the calls over time, and the state of the device."""
    record, deadline = entry.record, entry.summary.deadline
    parts: list[str] = [_thinned_words(record)]
    period = report_timeline.shown_period_ms(record)
    if period is not None:
        parts.append(f"The dashed line is the period, {ms(period)} ms.")
    if deadline is not None and deadline.missed:
        parts.append("Red points missed their deadline.")
    parts.append(_drift(record))
    if report_timeline.throttled(record):
        parts.append("The system said that it throttled where the ground is coloured.")
    if not any(reading.temperatures_c or reading.battery_c is not None for reading in record.readings):
        parts.append("The device told no temperatures.")
    if not any(reading.frequencies_khz for reading in record.readings):
        parts.append("It told no clocks." if "told no temperatures" in parts[-1] else "The device told no clocks.")
    return Html(" ".join(joined(part) for part in parts if part))


def _thinned_words(record: Record) -> str:
    """Of the wide drawing and the narrow one, or of the narrow one alone."""
    words = (
        "Where calls are too many for a point each, the line is their median and the band reaches from the fastest to the "
        "slowest."
    )
    wide, narrow = (
        any(report_timeline.is_thinned(record, launch, width_px) for launch in record.launches)
        for width_px in (report_timeline.WIDE_PX, report_timeline.NARROW_PX)
    )
    return words if wide else element("span", words, class_="narrow") if narrow else ""


def _drift(record: Record) -> str:
    """How much slower the end of a run was than its begin."""
    samples = np.concatenate([samples_ms(launch) for launch in record.launches])
    tenth = max(1, samples.size // 10)
    first, last = float(np.median(samples[:tenth])), float(np.median(samples[-tenth:]))
    if not first or abs(last / first - 1) < SLOW_CHANGE:
        return ""
    change = f"{last / first - 1:+.0%}"
    return f"The last tenth of the calls took {ms(last)} ms in the median, the first {ms(first)} ms ({change})."


def distribution(entry: Entry) -> str:
    """Of the histogram and the strips, with what neither of them shows."""
    record, summary = entry.record, entry.summary
    outside = plots.beyond(np.concatenate([samples_ms(launch) for launch in record.launches]))
    hidden = f" {outside} calls lie beyond the right end, the slowest at {ms(summary.max_ms)} ms." if outside else ""
    few = summary.launches <= plots.STRIPS
    which = "each launch" if few else f"each of the first {plots.STRIPS} of {summary.launches} launches"
    return (
        f"Bars are all launches together; below, {which}: points are calls, the line its middle half, the circle its "
        f"median.{hidden}"
    )


def tail(entry: Entry) -> str:
    """Of the latency against the percentile."""
    curves = (
        "The line is its calls;"
        if entry.summary.single_launch
        else "Black is all launches together, blue each of them;"
    )
    return f"{curves} the right end is the slowest call."


def memory(entry: Entry) -> str:
    """Of the memory of the process."""
    includes = entry.record.engine.memory_includes
    parts = ["Of the whole process; the dashed line is what was resident with the runtime library open."]
    if entry.summary.launches > 1:
        parts.append("Of the launch that needed most.")
    if entry.summary.peak_memory_kind == "lower bound":
        parts.append("Something was swapped out, which the peak does not see: it is a lower bound.")
    if includes:
        parts.append(f"An app would not hold {', '.join(includes)}, which this process does.")
    return " ".join(parts)
