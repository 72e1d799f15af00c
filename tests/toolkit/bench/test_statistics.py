from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from bench_records import HOST, MIB, NOISY, SILENT, record, record_of

from mvtool.bench.record import Launch, MemoryMark, Place, Record, Roofline, Samples
from mvtool.bench.statistics import summarise, to_json
from mvtool.ports import Precision


def with_samples(found: Record, **columns: tuple[int, ...]) -> Record:
    """The record with one launch of the given columns; the others are 0."""
    count = len(next(iter(columns.values())))
    names = ("start_ns", "input_ns", "inference_ns", "state_ns", "output_ns")
    samples = Samples(**{name: columns.get(name, (0,) * count) for name in names}, late_ns=columns.get("late_ns", ()))
    return found.model_copy(update={"launches": (found.launches[0].model_copy(update={"samples": samples}),)})


def with_launches(found: Record, **fields: tuple[Any, ...]) -> Record:
    """The record with fields of its launches replaced, one value per launch."""
    launches = [
        launch.model_copy(update={name: values[i] for name, values in fields.items()})
        for i, launch in enumerate(found.launches)
    ]
    return found.model_copy(update={"launches": tuple(launches)})


def marks(hwm: int, library: int, swap: int = 0) -> tuple[MemoryMark, ...]:
    return tuple(
        MemoryMark(at=at, vm_hwm_bytes=hwm, vm_rss_bytes=library if at == Place.LIBRARY else hwm, vm_swap_bytes=swap)
        for at in Place
    )


def test_percentiles_by_hand() -> None:
    # 1 to 11 ms: rank 1 + 10 p / 100, so p90 is the 10th value, p95 lies half way to the 11th, p99 at rank 10.9.
    found = summarise(record_of(np.arange(1.0, 12.0)[None, ::-1]))
    assert found.median_ms.value == 6.0
    assert (found.p90_ms, found.p95_ms, found.p99_ms) == pytest.approx((10.0, 10.5, 10.9))
    assert (found.min_ms, found.max_ms, found.mean_ms) == pytest.approx((1.0, 11.0, 6.0))
    assert found.std_ms == pytest.approx(11**0.5)


def test_percentiles_are_of_all_launches_together() -> None:
    found = summarise(record_of(np.array([[1.0, 2.0], [3.0, 100.0]])))
    assert (found.invokes, found.launches, found.median_ms.value) == (4, 2, 2.5)


def test_one_sample() -> None:
    found = summarise(record_of(np.array([[4.0]])))
    assert (found.median_ms.value, found.p99_ms, found.std_ms) == (4.0, 4.0, 0.0)


def test_throughput_by_hand() -> None:
    # The second of two calls starts at 30 ms and its step lasts 1 + 18 + 0.7 + 0.3 = 20 ms: 2 calls of 8 frames in 50 ms.
    found = with_samples(
        record(frames_per_call=8),
        start_ns=(0, 30_000_000),
        input_ns=(1_000_000,) * 2,
        inference_ns=(28_000_000, 18_000_000),
        state_ns=(700_000,) * 2,
        output_ns=(300_000,) * 2,
    )
    derived = summarise(found)
    assert derived.seconds == pytest.approx(0.05)
    assert (derived.calls_per_second, derived.frames_per_second) == pytest.approx((40.0, 320.0))
    assert derived.step_median_ms == pytest.approx(25.0)
    assert (derived.input_median_ms, derived.state_median_ms, derived.output_median_ms) == pytest.approx(
        (1.0, 0.7, 0.3)
    )


def test_times_of_a_launch_are_medians_over_launches() -> None:
    found = with_launches(
        record(launches=3, noise=SILENT),
        library_ns=(1_000_000, 2_000_000, 9_000_000),
        load_ns=(50_000_000, 40_000_000, 41_000_000),
        reset_ns=(10_000, 30_000, 20_000),
        first_ns=(7_000_000, 5_000_000, 6_000_000),
    )
    derived = summarise(found)
    assert (derived.library_ms, derived.load_ms, derived.reset_ms, derived.first_ms) == (2.0, 41.0, 0.02, 6.0)


def test_missed_deadlines_by_hand() -> None:
    # 4 frames a call at 100 fps: a period of 40 ms. Late + step: 40 (in time), 41, 30 + 25 = 55, 39.
    found = with_samples(
        record(fps=100, frames_per_call=4),
        start_ns=(0, 40_000_000, 110_000_000, 135_000_000),
        inference_ns=(30_000_000, 31_000_000, 15_000_000, 20_000_000),
        output_ns=(10_000_000,) * 4,
        late_ns=(0, 0, 30_000_000, 9_000_000),
    )
    deadline = summarise(found).deadline
    assert deadline is not None
    assert (deadline.fps, deadline.period_ms, deadline.missed, deadline.share) == (100.0, 40.0, 2, 0.5)
    assert deadline.worst_late_ms == pytest.approx(15.0)


def test_no_deadline_without_pace() -> None:
    assert summarise(record()).deadline is None


def test_in_time_is_never_late() -> None:
    deadline = summarise(record(fps=30, base_ms=10, noise=SILENT)).deadline
    assert deadline is not None
    assert (deadline.missed, deadline.share, deadline.worst_late_ms) == (0, 0.0, 0.0)


def test_peak_memory_is_that_of_the_worst_launch_over_its_own_baseline() -> None:
    found = with_launches(record(launches=2), memory=(marks(50 * MIB, 10 * MIB), marks(52 * MIB, 13 * MIB)))
    derived = summarise(found)
    assert (derived.peak_memory_bytes, derived.baseline_bytes) == (40 * MIB, 10 * MIB)
    assert derived.peak_memory_kind == "exact"


def test_swapped_memory_makes_the_peak_a_lower_bound() -> None:
    found = with_launches(record(launches=2), memory=(marks(50 * MIB, 10 * MIB), marks(40 * MIB, 10 * MIB, swap=4096)))
    assert summarise(found).peak_memory_kind == "lower bound"


def test_emulated_memory_is_none() -> None:
    derived = summarise(record(device=HOST.model_copy(update={"emulated": True})))
    assert (derived.peak_memory_bytes, derived.peak_memory_kind, derived.baseline_bytes) == (None, None, None)


def test_shares_of_the_roofline_by_hand() -> None:
    # 40 M multiply-adds in 10 ms are 4 G/s, a tenth of the peak. Bytes: 12 + 2 + 0.5 MiB per call; at 1.45 GiB/s memory
    # allows 102.4 calls a second, 4.096 G multiply-adds.
    peaks = Roofline(macs_per_second={Precision.FP32: 4e10}, bytes_per_second=14.5 * MIB * 102.4, method="matmul")
    derived = summarise(record(noise=SILENT, roofline=peaks))
    assert derived.roofline_share == pytest.approx(0.1)
    assert derived.attainable_share == pytest.approx(4.0 / 4.096)


def test_where_computing_is_the_bound_both_shares_agree() -> None:
    peaks = Roofline(macs_per_second={Precision.FP32: 4e10}, bytes_per_second=1e15, method="matmul")
    derived = summarise(record(noise=SILENT, roofline=peaks))
    assert derived.attainable_share == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("roofline", "macs"),
    [
        (None, 1000),
        (Roofline(macs_per_second={Precision.INT8: 1e9}, method="matmul"), 1000),
        (Roofline(macs_per_second={Precision.FP32: 1e9}, method="matmul"), None),
    ],
)
def test_no_share_without_a_peak_of_that_precision_or_macs(roofline: Roofline | None, macs: int | None) -> None:
    found = record(roofline=roofline)
    found = found.model_copy(update={"model": found.model.model_copy(update={"macs": macs})})
    assert (summarise(found).roofline_share, summarise(found).attainable_share) == (None, None)


def test_no_attainable_share_without_bandwidth() -> None:
    derived = summarise(record(roofline=Roofline(macs_per_second={Precision.FP32: 1e12}, method="matmul")))
    assert derived.roofline_share is not None
    assert derived.attainable_share is None


@pytest.mark.parametrize(("fps", "frames_per_call"), [(30, 1), (100, 4)])
def test_throughput_of_a_paced_run_is_its_pace(fps: float, frames_per_call: int) -> None:
    # 60 calls take 60 periods, though the last step ends early in the last one.
    found = record(fps=fps, frames_per_call=frames_per_call, base_ms=5, invokes=60, noise=SILENT, launches=2)
    derived = summarise(found)
    assert derived.frames_per_second == pytest.approx(fps, rel=1e-6)
    assert derived.seconds == pytest.approx(2 * 60 * frames_per_call / fps)


def test_throughput_of_a_paced_run_that_cannot_keep_up_is_its_own() -> None:
    derived = summarise(record(fps=50, base_ms=40 - 0.075, invokes=30, noise=SILENT, launches=1))
    assert derived.frames_per_second == pytest.approx(25.0)


def test_a_single_launch_has_no_interval_to_show() -> None:
    one, two = (summarise(record(launches=launches, noise=NOISY)) for launches in (1, 2))
    assert (one.single_launch, two.single_launch) == (True, False)
    assert to_json(one)["median_ms"] == {"value": one.median_ms.value, "low": None, "high": None}
    assert to_json(two)["median_ms"]["low"] == two.median_ms.low


def test_json_is_plain() -> None:
    derived = to_json(summarise(record(fps=30)))
    assert json.loads(json.dumps(derived, allow_nan=False))["median_ms"].keys() == {"value", "low", "high"}
    assert derived["deadline"]["period_ms"] == pytest.approx(1000 / 30)
    assert list(derived["stability"]) == ["stable", "reasons", "hints"]


def test_warm_ups_and_the_first_invoke_are_not_among_the_samples() -> None:
    found: Launch = record(noise=SILENT).launches[0]
    slow = found.model_copy(update={"warmup_ns": (10**9,) * 3, "first_ns": 10**9})
    assert summarise(record(noise=SILENT).model_copy(update={"launches": (slow,) * 3})).max_ms == 10.0
