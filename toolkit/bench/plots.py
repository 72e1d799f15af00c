"""Plots of one record: distribution of the latency, its tail, memory; and what every plot of a report shares.

Drawn about 440 pixels wide, so that text stays readable where a phone shows the plot at four fifths of that and a
desktop three of them in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mvtool.bench.record import MemoryMark, Place, Record
from mvtool.bench.report_document import heaviest
from mvtool.bench.report_svg import ALARM, GRID, INK, MUTED, PANEL
from mvtool.bench.report_words import ms
from mvtool.bench.statistics import Summary, samples_ms
from mvtool.plotting import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = COLOURS[:6]
WIDTH_PX: Final = 440
STRIP_SAMPLES: Final = 150
"""Samples of one launch that a strip shows, evenly chosen; its slowest is always among them."""
STRIPS: Final = 12
"""Launches that have a strip, the first ones."""
LABEL_WIDTH: Final = 0.28
"""Of a label above the histogram, as part of its width."""
MIB: Final = 2**20
_PIXELS_PER_INCH = 72
"""Of an SVG that matplotlib writes."""


def canvas(width_px: float, height_px: float) -> Figure:
    """An empty figure of that many pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_px / _PIXELS_PER_INCH, height_px / _PIXELS_PER_INCH))


def place(figure: Figure, left: float, right: float, top: float, bottom: float) -> Axes:
    """Axes in a figure; each number is the distance in pixels from that side of it, `bottom` from the top too."""
    width, height = figure.get_size_inches() * _PIXELS_PER_INCH
    return figure.add_axes((left / width, 1 - bottom / height, (width - left - right) / width, (bottom - top) / height))


def dots(axes: Axes, x: Floats, y: Floats, colour: str, size: float = 2.0, alpha: float = 1.0) -> None:
    """Round points as one path, which takes a fifth of the bytes of as many markers."""
    gap = np.full(len(x), np.nan)
    xs, ys = np.stack([x, x, gap], 1).ravel(), np.stack([y, y, gap], 1).ravel()
    axes.plot(xs, ys, color=colour, lw=size, alpha=alpha, solid_capstyle="round")


def plain_log(axis: Axes, which: str, dense: bool) -> None:
    """Logarithmic ticks at 1, 2 and 5 (or at 1 alone), written as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    (axis.set_xscale if which == "x" else axis.set_yscale)("log")
    target = axis.xaxis if which == "x" else axis.yaxis
    target.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if dense else (1.0,)))
    target.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    target.set_minor_formatter(NullFormatter())


def watermark(figure: Figure, words: str, size: float = 26) -> None:
    """Write `words` across the figure, behind what is drawn."""
    if words:
        figure.text(0.5, 0.55, words, ha="center", va="center", fontsize=size, color=ALARM, alpha=0.3, weight="bold")


def distribution(record: Record, summary: Summary, words: str) -> Figure:
    """Histogram of the latency of all launches, above a strip for each of them."""
    per_launch = [samples_ms(launch) for launch in record.launches]
    rows = min(len(per_launch), STRIPS)
    strip_px = rows * 15 + 12
    figure = canvas(WIDTH_PX, 217 + strip_px + 42)
    watermark(figure, words)
    upper = place(figure, 44, 12, 46, 212)
    lower = place(figure, 44, 12, 218, 218 + strip_px)
    low, high = axis_range(np.concatenate(per_launch))
    _histogram(upper, np.concatenate(per_launch), (low, high), summary)
    _strips(lower, per_launch[:rows], (low, high))
    upper.tick_params(labelbottom=False)
    lower.set_xlabel("inference, ms")
    lower.set_ylabel("launch")
    return figure


def axis_range(samples: Floats) -> tuple[float, float]:
    """Ends of an axis that shows all but the far tail: to the 99.5th percentile and a bit, or to the slowest."""
    low, body, high = float(samples.min()), float(np.percentile(samples, 99.5)), float(samples.max())
    end = high if high <= low + 1.3 * (body - low) else body + 0.15 * (body - low)
    margin = max(0.04 * (end - low), 0.002 * end, 1e-6)
    return max(0.0, low - margin), end + margin


def beyond(samples: Floats) -> int:
    """Number of samples right of `axis_range`."""
    return int((samples > axis_range(samples)[1]).sum())


def _histogram(axes: Axes, samples: Floats, ends: tuple[float, float], summary: Summary) -> None:
    bins = int(np.clip(np.sqrt(samples.size) * 1.5, 12, 72))
    counts, edges = np.histogram(samples, bins=bins, range=ends)
    axes.stairs(counts / samples.size * 100, edges, fill=True, color=BLUE, alpha=0.55)
    axes.set_xlim(ends)
    axes.set_ylabel("share of calls, %")
    axes.grid(axis="y")
    median = summary.median_ms
    if not summary.single_launch:
        axes.axvspan(median.low, median.high, color=VERMILLION, alpha=0.25, lw=0)
    top = axes.get_ylim()[1]
    marks = (("median", median.value), ("p90", summary.p90_ms), ("p99", summary.p99_ms))
    shown = [(name, value) for name, value in marks if ends[0] <= value <= ends[1]]
    for (name, value), level in zip(shown, levels([value for _, value in shown], ends), strict=True):
        _mark(axes, name, value, top, level)
    axes.set_ylim(0, top)


def _mark(axes: Axes, name: str, value: float, top: float, level: int) -> None:
    """A vertical line with its name above the plot."""
    is_median = name == "median"
    axes.plot(
        [value] * 2, [0, top], color=VERMILLION if is_median else INK, lw=1.3, ls="-" if is_median else (0, (4, 2))
    )
    side = "right" if _reads_leftwards(value, axes.get_xlim()) else "left"
    offset = (-3 if side == "right" else 3, 3 + 12 * level)
    axes.annotate(
        f"{name} {ms(value)}", (value, top), offset, textcoords="offset points", fontsize=10, color=INK, ha=side
    )


def _reads_leftwards(value: float, ends: tuple[float, float]) -> bool:
    """A label there would not fit to the right of its line."""
    return value > ends[1] - LABEL_WIDTH * (ends[1] - ends[0])


def levels(values: Sequence[float], ends: tuple[float, float]) -> list[int]:
    """A line of text for each label above a plot, the lowest in which it runs into no other."""
    taken: list[list[tuple[float, float]]] = [[] for _ in values]
    found = []
    for value in values:
        start = (value - ends[0]) / (ends[1] - ends[0]) - (LABEL_WIDTH if _reads_leftwards(value, ends) else 0.0)
        end = start + LABEL_WIDTH
        level = next(n for n, line in enumerate(taken) if all(end <= left or right <= start for left, right in line))
        taken[level].append((start, end))
        found.append(level)
    return found


def _strips(axes: Axes, per_launch: Sequence[Floats], ends: tuple[float, float]) -> None:
    generator = np.random.default_rng(0)
    for row, samples in enumerate(per_launch):
        order = np.sort(samples)
        shown = order[np.unique(np.linspace(0, order.size - 1, min(order.size, STRIP_SAMPLES)).round().astype(int))]
        shown = np.minimum(shown, ends[1])
        dots(axes, shown, row + generator.uniform(-0.28, 0.28, shown.size), BLUE, 1.8, 0.45)
        axes.plot(np.percentile(samples, (25, 75)), [row, row], color=INK, lw=2.2, solid_capstyle="butt")
        axes.plot([np.median(samples)], [row], marker="o", ms=4.5, mfc=PANEL, mec=VERMILLION, mew=1.6)
    axes.set_xlim(ends)
    axes.set_ylim(len(per_launch) - 0.4, -0.6)
    axes.set_yticks(range(len(per_launch)), [str(row + 1) for row in range(len(per_launch))])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)


def tail(record: Record, words: str) -> Figure:
    """Latency against percentile, the axis stretched towards the slowest calls; one thin line per launch."""
    per_launch = [samples_ms(launch) for launch in record.launches]
    together = np.concatenate(per_launch)
    figure = canvas(WIDTH_PX, 217 + min(len(per_launch), STRIPS) * 15 + 54)
    watermark(figure, words)
    axes = place(figure, 44, 18, 14, 217 + min(len(per_launch), STRIPS) * 15 + 12)
    if together.max() > 4 * np.median(together):
        plain_log(axes, "y", dense=True)
    for samples in per_launch if len(per_launch) > 1 else ():
        axes.plot(*_tail_line(samples), color=BLUE, lw=0.9, alpha=0.5)
    axes.plot(*_tail_line(together), color=INK, lw=1.8)
    ticks = [
        (0.0, "0"),
        (0.5, "50"),
        (0.9, "90"),
        (0.99, "99"),
        (0.999, "99.9"),
        (0.9999, "99.99"),
        (0.99999, "99.999"),
    ]
    last = max(np.log10(together.size), 0.35)
    shown = [(-np.log10(1 - share), text) for share, text in ticks if -np.log10(1 - share) <= last]
    axes.set_xticks([at for at, _ in shown], [text for _, text in shown])
    axes.set_xlim(0, last * 1.02)
    axes.set_xlabel("percentile of all calls")
    axes.set_ylabel("inference, ms")
    axes.grid()
    return figure


def _tail_line(samples: Floats) -> tuple[Floats, Floats]:
    """Place on the stretched axis, `-log10(1 - share)`, and latency, up to the slowest sample."""
    places = np.linspace(0, np.log10(samples.size), 120) if samples.size > 1 else np.zeros(1)
    # 1 - 10**-log10(n) is the share below the slowest of n samples.
    values = np.percentile(samples, 100 * (1 - 10.0**-places))
    values[-1] = samples.max()
    return places, values


def memory(record: Record, summary: Summary, words: str) -> Figure:
    """Resident, swapped and peak memory at the five places of the launch that needed most."""
    marks = heaviest(record).memory
    rows = 217 + min(len(record.launches), STRIPS) * 15
    figure = canvas(WIDTH_PX, rows + 54)
    watermark(figure, words)
    axes = place(figure, 44, 92, 14, rows + 12)
    _memory_bars(axes, marks)
    baseline = (summary.baseline_bytes or 0) / MIB
    peak = marks[-1].vm_hwm_bytes / MIB
    axes.axhline(baseline, color=MUTED, lw=1, ls=(0, (4, 2)))
    axes.annotate(
        "",
        (4.62, peak),
        (4.62, baseline),
        arrowprops={"arrowstyle": "<->", "color": INK, "lw": 1.1, "shrinkA": 0, "shrinkB": 0},
        annotation_clip=False,
    )
    kind = "\nlower bound" if summary.peak_memory_kind == "lower bound" else "\nover library"
    axes.text(
        4.72,
        (peak + baseline) / 2,
        f"+{(summary.peak_memory_bytes or 0) / MIB:.1f} MiB{kind}",
        va="center",
        fontsize=10,
        color=INK,
    )
    axes.set_ylabel("memory, MiB")
    return figure


def _memory_bars(axes: Axes, marks: Sequence[MemoryMark]) -> None:
    places = np.arange(len(marks))
    resident = np.array([mark.vm_rss_bytes for mark in marks]) / MIB
    swapped = np.array([mark.vm_swap_bytes for mark in marks]) / MIB
    peaks = np.array([mark.vm_hwm_bytes for mark in marks]) / MIB
    axes.bar(places, resident, width=0.58, color=BLUE, alpha=0.6, label="resident")
    if swapped.any():
        axes.bar(places, swapped, width=0.58, bottom=resident, color=ORANGE, alpha=0.8, label="swapped out")
    axes.hlines(peaks, places - 0.36, places + 0.36, color=VERMILLION, lw=2.2, label="peak so far")
    for at, value in zip(places, peaks, strict=True):
        axes.annotate(
            f"{value:.1f}", (at, value), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=9.5, color=INK
        )
    axes.set_xticks(places, [str(Place(mark.at)) for mark in marks])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, 4.5)
    axes.set_ylim(0, max((resident + swapped).max(), peaks.max()) * 1.25)
    axes.grid(axis="y", color=GRID)
    axes.legend(loc="upper left", ncols=3, borderpad=0, handlelength=1.2, columnspacing=1.0)
