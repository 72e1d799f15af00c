"""What two benchmarks are compared by: each metric as one observation per launch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mvtool.bench.record import Launch, Record
from mvtool.bench.statistics import launch_peak_bytes, misses_ms, period_ms, samples_ms, step_ms

Floats = NDArray[np.float64]
PAGE_BYTES: Final = 4096
"""What memory is counted in; a launch whose peak is not above its baseline needed less than one."""


class Kind(StrEnum):
    """What a metric is, which decides the words of its verdict and how it is compared."""

    TIME = "time"
    SIZE = "size"
    SHARE = "share"


@dataclass(frozen=True)
class Metric:
    """A figure of which less is better.

    Attributes:
        name: Key in JSON and in `--threshold`.
        title: For people.
        kind: Times and sizes are compared by their ratio, shares by their difference.
        observe: One value per launch (ms, bytes, or 0 to 1), or a single one where launches cannot differ; None where the
            record does not tell.
        threshold_percent: Smaller changes do not matter; percentage points for shares.
        gated: Whether it decides the exit code.
        repeated: The values are observations; otherwise one exact value.
    """

    name: str
    title: str
    kind: Kind
    observe: Callable[[Record], Floats | None]
    threshold_percent: float = 5.0
    gated: bool = False
    repeated: bool = True


def _per_launch(value: Callable[[Launch], float]) -> Callable[[Record], Floats | None]:
    return lambda record: np.array([value(launch) for launch in record.launches], dtype=np.float64)


def _percentile(percent: float) -> Callable[[Record], Floats | None]:
    return _per_launch(lambda launch: float(np.percentile(samples_ms(launch), percent)))


def _peak_memory(record: Record) -> Floats | None:
    if record.device.emulated:
        return None
    peaks = [max(launch_peak_bytes(launch)[0], PAGE_BYTES) for launch in record.launches]
    return np.array(peaks, dtype=np.float64)


def _missed(record: Record) -> Floats | None:
    period = period_ms(record)
    if period is None:
        return None
    return np.array([(misses_ms(launch, period) > 0).mean() for launch in record.launches], dtype=np.float64)


_ALL = (
    Metric("latency_p50", "latency, median", Kind.TIME, _percentile(50), gated=True),
    Metric("latency_p90", "latency, 90th percentile", Kind.TIME, _percentile(90), gated=True),
    Metric("latency_p99", "latency, 99th percentile", Kind.TIME, _percentile(99)),
    Metric("step_p50", "whole step, median", Kind.TIME, _per_launch(lambda launch: float(np.median(step_ms(launch))))),
    Metric("first", "first invoke", Kind.TIME, _per_launch(lambda launch: launch.first_ns / 1e6)),
    Metric("load", "load", Kind.TIME, _per_launch(lambda launch: launch.load_ns / 1e6)),
    Metric("peak_memory", "peak memory", Kind.SIZE, _peak_memory, gated=True),
    Metric(
        "artifact_size",
        "artifact",
        Kind.SIZE,
        lambda record: np.array([record.artifact.bytes], dtype=np.float64),
        threshold_percent=1.0,
        repeated=False,
    ),
    Metric("deadline_misses", "missed deadlines", Kind.SHARE, _missed, threshold_percent=1.0),
)

METRICS: Final[Mapping[str, Metric]] = {metric.name: metric for metric in _ALL}


def told_by(metric: Metric, records: Sequence[Record]) -> bool:
    """At least one of the records tells the metric."""
    return any(metric.observe(record) is not None for record in records)
