from __future__ import annotations

from typing import Any

import bench_records
import numpy as np
import pytest

from mvtool.bench import report_timeline
from mvtool.bench.record import Moment, Reading
from mvtool.bench.report_timeline import thin


def reading(time_s: float, **facts: Any) -> Reading:
    return Reading(moment=Moment.DURING, time_s=time_s, **facts)


def test_few_samples_stay_as_they_are() -> None:
    time_s, values = np.array([0.0, 1.0, 2.0]), np.array([5.0, 7.0, 6.0])
    thinned = thin(time_s, values, 3)
    for column in (thinned.low, thinned.middle, thinned.high):
        np.testing.assert_array_equal(column, values)


def test_each_point_stands_for_an_equal_part_of_the_time() -> None:
    thinned = thin(np.array([0.0, 1.0, 2.0, 3.0, 8.0, 9.0, 10.0]), np.array([4.0, 1.0, 9.0, 2.0, 5.0, 6.0, 7.0]), 2)
    np.testing.assert_array_equal(thinned.time_s, [1.5, 9.0])
    np.testing.assert_array_equal(thinned.low, [1.0, 5.0])
    np.testing.assert_array_equal(thinned.middle, [3.0, 6.0])
    np.testing.assert_array_equal(thinned.high, [9.0, 7.0])


def test_no_extreme_is_lost() -> None:
    values = np.full(400_000, 1.0)
    values[[123_456, 399_999]] = 50.0, 0.25
    thinned = thin(np.arange(400_000) / 1000, values, 800)
    assert thinned.high.size <= 800
    assert thinned.high.max() == 50.0
    assert thinned.low.min() == 0.25
    assert (thinned.high > 1).sum() == 1


def test_calls_at_one_moment_make_one_point() -> None:
    assert thin(np.zeros(5), np.arange(5.0), 2).high.tolist() == [4.0]


def test_timed_calls_begin_after_everything_before_them() -> None:
    launch = bench_records.record(base_ms=10.0, noise=bench_records.SILENT, invokes=4).launches[1]
    # Launched at 10 s; library 3, load 40, reset 0.1, first 20 and three warm-ups of 10 ms.
    assert report_timeline.timed_begin_s(launch) == pytest.approx(10.0931)


def test_processors_of_one_clock_share_a_curve() -> None:
    clocks = [{"0": 400_000, "1": 400_000, "2": 900_000}, {"0": 1_000_000, "1": 1_000_000, "2": 900_000}]
    readings = [reading(float(time_s), frequencies_khz=told) for time_s, told in enumerate(clocks)]
    curves = report_timeline.clock_curves(readings)
    assert {name: values.tolist() for name, (_, values) in curves.items()} == {
        "cpu0 to cpu1": [0.4, 1.0],
        "cpu2": [0.9, 0.9],
    }


def test_the_battery_and_the_sensors_that_rose_most_are_drawn() -> None:
    names = [f"zone{number}" for number in range(9)]
    readings = [
        reading(t, battery_c=30.0, temperatures_c={n: 30 + t * i for i, n in enumerate(names)}) for t in (0.0, 1.0)
    ]
    assert list(report_timeline.temperature_curves(readings)) == ["battery", "zone8", "zone7", "zone6", "zone5"]


def test_panels_are_drawn_only_for_what_was_told() -> None:
    silent = bench_records.record(readings=(reading(0.0),), invokes=5)
    assert len(report_timeline.timeline(silent, "", report_timeline.WIDE_PX).axes) == 1
    told = reading(0.0, temperatures_c={"cpu": 40.0}, frequencies_khz={"cpu0": 1_000_000}, thermal_status=2)
    full = report_timeline.timeline(bench_records.record(readings=(told,), invokes=5), "", report_timeline.WIDE_PX)
    assert [axes.get_ylabel() for axes in full.axes] == ["inference, ms", "°C", "GHz"]
    assert len({axes.get_xlim() for axes in full.axes}) == 1


def test_missed_deadlines_and_the_period_are_marked() -> None:
    paced = bench_records.record(base_ms=12.0, fps=100.0, invokes=20, launches=1)
    flat_out = bench_records.record(base_ms=12.0, invokes=20, launches=1)
    lines = [len(report_timeline.timeline(r, "", report_timeline.WIDE_PX).axes[0].lines) for r in (paced, flat_out)]
    assert lines[0] == lines[1] + 2


def statuses(*told: tuple[float, int | None]) -> list[tuple[float, float, int]]:
    readings = tuple(reading(time_s, thermal_status=status) for time_s, status in told)
    return report_timeline.throttled(bench_records.record(readings=readings, invokes=2, launches=1, base_ms=1.0))


def test_throttling_begins_with_the_first_reading_that_tells_it() -> None:
    assert statuses((0.0, 0), (5.0, 0), (9.0, 2)) == []
    assert statuses((0.0, None), (5.0, 2), (9.0, 2)) == [(5.0, 9.0, 2)]
    assert statuses((0.0, 1), (4.0, 3), (6.0, 0), (8.0, 0)) == [(0.0, 4.0, 1), (4.0, 6.0, 3)]


def test_a_cool_run_has_no_coloured_ground() -> None:
    def spans(status: int) -> int:
        readings = tuple(reading(time_s, thermal_status=status) for time_s in (0.0, 60.0))
        record = bench_records.record(readings=readings, invokes=5)
        return len(report_timeline.timeline(record, "", report_timeline.WIDE_PX).axes[0].patches)

    assert (spans(0), spans(9)) == (0, 1)


def test_a_period_far_from_every_call_is_not_drawn() -> None:
    def lines(fps: float | None) -> int:
        record = bench_records.record(base_ms=12.0, fps=fps, invokes=20, launches=1, noise=bench_records.SILENT)
        assert (report_timeline.shown_period_ms(record) is None) is (fps != 80.0)
        return len(report_timeline.timeline(record, "", report_timeline.WIDE_PX).axes[0].lines)

    assert (lines(30.0), lines(80.0)) == (lines(None), lines(None) + 1)
