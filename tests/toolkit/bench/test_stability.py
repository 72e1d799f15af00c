from __future__ import annotations

import numpy as np
import pytest
from bench_records import CALM, HOPELESS, HOST, PHONE, record, record_of
from numpy.typing import NDArray

from mvtool.bench.record import Moment, Reading, Record
from mvtool.bench.stability import judge

LEVEL = np.full((6, 200), 10.0)


def of(latency_ms: NDArray[np.float64], **options: object) -> Record:
    found = record_of(latency_ms)
    return found.model_copy(update={"options": found.options.model_copy(update=options)})


def edited(row: int, column: slice | int, value: float) -> NDArray[np.float64]:
    changed = LEVEL.copy()
    changed[row, column] = value
    return changed


def test_a_machine_left_alone_is_stable() -> None:
    verdict = judge(record(noise=CALM))
    assert (verdict.stable, verdict.reasons, verdict.hints) == (True, (), ())


TAIL = LEVEL.copy()
TAIL[:, ::50] = 25.0
RISING = LEVEL * np.linspace(1, 1.12, 200)


@pytest.mark.parametrize(
    ("latency_ms", "expected"),
    [
        (LEVEL[:2], "Only 2 launch(es)"),
        (LEVEL[:, :10], "Only 60 timed invokes"),
        (LEVEL * np.array([[1], [1], [1], [1.2], [1], [1.1]]), "standard deviation is 8% of their mean (10 to 12 ms)"),
        (TAIL, "the 99th percentile (25 ms) is 2.5 times the median (10 ms)"),
        (edited(3, 7, 130.0), "the longest invoke (130 ms) is 13 times the 99th percentile (10 ms)"),
        (RISING, "the last quarter of a launch is 9% slower than the first; it heats up"),
        (RISING[:, ::-1], "the last quarter of a launch is 8% faster than the first; its clock was still rising"),
        (LEVEL / 2000, "The shortest invokes (5 us) are near the resolution of the clock"),
    ],
)
def test_each_reason_comes_alone_and_in_words(latency_ms: NDArray[np.float64], expected: str) -> None:
    verdict = judge(of(latency_ms))
    assert not verdict.stable
    (reason,) = verdict.reasons
    assert expected in reason


@pytest.mark.parametrize(
    "latency_ms",
    [
        LEVEL * np.array([[1], [1], [1], [1.08], [1], [1.04]]),
        edited(0, 0, 90.0),
        LEVEL * np.linspace(1, 1.05, 200),
        LEVEL / 900,
    ],
)
def test_less_than_the_bounds_is_stable(latency_ms: NDArray[np.float64]) -> None:
    assert judge(of(latency_ms)).reasons == ()


def test_a_sustained_run_is_one_launch_and_may_slow_down() -> None:
    verdict = judge(of(RISING[:1], profile="sustained"))
    assert verdict.stable
    assert verdict.hints[-1].startswith("One launch")


def test_a_restless_machine_is_seen() -> None:
    assert any("medians of launches differ" in reason for reason in judge(record(noise=HOPELESS, seed=1)).reasons)


def test_throttling_is_a_reason() -> None:
    readings = (
        Reading(moment=Moment.BEFORE, time_s=0, thermal_status=0),
        Reading(moment=Moment.DURING, time_s=30, thermal_status=3),
        Reading(moment=Moment.AFTER, time_s=60, thermal_status=1),
    )
    (reason,) = judge(record(device=PHONE, readings=readings)).reasons
    assert "thermal status rose to 3" in reason


def test_charging_warming_and_governors_are_hints() -> None:
    before = Reading(moment=Moment.BEFORE, time_s=0, charging=True, temperatures_c={"CPU": 30.0, "skin": 29.0})
    after = Reading(moment=Moment.AFTER, time_s=60, charging=True, temperatures_c={"CPU": 41.5, "skin": 30.0})
    verdict = judge(record(device=PHONE, readings=(before, after)))
    assert verdict.stable
    warming, power = verdict.hints
    assert "'CPU' rose from 30.0 to 41.5" in warming
    assert "charging" in power


def test_the_governor_is_a_hint_on_a_host_only() -> None:
    readings = (Reading(moment=Moment.BEFORE, time_s=0, governors={"0": "powersave", "1": "performance"}),)
    (hint,) = judge(record(device=HOST, readings=readings)).hints
    assert "governor is powersave" in hint
    assert judge(record(device=PHONE, readings=readings)).hints == ()


def test_few_invokes_give_no_99th_percentile() -> None:
    assert judge(of(LEVEL[:, :100])).hints == ("The 99th percentile of 600 invokes rests on fewer than ten samples.",)


def test_the_quick_profile_at_a_pace_has_enough_invokes() -> None:
    # Three launches of a second at 30 frames per second.
    paced = judge(record(profile="quick", fps=30.0, launches=3, invokes=30))
    assert paced.stable
    assert not judge(record(profile="quick", launches=3, invokes=30)).stable
    (reason,) = judge(record(profile="quick", fps=30.0, launches=3, invokes=9)).reasons
    assert reason.startswith("Only 27 timed invokes; at least 30")


def test_one_short_call_of_a_launch_is_not_the_clock() -> None:
    # The first call after a warm-up that ran flat out.
    samples = LEVEL / 500
    samples[:, 0] = 0.004
    assert judge(of(samples)).stable
