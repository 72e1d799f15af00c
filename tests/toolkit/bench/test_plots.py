from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import bench_records
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from mvtool.bench import plots, report, report_overview
from mvtool.bench.intervals import Estimate
from mvtool.bench.record import Record, Roofline
from mvtool.bench.report_document import heaviest
from mvtool.bench.statistics import summarise
from mvtool.ports import Precision, Runtime

PEAKS = Roofline(macs_per_second={Precision.FP32: 20e9, Precision.INT8: 60e9}, bytes_per_second=10e9, method="product")


def entries(*records: Record) -> tuple[report.Entry, ...]:
    return report.assemble([(Path("a.json"), record, False) for record in records]).entries


def along(line: Line2D) -> tuple[list[float], list[float]]:
    """Places and values of a line."""
    return np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()


def heights(axes: Axes) -> list[float]:
    """Of the bars."""
    return [bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle)]


def test_the_axis_shows_all_unless_the_tail_is_far() -> None:
    low, high = plots.axis_range(np.linspace(10.0, 12.0, 1000))
    assert low < 10.0
    assert high > 12.0
    assert plots.beyond(np.linspace(10.0, 12.0, 1000)) == 0


def test_a_far_tail_is_counted_not_shown() -> None:
    samples = np.concatenate([np.linspace(10.0, 12.0, 1000), [50.0, 90.0]])
    assert plots.axis_range(samples)[1] < 13.0
    assert plots.beyond(samples) == 2


def test_equal_samples_have_an_axis() -> None:
    low, high = plots.axis_range(np.full(3, 5.0))
    assert low < 5.0 < high


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ((1.0, 4.0, 7.0), [0, 0, 0]),
        ((1.0, 2.0, 3.0), [0, 1, 2]),
        ((1.0, 3.0, 9.0), [0, 1, 0]),
        ((1.0, 3.0, 4.0), [0, 1, 0]),
    ],
)
def test_labels_that_would_run_into_each_other_take_another_line(values: tuple[float, ...], lines: list[int]) -> None:
    assert plots.levels(values, (0.0, 10.0)) == lines


def test_a_label_at_the_right_end_reads_leftwards() -> None:
    # The last ends at its own line, 9.5, and so begins left of the end of the first, at 7.
    assert plots.levels((6.5, 9.5), (0.0, 10.0)) == [0, 1]


@pytest.mark.parametrize("launches", [1, 30])
def test_every_launch_up_to_twelve_has_a_strip(launches: int) -> None:
    record = bench_records.record(launches=launches, invokes=20)
    figure = plots.distribution(record, summarise(record), "")
    assert len(figure.axes[1].get_yticks()) == min(launches, 12)


def test_the_tail_ends_at_the_slowest_call() -> None:
    record = bench_records.record(launches=2, invokes=50, noise=bench_records.NOISY)
    lines = plots.tail(record, "").axes[0].lines
    assert len(lines) == 3
    assert along(lines[-1])[1][-1] == pytest.approx(summarise(record).max_ms)
    assert along(lines[-1])[0][-1] == pytest.approx(2.0)  # 100 calls: all but 10**-2 are below the slowest


def test_one_call_is_enough_for_every_plot() -> None:
    record = bench_records.record(launches=1, invokes=1)
    summary = summarise(record)
    assert plots.tail(record, "").axes[0].lines
    assert plots.distribution(record, summary, "").axes
    assert plots.memory(record, summary, "").axes


def test_memory_is_of_the_launch_that_needed_most() -> None:
    light, heavy = (bench_records.record(launches=1, peak_bytes=mib * 2**20) for mib in (10, 40))
    record = light.model_copy(update={"launches": (*light.launches, *heavy.launches)})
    assert heaviest(record) is record.launches[1]
    figure = plots.memory(record, summarise(record), "LOOPBACK")
    assert heights(figure.axes[0]) == [2.0, 10.0, 30.0, 50.0, 50.0]
    assert "+40.0 MiB\nover library" in [text.get_text() for text in figure.axes[0].texts]
    assert [text.get_text() for text in figure.texts] == ["LOOPBACK"]


def test_swapped_memory_is_drawn_and_makes_a_lower_bound() -> None:
    record = bench_records.record(launches=1, peak_bytes=20 * 2**20, swap_bytes=5 * 2**20)
    axes = plots.memory(record, summarise(record), "").axes[0]
    assert heights(axes)[5:] == [0.0, 0.0, 0.0, 0.0, 5.0]
    assert any("lower bound" in text.get_text() for text in axes.texts)


def test_the_highest_peak_of_each_precision_and_runtime_is_the_roof() -> None:
    lower = PEAKS.model_copy(update={"macs_per_second": {Precision.FP32: 15e9}})
    found = entries(
        bench_records.record(seed=1, roofline=PEAKS),
        bench_records.record(seed=2, roofline=lower),
        bench_records.record(seed=3, roofline=PEAKS, precision=Precision.INT8),
        bench_records.record(seed=4, roofline=lower, runtime=Runtime.EXECUTORCH),
    )
    assert report_overview.roof_peaks(found) == {
        (Precision.FP32, Runtime.TFLITE): 20.0,
        (Precision.INT8, Runtime.TFLITE): 60.0,
        (Precision.FP32, Runtime.EXECUTORCH): 15.0,
    }


def test_points_stand_under_the_roof_at_their_intensity() -> None:
    (entry,) = entries(bench_records.record(noise=bench_records.SILENT, roofline=PEAKS))
    axes = report_overview.roofline([entry], 460).axes[0]
    roof, point = axes.lines[0], axes.lines[-1]
    # 4 * 10^9 multiply-adds per second at 2.63 per byte; the ridge is at 20 / 10.
    assert along(point)[0][0] == pytest.approx(40e6 / (14.5 * 2**20))
    assert along(point)[1][0] == pytest.approx(4.0)
    assert along(roof)[0][1] == pytest.approx(2.0)
    assert along(roof)[1][1:] == pytest.approx([20.0, 20.0])


def test_a_roof_without_bandwidth_is_flat() -> None:
    flat = PEAKS.model_copy(update={"bytes_per_second": None})
    (entry,) = entries(bench_records.record(roofline=flat))
    assert set(along(report_overview.roofline([entry], 460).axes[0].lines[0])[1]) == {20.0}


def test_latencies_have_a_row_each_and_wide_ranges_a_logarithmic_axis() -> None:
    near = entries(*(bench_records.record(base_ms=ms, seed=int(ms)) for ms in (10.0, 12.0)))
    far = entries(*(bench_records.record(base_ms=ms, seed=int(ms)) for ms in (1.0, 90.0)))
    scales = [report_overview.latencies(found, 460).axes[0].get_xscale() for found in (near, far)]
    assert scales == ["linear", "log"]
    texts = [text.get_text() for text in report_overview.latencies(near, 460).axes[0].texts]
    assert len(texts) == 4
    assert texts[0] == "1  movinet_a0_stream · TFLite fp32 · Intel Xeon E-2288G"


@pytest.mark.parametrize("faster_ms", [9.0, 0.5], ids=["linear", "log"])
def test_the_interval_stays_within_the_axis(faster_ms: float) -> None:
    # Few launches that differ can have an interval far beyond their slowest and their fastest call.
    wide, narrow = entries(bench_records.record(), bench_records.record(base_ms=faster_ms, seed=1))[::-1]
    summary = replace(wide.summary, median_ms=Estimate(10.0, faster_ms / 3, 30.0))
    found = [replace(wide, summary=summary), narrow]
    left, right = report_overview.latencies(found, 460).axes[0].get_xlim()
    for entry in found:
        assert left < entry.summary.median_ms.low
        assert entry.summary.median_ms.high < right


def test_one_launch_has_no_interval_in_any_plot() -> None:
    single, several = (bench_records.record(launches=launches, invokes=50) for launches in (1, 3))
    bars = [len(report_overview.latencies(entries(record), 460).axes[0].lines) for record in (single, several)]
    assert bars[1] == bars[0] + 1
    grounds = [
        sum(isinstance(patch, Rectangle) for patch in plots.distribution(record, summarise(record), "").axes[0].patches)
        for record in (single, several)
    ]
    assert grounds == [0, 1]


@pytest.mark.parametrize("base_ms", [(0.0092, 0.0105), (0.001175, 0.9)], ids=["linear", "log"])
def test_the_labels_of_ticks_are_not_cut(base_ms: tuple[float, float]) -> None:
    # The first tick, 0 or 0.001, stands at the left end of the axis, and half of its label left of it.
    records = [bench_records.record(base_ms=ms, seed=int(1e4 * ms), noise=bench_records.SILENT) for ms in base_ms]
    figure = report_overview.latencies(entries(*records), 460)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels() if label.get_text()]
    left, right = figure.axes[0].get_xlim()
    shown = [box for box, at in zip(boxes, figure.axes[0].get_xticks(), strict=False) if left <= at <= right]
    assert shown
    assert min(box.x0 for box in shown) >= 0


def test_calls_that_took_no_time_are_drawn() -> None:
    idle = bench_records.record(base_ms=0.0, noise=bench_records.SILENT, invokes=5)
    for others in ((), (bench_records.record(seed=1),)):
        assert report_overview.latencies(entries(idle, *others), 460).axes[0].get_xlim()[0] == 0.0
