from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from bench_records import MIB, NOISY, SILENT, record

from mvtool.bench.comparison import Compared, Comparison, Verdict, compare
from mvtool.bench.intervals import Estimate, student_quantile
from mvtool.bench.metrics import METRICS, Kind
from mvtool.bench.record import Record
from mvtool.bench.verdict import change, verdict
from mvtool.errors import UsageError


def of(comparison: Comparison, name: str) -> Compared:
    (found,) = [one for one in comparison.metrics if one.metric.name == name]
    return found


def levels(*medians_ms: float, **settings: Any) -> Record:
    """A record whose launches have these latencies without noise."""
    one = record(noise=SILENT, launches=1, invokes=20, **settings)
    launches = [record(noise=SILENT, launches=1, invokes=20, base_ms=ms, **settings).launches[0] for ms in medians_ms]
    return one.model_copy(update={"launches": tuple(launches)})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ((1.08, 1.02, 1.14), "slower"),
        ((1.04, 1.02, 1.06), "inconclusive"),
        ((1.08, 0.99, 1.17), "inconclusive"),
        ((1.05, 1.01, 1.09), "inconclusive"),
        ((0.90, 0.85, 0.96), "faster"),
        ((0.90, 0.80, 1.01), "inconclusive"),
        ((0.97, 0.96, 0.98), "same"),
        ((1.00, 0.95, 1.05), "same"),
        ((1.00, 0.94, 1.05), "inconclusive"),
        ((1.03, 1.01, 1.05), "same"),
    ],
)
def test_verdicts(change: tuple[float, float, float], expected: str) -> None:
    assert verdict(Kind.TIME, Estimate(*change), 0.05) == expected


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        (Kind.SIZE, (1.1, 1.1, 1.1), "larger"),
        (Kind.SIZE, (0.9, 0.9, 0.9), "smaller"),
        (Kind.SHARE, (0.03, 0.01, 0.05), "more"),
        (Kind.SHARE, (-0.03, -0.05, -0.01), "fewer"),
        (Kind.SHARE, (0.0, -0.01, 0.01), "same"),
    ],
)
def test_words_of_sizes_and_shares(kind: Kind, change: tuple[float, float, float], expected: str) -> None:
    assert verdict(kind, Estimate(*change), 0.01) == expected


def test_the_ratio_by_hand() -> None:
    # Logarithms of the base scatter by 0.01, those of the new side not at all: error 0.01 / sqrt(3), 2 degrees of freedom.
    base = [np.array([10 * math.exp(0.01 * k) for k in (-1, 0, 1)])]
    found = change(Kind.TIME, base, [np.full(3, 11.0)])
    assert found is not None
    half = student_quantile(2) * 0.01 / math.sqrt(3)
    assert (found.value, found.low, found.high) == pytest.approx((1.1, 1.1 * math.exp(-half), 1.1 * math.exp(half)))


def test_figures_of_a_comparison() -> None:
    found = compare([levels(10, 10.2, 9.8)], [levels(12, 12.2, 11.8, artifact="b")])
    median = of(found, "latency_p50")
    assert (median.base, median.new) == pytest.approx((10, 12), rel=1e-3)
    assert median.change is not None
    assert median.change.value == pytest.approx(1.2, rel=1e-3)
    assert (median.verdict, median.gated, found.worse, found.inconclusive) == (Verdict.SLOWER, True, True, False)
    assert [one.metric.name for one in found.metrics if one.gated] == ["latency_p50", "latency_p90", "peak_memory"]
    assert of(found, "peak_memory").verdict == Verdict.SAME
    assert {one.metric.name for one in found.metrics} == set(METRICS) - {"deadline_misses"}


def test_what_is_not_gated_does_not_decide_unless_it_is_named() -> None:
    sides = [levels(10, 10, 10)], [levels(10, 10, 10, artifact="b", artifact_bytes=13 * MIB)]
    assert of(compare(*sides), "artifact_size").verdict == Verdict.LARGER
    assert not compare(*sides).worse
    assert compare(*sides, {"artifact_size": 5}).worse
    assert not compare(*sides, {"artifact_size": 10}).worse


def test_a_threshold_bounds_its_metric_alone() -> None:
    sides = [levels(10, 10.01, 9.99)], [levels(10.4, 10.41, 10.39, artifact="b")]
    assert of(compare(*sides), "latency_p50").verdict == Verdict.SAME
    strict = compare(*sides, {"latency_p50": 3})
    assert of(strict, "latency_p50").verdict == Verdict.SLOWER
    assert of(strict, "latency_p90").verdict == Verdict.SAME


@pytest.mark.parametrize("thresholds", [{"latency": 5}, {"latency_p50": 0}, {"latency_p50": 100}, {"first": math.nan}])
def test_thresholds_that_mean_nothing(thresholds: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="--threshold"):
        compare([record()], [record(artifact="b")], thresholds)


def test_memory() -> None:
    sides = [record(peak_bytes=30 * MIB)], [record(peak_bytes=33 * MIB, artifact="b")]
    assert of(compare(*sides), "peak_memory").verdict == Verdict.LARGER
    swapped = [record(peak_bytes=33 * MIB, artifact="b", swap_bytes=4096)]
    lower = of(compare(sides[0], swapped), "peak_memory")
    assert (lower.verdict, compare(sides[0], swapped).inconclusive) == (Verdict.INCONCLUSIVE, True)
    assert "swapped out" in lower.reason


def test_missed_deadlines_are_compared_by_difference() -> None:
    # 10 ms steps at 50 fps are in time; 30 ms steps never are.
    found = compare([levels(10, 10, 10, fps=50)], [levels(30, 30, 30, fps=50, artifact="b")])
    missed = of(found, "deadline_misses")
    assert (missed.base, missed.new, missed.verdict) == (0.0, 1.0, Verdict.MORE)
    assert missed.change == Estimate(1.0, 1.0, 1.0)
    assert not missed.gated


def test_one_launch_is_inconclusive_and_says_why() -> None:
    found = compare([levels(10)], [levels(20, artifact="b")])
    median = of(found, "latency_p50")
    assert (median.change, median.verdict) == (None, Verdict.INCONCLUSIVE)
    assert "one launch does not show" in median.reason


def test_two_launches_have_an_interval_however_wide() -> None:
    median = of(compare([levels(10, 1000)], [levels(20, 1, artifact="b")]), "latency_p50")
    assert median.change is not None
    assert math.isfinite(median.change.high)
    assert median.verdict == Verdict.INCONCLUSIVE


def test_a_metric_of_zeros_is_left_out() -> None:
    assert "peak_memory" not in {one.metric.name for one in compare([record(peak_bytes=0)], [record()]).metrics}


def test_launches_that_took_turns_are_paired() -> None:
    turns = {"noise": SILENT, "invokes": 20}
    base = levels(10, 20, 40, session="s")
    found = compare([base], [levels(11, 22, 44, session="s", artifact="b")])
    assert found.paired
    # Without pairs the launches of one side differ by a factor of 4; in pairs each is 10 % slower.
    assert of(found, "latency_p50").verdict == Verdict.SLOWER
    alone = compare([levels(10, 20, 40)], [levels(11, 22, 44, artifact="b")])
    assert (alone.paired, of(alone, "latency_p50").verdict) == (False, Verdict.INCONCLUSIVE)
    other_session = record(launches=3, session="t", artifact="b", **turns)  # type: ignore[arg-type]
    assert not compare([base], [other_session]).paired
    fewer = record(launches=2, session="s", artifact="b", **turns)  # type: ignore[arg-type]
    assert not compare([base], [fewer]).paired


def test_from_three_records_a_record_is_one_observation() -> None:
    # Launches of a session agree, sessions do not: 18 launches a side would call 6 % sure, 3 sessions cannot.
    base = [levels(*[10 * level] * 6, seed=k) for k, level in enumerate((0.95, 1.0, 1.05))]
    new = [levels(*[10.6 * level] * 6, seed=k, artifact="b") for k, level in enumerate((0.95, 1.0, 1.05))]
    assert of(compare(base, new), "latency_p50").verdict == Verdict.INCONCLUSIVE
    pooled = change(Kind.TIME, [np.repeat([9.5, 10, 10.5], 6)], [np.repeat([10.07, 10.6, 11.13], 6)])
    assert pooled is not None
    assert verdict(Kind.TIME, pooled, 0.05) == Verdict.SLOWER


def test_launches_of_two_records_are_taken_together() -> None:
    base = [record(noise=NOISY, seed=k) for k in (1, 2)]
    found = compare(base, [record(noise=NOISY, seed=3, artifact="b")])
    assert of(found, "latency_p50").change is not None
    assert len(found.base) == 2


def test_nothing_to_compare() -> None:
    with pytest.raises(UsageError, match="at least one record on each side"):
        compare([], [record()])
