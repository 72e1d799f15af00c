"""What is derived from a record: percentiles, intervals, throughput, missed deadlines, memory, shares of the roofline.

Nothing here is ever stored. A *percentile* is the value at rank `1 + (n - 1) p / 100` of the n sorted samples, with linear
interpolation between the ranks (definition 7 of Hyndman and Fan, 1996; numpy's default); samples of all launches together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvtool.bench.intervals import Estimate, median_interval
from mvtool.bench.record import Launch, Place, Record, Roofline
from mvtool.bench.stability import Stability, judge

__all__ = ["Deadline", "Estimate", "Stability", "Summary", "launch_peak_bytes", "samples_ms", "summarise", "to_json"]

NS_PER_MS = 1e6
Column = Literal["start_ns", "input_ns", "inference_ns", "state_ns", "output_ns", "late_ns"]
_STEP: tuple[Column, ...] = ("input_ns", "inference_ns", "state_ns", "output_ns")


@dataclass(frozen=True)
class Deadline:
    """How a paced run kept its pace.

    Attributes:
        fps: Video frames per second.
        period_ms: Between the due times of two calls.
        missed: Invokes whose whole step ended later than one period after it was due.
        share: Part of all invokes, 0 to 1.
        worst_late_ms: How long after its deadline the worst of them ended; 0 if none was missed.
    """

    fps: float
    period_ms: float
    missed: int
    share: float
    worst_late_ms: float


@dataclass(frozen=True)
class Summary:
    """Figures of a record; latencies are of the runtime's call alone unless they say `step`.

    Attributes:
        invokes: Timed invokes of all launches.
        seconds: Wall time of the timed parts of all launches.
        launches: Number of launches.
        single_launch: There was one launch, so the interval of the median says nothing of the next launch and is not shown.
        median_ms: Median, with an interval that respects that samples of one launch are not independent.
        mean_ms: Mean.
        std_ms: Standard deviation.
        min_ms: Shortest.
        max_ms: Longest.
        p90_ms: 90th percentile.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        step_median_ms: Median of input, inference, state and output together.
        input_median_ms: Median time of reading a frame into its port.
        state_median_ms: Median time of handing states over.
        output_median_ms: Median time of reading outputs.
        library_ms: Median over launches: opening the runtime library.
        load_ms: Median over launches: loading and compiling the model.
        reset_ms: Median over launches: writing the reset values of all states.
        first_ms: Median over launches: the first invoke.
        calls_per_second: Of the timed wall time.
        frames_per_second: Video frames per second of it.
        deadline: Missed deadlines; None where the run was not paced.
        peak_memory_bytes: Largest over launches of the peak at the end over what was resident with the library open;
            None where instructions were emulated.
        peak_memory_kind: `lower bound` where memory was swapped out, which the peak does not see.
        baseline_bytes: Resident with the library open, in that launch.
        roofline_share: Multiply-adds per second of the median call, as part of the measured peak of its arithmetic.
        attainable_share: The same as part of what the peaks of computing and of memory allow together.
        stability: Whether the figures can be believed.
    """

    invokes: int
    seconds: float
    launches: int
    single_launch: bool
    median_ms: Estimate
    mean_ms: float
    std_ms: float
    min_ms: float
    max_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    step_median_ms: float
    input_median_ms: float
    state_median_ms: float
    output_median_ms: float
    library_ms: float
    load_ms: float
    reset_ms: float
    first_ms: float
    calls_per_second: float
    frames_per_second: float
    deadline: Deadline | None
    peak_memory_bytes: int | None
    peak_memory_kind: Literal["exact", "lower bound"] | None
    baseline_bytes: int | None
    roofline_share: float | None
    attainable_share: float | None
    stability: Stability


def samples_ms(launch: Launch, *columns: Column) -> NDArray[np.float64]:
    """Time of each timed invoke in milliseconds, of all `columns` together; the runtime's call alone without any."""
    taken = [np.asarray(getattr(launch.samples, column), dtype=np.int64) for column in columns or ("inference_ns",)]
    return np.asarray(np.sum(taken, axis=0) / NS_PER_MS, dtype=np.float64)


def step_ms(launch: Launch) -> NDArray[np.float64]:
    """Time of the whole step of each timed invoke in milliseconds: input, inference, state and output."""
    return samples_ms(launch, *_STEP)


def summarise(record: Record) -> Summary:
    """Derive every figure of a record."""
    per_launch = [samples_ms(launch) for launch in record.launches]
    inference = np.concatenate(per_launch)
    median = median_interval(per_launch)
    p90, p95, p99 = (float(p) for p in np.percentile(inference, (90, 95, 99)))
    seconds = sum(_wall_seconds(launch, period_ms(record)) for launch in record.launches)
    calls_per_second = inference.size / seconds
    peak, kind, baseline = _memory(record)
    roofline, attainable = _shares(record, median.value / 1e3)
    return Summary(
        invokes=inference.size,
        seconds=seconds,
        launches=len(record.launches),
        single_launch=len(record.launches) == 1,
        median_ms=median,
        mean_ms=float(inference.mean()),
        std_ms=float(inference.std(ddof=1)) if inference.size > 1 else 0.0,
        min_ms=float(inference.min()),
        max_ms=float(inference.max()),
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        step_median_ms=_median(record, *_STEP),
        input_median_ms=_median(record, "input_ns"),
        state_median_ms=_median(record, "state_ns"),
        output_median_ms=_median(record, "output_ns"),
        library_ms=float(np.median([launch.library_ns for launch in record.launches])) / NS_PER_MS,
        load_ms=float(np.median([launch.load_ns for launch in record.launches])) / NS_PER_MS,
        reset_ms=float(np.median([launch.reset_ns for launch in record.launches])) / NS_PER_MS,
        first_ms=float(np.median([launch.first_ns for launch in record.launches])) / NS_PER_MS,
        calls_per_second=calls_per_second,
        frames_per_second=calls_per_second * record.model.frames_per_call,
        deadline=_deadline(record),
        peak_memory_bytes=peak,
        peak_memory_kind=kind,
        baseline_bytes=baseline,
        roofline_share=roofline,
        attainable_share=attainable,
        stability=judge(record),
    )


def to_json(summary: Summary) -> dict[str, Any]:
    """Plain JSON; keys carry units. The median of a single launch has no interval: its `low` and `high` are null."""
    document = asdict(summary)
    if summary.single_launch:
        document["median_ms"] |= {"low": None, "high": None}
    return document


def _median(record: Record, *columns: Column) -> float:
    return float(np.median(np.concatenate([samples_ms(launch, *columns) for launch in record.launches])))


def _wall_seconds(launch: Launch, period_ms: float | None) -> float:
    """From the begin of the timed part to the end of its last step, of a paced launch to the end of its last period.

    Else n calls would be counted over n - 1 periods and the end of a step, which is more than the pace.
    """
    last = {name: getattr(launch.samples, name)[-1] for name in ("start_ns", *_STEP)}
    step_end, period_end = sum(last.values()), last["start_ns"] + (period_ms or 0.0) * NS_PER_MS
    return float(max(step_end, period_end, 1)) / 1e9


def misses_ms(launch: Launch, period_ms: float) -> NDArray[np.float64]:
    """How long after its deadline each step of a paced launch ended, in milliseconds; negative where it was in time."""
    return samples_ms(launch, "late_ns", *_STEP) - period_ms


def period_ms(record: Record) -> float | None:
    """Milliseconds between the due times of two calls; None where the run was not paced."""
    if record.options.fps is None or not all(launch.samples.late_ns for launch in record.launches):
        return None
    return 1e3 * record.model.frames_per_call / record.options.fps


def _deadline(record: Record) -> Deadline | None:
    period = period_ms(record)
    if period is None or record.options.fps is None:
        return None
    over = np.concatenate([misses_ms(launch, period) for launch in record.launches])
    missed = int((over > 0).sum())
    return Deadline(record.options.fps, period, missed, missed / over.size, max(0.0, float(over.max())))


def launch_peak_bytes(launch: Launch) -> tuple[int, bool]:
    """Peak memory over the baseline of one launch, and whether something was swapped out, which it does not see."""
    marks = {mark.at: mark for mark in launch.memory}
    delta = marks[Place.END].vm_hwm_bytes - marks[Place.LIBRARY].vm_rss_bytes
    return delta, any(mark.vm_swap_bytes for mark in launch.memory)


def _memory(record: Record) -> tuple[int | None, Literal["exact", "lower bound"] | None, int | None]:
    if record.device.emulated:
        return None, None, None
    peaks = [launch_peak_bytes(launch) for launch in record.launches]
    worst = max(range(len(peaks)), key=lambda i: peaks[i][0])
    baseline = next(mark for mark in record.launches[worst].memory if mark.at == Place.LIBRARY).vm_rss_bytes
    return peaks[worst][0], "lower bound" if any(swapped for _, swapped in peaks) else "exact", baseline


def _shares(record: Record, median_s: float) -> tuple[float | None, float | None]:
    """Parts of the roofline and of the attainable bound."""
    roofline, macs = record.roofline, record.model.macs
    peak = None if roofline is None else roofline.macs_per_second.get(record.artifact.precision.arithmetic)
    if roofline is None or not macs or not peak or not median_s:
        return None, None
    achieved = macs / median_s
    attainable = _attainable_macs_per_second(record, roofline, macs, peak)
    return achieved / peak, None if attainable is None else achieved / attainable


def _attainable_macs_per_second(record: Record, roofline: Roofline, macs: int, peak: float) -> float | None:
    """The smaller of the peak and of what the memory can feed: weights once, states in and out, other ports once."""
    if not roofline.bytes_per_second:
        return None
    moved = record.artifact.bytes + 2 * record.artifact.state_bytes + record.artifact.port_bytes
    return min(peak, roofline.bytes_per_second * macs / moved)
