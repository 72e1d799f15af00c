"""The plot of a run over time: every timed call, and the state of the device below, on one axis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mvtool.bench.plots import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Floats,
    canvas,
    dots,
    place,
    plain_log,
    watermark,
)
from mvtool.bench.record import Launch, Reading, Record
from mvtool.bench.report_svg import ALARM, INK, MUTED
from mvtool.bench.statistics import misses_ms, period_ms, samples_ms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE_PX: Final = 1240
NARROW_PX: Final = 400
POINTS_PER_PX: Final = 0.7
DOTS_PER_POINT: Final = 3
SENSORS: Final = 5
"""Temperature curves of one plot: the battery, and the sensors that rose most."""
CLOCKS: Final = 6
NEAR_PERIOD: Final = 0.8
"""Part of the period from which calls are near it."""
_COLOURS = (VERMILLION, BLUE, GREEN, PURPLE, ORANGE, SKY)


@dataclass(frozen=True)
class Thinned:
    """Samples over time, few enough to draw; no extreme is lost.

    Attributes:
        time_s: Time of each point.
        low: Smallest of the samples that a point stands for.
        middle: Their median.
        high: Largest of them.
    """

    time_s: Floats
    low: Floats
    middle: Floats
    high: Floats


def thin(time_s: Floats, values: Floats, points: int) -> Thinned:
    """At most `points` points, each for the samples of an equal part of the time; all samples where they are that few.

    Args:
        time_s: Rising times.
        values: As many values.
        points: At least 1.
    """
    if values.size <= points:
        return Thinned(time_s, values, values, values)
    span = max(float(time_s[-1] - time_s[0]), 1e-9)
    bins = np.minimum((time_s - time_s[0]) / span * points, points - 1).astype(int)
    starts = np.flatnonzero(np.diff(bins, prepend=-1))
    parts = np.split(values, starts[1:])
    return Thinned(
        np.array([part.mean() for part in np.split(time_s, starts[1:])]),
        np.minimum.reduceat(values, starts),
        np.array([np.median(part) for part in parts]),
        np.maximum.reduceat(values, starts),
    )


def timed_begin_s(launch: Launch) -> float:
    """Begin of the timed part in seconds after `created`: after library, load, reset, first and warm-up."""
    before_ns = launch.library_ns + launch.load_ns + launch.reset_ns + launch.first_ns + sum(launch.warmup_ns)
    return launch.started_s + before_ns / 1e9


def timeline(record: Record, words: str, width_px: int) -> Figure:
    """Latency of every timed call, temperatures, clocks and throttling over the time of the run."""
    temperatures, clocks = temperature_curves(record.readings), clock_curves(record.readings)
    rows = [curves for curves in (temperatures, clocks) if curves]
    latency_px, row_px = (230, 118) if width_px > NARROW_PX else (200, 110)
    figure = canvas(width_px, 20 + latency_px + len(rows) * row_px + 44)
    watermark(figure, words, size=22 if width_px == NARROW_PX else 44)
    axes = place(figure, 48, 14, 20, 20 + latency_px)
    _latency(axes, record, width_px)
    panels = [axes]
    for index, (curves, label) in enumerate([(temperatures, "°C"), (clocks, "GHz")]):
        if curves:
            top = 20 + latency_px + (len(panels) - 1) * row_px
            panel = place(figure, 48, 14, top + 28, top + row_px)
            _curves(panel, curves, label, steps=index == 1)
            panels.append(panel)
    _share_time(panels, record)
    return figure


def _share_time(panels: list[Axes], record: Record) -> None:
    begin = min([timed_begin_s(record.launches[0]), *(reading.time_s for reading in record.readings)])
    end = _end_s(record)
    margin = max(end - begin, 1e-3) * 0.008
    for panel in panels:
        panel.set_xlim(begin - margin, end + margin)
        panel.tick_params(labelbottom=panel is panels[-1])
        panel.grid()
    panels[-1].set_xlabel("time since the run began, s")
    for from_s, until_s, status in throttled(record):
        panels[0].axvspan(from_s, until_s, color=ORANGE, alpha=min(0.5, 0.08 * status), lw=0, zorder=0)


def _end_s(record: Record) -> float:
    """When the last call began or the last reading was taken."""
    calls = [timed_begin_s(launch) + launch.samples.start_ns[-1] / 1e9 for launch in record.launches]
    return max([*calls, *(reading.time_s for reading in record.readings)])


def _latency(axes: Axes, record: Record, width_px: int) -> None:
    everything = np.concatenate([samples_ms(launch) for launch in record.launches])
    if everything.max() > 4 * np.median(everything):
        plain_log(axes, "y", dense=everything.max() < 60 * np.median(everything))
    period = period_ms(record)
    for number, launch in enumerate(record.launches, start=1):
        start_s = np.asarray(launch.samples.start_ns, dtype=np.float64) / 1e9
        _launch(axes, timed_begin_s(launch) + start_s, samples_ms(launch), _points(record, launch, width_px))
        if period is not None:
            late = misses_ms(launch, period) > 0
            worst = (
                thin(timed_begin_s(launch) + start_s[late], samples_ms(launch)[late], width_px) if late.any() else None
            )
            if worst is not None:
                dots(axes, worst.time_s, worst.high, ALARM, 4.5)
        if 1 < len(record.launches) <= 12:
            axes.annotate(
                f"launch {number}" if width_px > NARROW_PX else str(number),
                (timed_begin_s(launch), 1), xytext=(0, 4), xycoords=("data", "axes fraction"),
                textcoords="offset points", fontsize=9.5, color=MUTED,
            )  # fmt: skip
    if (shown := shown_period_ms(record)) is not None:
        axes.axhline(shown, color=ALARM, lw=1, ls=(0, (4, 2)))
    axes.set_ylabel("inference, ms")


def shown_period_ms(record: Record) -> float | None:
    """The period of a paced run where calls came near it; farther off it would only press them together."""
    period = period_ms(record)
    slowest = max(float(samples_ms(launch).max()) for launch in record.launches)
    return period if period is not None and slowest >= NEAR_PERIOD * period else None


def _points(record: Record, launch: Launch, width_px: int) -> int:
    """Points of a launch's curve: its share of the timed part of the run, at least a few."""
    total_ns = sum(other.samples.start_ns[-1] for other in record.launches)
    share = launch.samples.start_ns[-1] / total_ns if total_ns else 1.0
    return max(8, int(width_px * share * POINTS_PER_PX))


def is_thinned(record: Record, launch: Launch, width_px: int) -> bool:
    """Whether calls of the launch are too many to be drawn as a point each."""
    return len(launch.samples.start_ns) > _points(record, launch, width_px) * DOTS_PER_POINT


def _launch(axes: Axes, time_s: Floats, values: Floats, points: int) -> None:
    if values.size <= points * DOTS_PER_POINT:
        dots(axes, time_s, values, BLUE, 2.0, 0.7)
        return
    thinned = thin(time_s, values, points)
    axes.fill_between(thinned.time_s, thinned.low, thinned.high, color=BLUE, alpha=0.35, lw=0.4)
    axes.plot(thinned.time_s, thinned.middle, color=INK, lw=1.2)


def temperature_curves(readings: Iterable[Reading]) -> dict[str, tuple[Floats, Floats]]:
    """Name to times and degrees Celsius: the battery, then the sensors in the order of their rise."""
    taken = list(readings)
    sensors = _series(taken, lambda reading: reading.temperatures_c)
    ranked = sorted(sensors, key=lambda name: (-float(np.ptp(sensors[name][1])), name))
    battery = _series(taken, lambda reading: {} if reading.battery_c is None else {"battery": reading.battery_c})
    return {**battery, **{name: sensors[name] for name in ranked[: SENSORS - len(battery)]}}


def clock_curves(readings: Iterable[Reading]) -> dict[str, tuple[Floats, Floats]]:
    """Name to times and GHz; processors whose clocks were always the same share a curve, `cpu0 to cpu3`."""
    single = _series(list(readings), lambda reading: {name: khz / 1e6 for name, khz in reading.frequencies_khz.items()})
    groups: dict[bytes, list[str]] = {}
    for name, (time_s, ghz) in single.items():
        groups.setdefault(time_s.tobytes() + ghz.tobytes(), []).append(name)
    return {_together(names): single[names[0]] for names in list(groups.values())[:CLOCKS]}


def _together(names: Sequence[str]) -> str:
    """`cpu0 to cpu3`; a host calls its processors by number."""
    said = [f"cpu{name}" if name.isdigit() else name for name in names]
    return said[0] if len(said) == 1 else f"{said[0]} to {said[-1]}"


def _series(
    readings: Iterable[Reading], read: Callable[[Reading], Mapping[str, float]]
) -> dict[str, tuple[Floats, Floats]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for reading in sorted(readings, key=lambda reading: reading.time_s):
        for name, value in read(reading).items():
            found.setdefault(name, []).append((reading.time_s, value))
    return {name: (np.array(pairs)[:, 0], np.array(pairs)[:, 1]) for name, pairs in found.items()}


def _curves(axes: Axes, curves: Mapping[str, tuple[Floats, Floats]], label: str, steps: bool) -> None:
    for (name, (time_s, values)), colour in zip(curves.items(), _COLOURS, strict=False):
        marker = "o" if len(values) < 12 else None
        axes.plot(
            time_s, values, color=colour, marker=marker, ms=3.5, drawstyle="steps-post" if steps else None, label=name
        )
    axes.set_ylabel(label)
    axes.margins(y=0.12)
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 0.98), ncols=len(curves), borderpad=0, handlelength=1.2,
        columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip


def throttled(record: Record) -> list[tuple[float, float, int]]:
    """Begin, end and status of each time in which the system said that it throttled."""
    told = [(r.time_s, r.thermal_status) for r in record.readings if r.thermal_status is not None]
    changes = [pair for before, pair in zip([(0.0, 0), *told], told, strict=False) if pair[1] != before[1]]
    untils = [*(at_s for at_s, _ in changes[1:]), _end_s(record)]
    spans = [(at_s, until_s, status) for (at_s, status), until_s in zip(changes, untils, strict=False)]
    return [span for span in spans if span[2] and span[1] > span[0]]
