"""Whether the figures of a record can be believed, in words, with what to do; as pyperf prints it.

A *reason* was seen in the samples or readings and makes the figures doubtful; a *hint* names what could disturb. Bounds are chosen so
that a machine left alone passes: there the medians of launches differ by 1 to 3 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mvtool.bench.record import DeviceKind, Moment, Record

LAUNCH_DEVIATION: Final = 0.05
"""Of launch medians. Where it is larger, `compare` misses a change of 10 % in one of five comparisons of 6 launches."""
LONG_TAIL: Final = 2.0
"""p99 over median. The same ratio is a part of ExecuTorch's stability score for phones."""
LONGEST: Final = 10.0
"""Longest invoke over p99."""
DRIFT: Final = 0.05
"""Median of the last quarter of a launch over that of the first."""
WARMING_C: Final = 10.0
MIN_LAUNCHES: Final = 3
MIN_INVOKES: Final = 100
MIN_PACED_INVOKES: Final = 30
"""Of a paced run, whose number of invokes follows from its pace: three seconds at 10 calls a second."""
SEVERE: Final = 3
"""Android's thermal status from which the system takes clocks away that a user notices (`THERMAL_STATUS_SEVERE`)."""
FASTEST_PERCENT: Final = 5
"""Percentile that stands for the fastest invokes: one call, such as the first after a flat-out warm-up, is no reason."""
P99_INVOKES: Final = 1000
"""So that ten samples lie above the 99th percentile."""
SHORTEST_MS: Final = 0.01
"""200 ticks of a phone's clock of 19.2 MHz, or 0.5 % for one tick."""

Check = Callable[[Record, Sequence[NDArray[np.float64]]], Iterator[str]]


@dataclass(frozen=True)
class Stability:
    """The verdict.

    Attributes:
        stable: There is no reason against it.
        reasons: What makes the figures doubtful and what to do about it, one or two sentences each.
        hints: What could disturb, or is not known.
    """

    stable: bool
    reasons: tuple[str, ...]
    hints: tuple[str, ...] = ()


def judge(record: Record) -> Stability:
    """Judge a record."""
    launches = [np.asarray(launch.samples.inference_ns, dtype=np.float64) / 1e6 for launch in record.launches]
    reasons = tuple(text for check in _REASONS for text in check(record, launches))
    return Stability(not reasons, reasons, tuple(text for check in _HINTS for text in check(record, launches)))


def thermal_status(record: Record) -> int:
    """The worst throttling status of all readings, 0 (none, or not told) to 6 (shutdown)."""
    return max((reading.thermal_status or 0 for reading in record.readings), default=0)


def _few(record: Record, launches: Sequence[NDArray[np.float64]]) -> Iterator[str]:
    if len(launches) < MIN_LAUNCHES and record.options.profile != "sustained":
        yield (
            f"Only {len(launches)} launch(es): how much launches differ cannot be seen. Use at least {MIN_LAUNCHES} "
            "(--launches), or the default profile."
        )
    least = MIN_INVOKES if record.options.fps is None else MIN_PACED_INVOKES
    if (invokes := sum(launch.size for launch in launches)) < least:
        yield f"Only {invokes} timed invokes; at least {least} are needed. Measure longer, without --quick."


def _launches_differ(record: Record, launches: Sequence[NDArray[np.float64]]) -> Iterator[str]:
    if len(launches) < 2:
        return
    medians = np.array([np.median(launch) for launch in launches])
    deviation = medians.std(ddof=1) / medians.mean() if medians.mean() > 0 else 0.0
    if deviation > LAUNCH_DEVIATION:
        yield (
            f"The medians of launches differ: their standard deviation is {deviation:.0%} of their mean ({medians.min():.3g} to "
            f"{medians.max():.3g} ms). Close other programs, pin the runner to equal cores (--affinity), or use more launches."
        )


def _long_tail(record: Record, launches: Sequence[NDArray[np.float64]]) -> Iterator[str]:
    median, p99, longest = np.percentile(np.concatenate(launches), (50, 99, 100))
    if p99 > LONG_TAIL * median > 0:
        yield (
            f"Long tail: the 99th percentile ({p99:.3g} ms) is {p99 / median:.1f} times the median ({median:.3g} ms). Close other "
            "programs, use fewer threads than cores, and believe the percentiles rather than the mean."
        )
    elif longest > LONGEST * p99 > 0:
        yield (
            f"Outlier: the longest invoke ({longest:.3g} ms) is {longest / p99:.0f} times the 99th percentile ({p99:.3g} ms). "
            "Something interrupted the run; close other programs and run it again if the tail matters."
        )


def _drift(record: Record, launches: Sequence[NDArray[np.float64]]) -> Iterator[str]:
    ratios = []
    for launch in (one for one in launches if one.size >= 8):
        quarter = launch.size // 4
        first, last = np.median(launch[:quarter]), np.median(launch[-quarter:])
        ratios.append(last / first if first > 0 else 1.0)
    change = float(np.median(ratios)) - 1 if ratios else 0.0
    if abs(change) > DRIFT and record.options.profile != "sustained":
        word = "slower" if change > 0 else "faster"
        remedy = (
            "it heats up: let it cool down before each launch (--max-temperature), or look at the sustained mode (--minutes 10)"
            if change > 0
            else "its clock was still rising: use a longer warm-up, or a fixed frequency"
        )
        yield f"Drift: the last quarter of a launch is {abs(change):.0%} {word} than the first; {remedy}."


def _clock(record: Record, launches: Sequence[NDArray[np.float64]]) -> Iterator[str]:
    if (shortest := min(float(np.percentile(launch, FASTEST_PERCENT)) for launch in launches)) < SHORTEST_MS:
        yield (
            f"The shortest invokes ({1e3 * shortest:.3g} us) are near the resolution of the clock. A call of this artifact is too "
            "short to be timed one by one; measure a larger model or more frames per call."
        )


def _throttling(record: Record, launches: Sequence[NDArray[np.float64]]) -> Iterator[str]:
    if (worst := thermal_status(record)) > 0:
        yield (
            f"The device was throttled: its thermal status rose to {worst} (0 is none, 6 is shutdown). Let it cool down, "
            "take it out of its case and off the charger, and use --max-temperature."
        )


def _warming(record: Record, launches: Sequence[NDArray[np.float64]]) -> Iterator[str]:
    before, after = (_hottest(record, moment) for moment in (Moment.BEFORE, Moment.AFTER))
    for name in sorted(before.keys() & after.keys()):
        if after[name] - before[name] > WARMING_C:
            yield f"The sensor {name!r} rose from {before[name]:.1f} to {after[name]:.1f} degrees Celsius during the run."


def _hottest(record: Record, moment: Moment) -> dict[str, float]:
    """Sensor to its highest temperature at a moment."""
    found: dict[str, float] = {}
    for reading in (one for one in record.readings if one.moment == moment):
        for name, value in reading.temperatures_c.items():
            found[name] = max(value, found.get(name, value))
    return found


def _power(record: Record, launches: Sequence[NDArray[np.float64]]) -> Iterator[str]:
    if record.device.kind != DeviceKind.HOST and any(reading.charging for reading in record.readings):
        yield "The device was charging, which heats it. For figures that shall last, measure on battery (adb over Wi-Fi)."


def _governor(record: Record, launches: Sequence[NDArray[np.float64]]) -> Iterator[str]:
    found = {name for reading in record.readings for name in reading.governors.values()}
    if record.device.kind == DeviceKind.HOST and (others := sorted(found - {"performance"})):
        yield (
            f"The frequency governor is {', '.join(others)}; `performance` scatters less "
            "(`sudo cpupower frequency-set -g performance`)."
        )


def _thin_tail(record: Record, launches: Sequence[NDArray[np.float64]]) -> Iterator[str]:
    if (invokes := sum(launch.size for launch in launches)) < P99_INVOKES:
        yield f"The 99th percentile of {invokes} invokes rests on fewer than ten samples."


def _one_launch(record: Record, launches: Sequence[NDArray[np.float64]]) -> Iterator[str]:
    if len(launches) == 1 and record.options.profile == "sustained":
        yield "One launch: its interval does not tell how much the next launch would differ."


_REASONS: tuple[Check, ...] = (_few, _launches_differ, _long_tail, _drift, _clock, _throttling)
_HINTS: tuple[Check, ...] = (_thin_tail, _one_launch, _warming, _power, _governor)
