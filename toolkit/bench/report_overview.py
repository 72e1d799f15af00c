"""Plots across records: their latencies in one picture, and the roofline of a device with the models under it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from mvtool.bench.plots import BLUE, GREEN, VERMILLION, canvas, place, plain_log
from mvtool.bench.report import RUNTIME_NAMES, Entry
from mvtool.bench.report_svg import ALARM, INK, MUTED, PANEL
from mvtool.bench.report_words import ms
from mvtool.ports import Precision, Runtime

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRECISION_COLOURS: Final = {
    Precision.INT8: BLUE,
    Precision.INT8_DYNAMIC: BLUE,
    Precision.FP16: GREEN,
    Precision.INT8_WEIGHTS: VERMILLION,
    Precision.FP32: VERMILLION,
}
"""By arithmetic; those of one colour differ by marker."""
PRECISION_MARKERS: Final = {
    Precision.INT8: "o",
    Precision.INT8_DYNAMIC: "^",
    Precision.FP16: "D",
    Precision.INT8_WEIGHTS: "v",
    Precision.FP32: "s",
}
_ROW_PX = 40
_NAME_HEIGHT = 0.055
"""Of a line of text, as part of the height of the roofline plot."""
GIGA = 1e9


def latencies(entries: Sequence[Entry], width_px: int) -> Figure:
    """Median with its interval, and the way to the 99th percentile, one row per record."""
    figure = canvas(width_px, len(entries) * _ROW_PX + 46)
    axes = place(figure, 22, 46, 4, 4 + len(entries) * _ROW_PX)
    shown = [value for entry in entries for value in _extent(entry)]
    low, high = min(shown), max(shown)
    if high > 12 * low > 0:
        plain_log(axes, "x", dense=high < 200 * low)
        axes.set_xlim(low * 0.85, high * 1.12)
    else:
        axes.set_xlim(0, (high or 1.0) * 1.06)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.6g}")
    for row, entry in enumerate(entries):
        _latency_row(axes, row, entry)
    axes.set_ylim(len(entries) - 0.45, -0.75)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel("inference of one call, ms")
    return figure


def _extent(entry: Entry) -> list[float]:
    """Values between which everything of the row lies."""
    summary = entry.summary
    interval = [] if entry.summary.single_launch else [summary.median_ms.low, summary.median_ms.high]
    return [summary.min_ms, summary.p99_ms, *interval]


def _latency_row(axes: Axes, row: int, entry: Entry) -> None:
    summary = entry.summary
    colour = PRECISION_COLOURS[entry.record.artifact.precision]
    axes.plot([summary.min_ms, summary.p99_ms], [row, row], color=colour, lw=1.2, alpha=0.7)
    axes.plot(
        [summary.median_ms.value, summary.p90_ms], [row, row], color=colour, lw=4, alpha=0.5, solid_capstyle="butt"
    )
    if not entry.summary.single_launch:
        ends = [summary.median_ms.low, summary.median_ms.high]
        axes.plot(ends, [row, row], color=INK, lw=7, alpha=0.4, solid_capstyle="butt")
    marker = PRECISION_MARKERS[entry.record.artifact.precision]
    axes.plot([summary.median_ms.value], [row], marker=marker, ms=6.5, mfc=PANEL, mec=colour, mew=2)
    stamped = f"  {' '.join(stamp.word for stamp in entry.stamps)}" if entry.stamps else ""
    axes.text(
        0,
        row - 0.4,
        f"{entry.number}  {entry.name}{stamped}",
        transform=axes.get_yaxis_transform(),
        fontsize=10.5,
        color=ALARM if entry.meaningless else INK,
        va="center",
    )
    axes.text(
        1.005,
        row,
        ms(summary.median_ms.value),
        transform=axes.get_yaxis_transform(),
        fontsize=10.5,
        color=INK,
        va="center",
        weight="bold",
    )


def roofline(entries: Sequence[Entry], width_px: int) -> Figure:
    """Multiply-adds per second against multiply-adds per byte, under the peaks of the device.

    Args:
        entries: Records of one device with a roofline and counted multiply-adds.
        width_px: Width of the drawing.
    """
    figure = canvas(width_px, 290)
    axes = place(figure, 52, 104, 12, 248)
    points = [(entry.intensity or 1.0, (entry.macs_per_second or 1.0) / GIGA) for entry in entries]
    roofs = roof_peaks(entries)
    bandwidths = [r.bytes_per_second for e in entries if (r := e.record.roofline) is not None and r.bytes_per_second]
    bandwidth = max(bandwidths) / GIGA if bandwidths else None
    across = [x for x, _ in points] + ([peak / bandwidth for peak in roofs.values()] if bandwidth else [])
    ends = min(across) / 3, max(across) * 3
    for (precision, _), peak in roofs.items():
        _roof(axes, precision, peak, bandwidth, ends)
    for entry, point in zip(entries, points, strict=True):
        _point(axes, entry, point)
    floor, top = min(y for _, y in points) / 3, max(roofs.values()) * 2.2
    plain_log(axes, "x", dense=ends[1] / ends[0] < 100)
    plain_log(axes, "y", dense=top / floor < 100)
    axes.set_xlim(ends)
    axes.set_ylim(floor, top)
    _name_roofs(axes, roofs)
    axes.set_xlabel("multiply-adds per byte moved")
    axes.set_ylabel("10⁹ multiply-adds per second")
    axes.grid()
    return figure


def _point(axes: Axes, entry: Entry, point: tuple[float, float]) -> None:
    precision = entry.record.artifact.precision
    marker, colour = PRECISION_MARKERS[precision], PRECISION_COLOURS[precision]
    axes.plot([point[0]], [point[1]], marker=marker, ms=7, mfc=PANEL, mec=colour, mew=2)
    axes.annotate(str(entry.number), point, (7, -4), textcoords="offset points", fontsize=11, weight="bold", color=INK)


def _roof(axes: Axes, precision: Precision, peak: float, bandwidth: float | None, ends: tuple[float, float]) -> None:
    """One roof: the slope of the memory up to the ridge, then the peak of computing."""
    ridge = peak / bandwidth if bandwidth else ends[0]
    x = np.array([ends[0], ridge, ends[1]])
    y = np.minimum(peak, x * bandwidth) if bandwidth else np.full(3, peak)
    axes.plot(x, y, color=PRECISION_COLOURS[precision], lw=1.8)
    if bandwidth:
        axes.plot([ridge, ridge], [1e-9, peak], color=MUTED, lw=0.7, ls=(0, (2, 3)))


def _name_roofs(axes: Axes, roofs: Mapping[tuple[Precision, Runtime], float]) -> None:
    """Names beside the right ends of the roofs, moved up where two would stand on each other."""
    floor, top = np.log10(axes.get_ylim())
    lowest = floor
    for (precision, runtime), peak in sorted(roofs.items(), key=lambda item: item[1]):
        at = max(float(np.log10(peak)), lowest)
        lowest = at + _NAME_HEIGHT * (top - floor)
        label = f"{precision} {RUNTIME_NAMES[runtime]} {peak:.3g}"
        place_of = axes.get_yaxis_transform()
        axes.text(1.02, 10.0**at, label, transform=place_of, va="center", fontsize=10, color=INK)


def roof_peaks(entries: Sequence[Entry]) -> dict[tuple[Precision, Runtime], float]:
    """The highest measured peak of each arithmetic and runtime in `entries`, in 10^9 multiply-adds per second."""
    peaks: dict[tuple[Precision, Runtime], float] = {}
    for entry in entries:
        artifact, measured = entry.record.artifact, entry.record.roofline
        precision = artifact.precision.arithmetic
        if measured is not None and precision in measured.macs_per_second:
            key = (precision, artifact.runtime)
            peaks[key] = max(peaks.get(key, 0.0), measured.macs_per_second[precision] / GIGA)
    return peaks
