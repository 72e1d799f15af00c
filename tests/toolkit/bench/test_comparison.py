from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from bench_records import HOPELESS, HOST, MIB, NOISY, PHONE, SILENT, record

from mvtool.bench.comparison import Compared, Comparison, Verdict, compare
from mvtool.bench.intervals import Estimate, student_quantile, unpaired_difference
from mvtool.bench.metrics import METRICS, Kind
from mvtool.bench.record import Moment, Reading, Record
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


def test_a_peak_of_nothing_counts_as_one_page() -> None:
    memory = of(compare([record(peak_bytes=0)], [record(artifact="b")]), "peak_memory")
    assert memory.base == pytest.approx(4096)
    assert (memory.verdict, memory.gated) == (Verdict.LARGER, True)
    assert of(compare([record()], [record(peak_bytes=0, artifact="b")]), "peak_memory").verdict == Verdict.SMALLER


def test_times_of_zero_keep_their_rows() -> None:
    found = compare([levels(10, 10, 10)], [levels(10, 10, 0, artifact="b")])
    median = of(found, "latency_p50")
    assert median.base == pytest.approx(10)
    assert (median.new, median.change) == (0.0, None)
    assert (median.verdict, median.gated, found.inconclusive) == (Verdict.INCONCLUSIVE, True, True)
    assert "the new side has values of 0" in median.reason


def test_a_gated_metric_that_one_side_lacks_is_inconclusive() -> None:
    paced, flat = levels(10, 10, 10, fps=50), levels(10, 10, 10, artifact="b")
    for sides, side in ((([paced], [flat]), "new"), (([flat], [paced]), "base")):
        found = compare(*sides, {"deadline_misses": 1}, ["pacing"])
        missed = of(found, "deadline_misses")
        assert (missed.gated, missed.verdict, found.inconclusive) == (True, Verdict.INCONCLUSIVE, True)
        assert f"the {side} side does not tell it" in missed.reason
        assert (missed.base is None) == (side == "base")


def test_a_threshold_of_a_metric_that_no_side_has_is_refused() -> None:
    flat = levels(10, 10, 10), levels(10, 10, 10, artifact="b")
    with pytest.raises(UsageError, match="--threshold names 'deadline_misses', but no record tells it"):
        compare([flat[0]], [flat[1]], {"deadline_misses": 1})
    emulated = HOST.model_copy(update={"emulated": True})
    sides = [record(device=emulated)], [record(device=emulated, artifact="b")]
    with pytest.raises(UsageError, match="'peak_memory'"):
        compare(*sides, {"peak_memory": 5}, ["loopback"])
    assert not compare(*sides, allow=["loopback"]).worse


def hot(status: int, **settings: Any) -> Record:
    readings = tuple(
        Reading(moment=moment, time_s=i, thermal_status=value)
        for i, (moment, value) in enumerate(((Moment.BEFORE, 0), (Moment.DURING, status), (Moment.AFTER, 0)))
    )
    return record(device=PHONE, readings=readings, **settings)


@pytest.mark.parametrize("status", [3, 4])
def test_a_throttled_phone_is_not_called_slower(status: int) -> None:
    for base, new in ((0, status), (status, 0)):
        found = compare([hot(base)], [hot(new, base_ms=20.0, peak_bytes=60 * MIB, artifact="b", seed=1)])
        times = [one for one in found.metrics if one.metric.kind == Kind.TIME]
        assert {one.verdict for one in times} == {Verdict.INCONCLUSIVE}
        assert all(f"throttled (thermal status {status}" in one.reason for one in times)
        assert of(found, "latency_p50").change is not None
        # Memory does not depend on clocks.
        assert of(found, "peak_memory").verdict == Verdict.LARGER
        side = "New" if new else "Base"
        assert any(note.startswith(f"{side}: The device was throttled") for note in found.notes)


def test_a_warm_phone_is_a_note() -> None:
    found = compare([hot(0)], [hot(2, base_ms=20.0, artifact="b", seed=1)])
    assert of(found, "latency_p50").verdict == Verdict.SLOWER
    assert any(note.startswith("New: The device was throttled: its thermal status rose to 2") for note in found.notes)


def test_what_makes_a_record_doubtful_is_noted_with_its_side() -> None:
    restless = record(noise=HOPELESS, seed=1, artifact="b").model_copy(update={"notes": ("A launch ended early.",)})
    notes = compare([record()], [restless]).notes
    assert any(note.startswith("New: The medians of launches differ") for note in notes)
    assert "New: A launch ended early." in notes
    assert not any(note.startswith("Base: ") for note in notes)
    two = [restless, record(artifact="b", seed=4)]
    notes = compare([record(), record(seed=2)], two).notes
    assert f"New, record {restless.id[:8]}: A launch ended early." in notes


def test_what_one_session_a_side_cannot_see_is_noted() -> None:
    one, other = record(), record(artifact="b", seed=1)
    (note,) = compare([one], [other]).notes
    assert note.startswith("One record of a side cannot see the difference between two sessions; measure in turns")
    (note,) = compare([one, record(seed=2)], [other, record(artifact="b", seed=3)]).notes
    assert note.startswith("With two records a side only a large change can be told")
    three = {name: [record(artifact=name, seed=seed + i) for i in range(3)] for name, seed in (("a", 10), ("b", 20))}
    assert compare(three["a"], three["b"]).notes == ()
    turns = [record(session="s", artifact=name, seed=seed) for name, seed in (("a", 1), ("b", 2))]
    assert compare(turns[:1], turns[1:]).notes == ()


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


def test_two_sessions_a_side_are_two_observations() -> None:
    # Sessions scatter by 5 %, launches of one hardly: 16 launches would call the second pair slower.
    base = [levels(*[level] * 8, seed=k) for k, level in enumerate((9.8, 10.2))]
    new = [levels(*[level] * 8, seed=k, artifact="b") for k, level in enumerate((10.4, 10.9))]
    found = of(compare(base, new), "latency_p50")
    by_hand = unpaired_difference(np.log([9.8, 10.2]), np.log([10.4, 10.9]))
    assert found.change is not None
    assert by_hand is not None
    assert (found.change.low, found.change.high) == pytest.approx((math.exp(by_hand.low), math.exp(by_hand.high)))
    assert found.verdict == Verdict.INCONCLUSIVE


def test_two_sessions_in_turns_are_pairs_of_launches() -> None:
    # Both sides share each session, so its level cancels out.
    base = [levels(*[level] * 8, session=f"s{k}", seed=k) for k, level in enumerate((9, 11))]
    new = [levels(*[1.1 * level] * 8, session=f"s{k}", seed=k, artifact="b") for k, level in enumerate((9, 11))]
    found = compare(base, new)
    assert (found.paired, of(found, "latency_p50").verdict) == (True, Verdict.SLOWER)


def test_launches_of_two_records_against_one_are_taken_together() -> None:
    base = [record(noise=NOISY, seed=k) for k in (1, 2)]
    found = compare(base, [record(noise=NOISY, seed=3, artifact="b")])
    assert of(found, "latency_p50").change is not None
    assert len(found.base) == 2


def test_nothing_to_compare() -> None:
    with pytest.raises(UsageError, match="at least one record on each side"):
        compare([], [record()])
