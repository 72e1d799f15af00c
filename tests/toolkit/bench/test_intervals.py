from __future__ import annotations

import math

import numpy as np
import pytest
from bench_records import CALM, NOISIEST, SILENT, Noise, latencies

from mvtool.bench.intervals import Estimate, median_interval, paired_difference, student_quantile, unpaired_difference

# From the tables of Student's distribution.
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 30: 2.042, 120: 1.980}


@pytest.mark.parametrize("freedom", TABLE)
def test_student_quantiles_are_those_of_the_table(freedom: int) -> None:
    assert student_quantile(freedom) == pytest.approx(TABLE[freedom], abs=6e-4)


def test_student_quantile_of_many_degrees_is_that_of_the_normal_distribution() -> None:
    assert student_quantile(1e6) == pytest.approx(1.95996, abs=1e-3)


def test_welch_by_hand() -> None:
    # Means 2 and 6; variances 1 and 4, of 3 observations each: error sqrt(1/3 + 4/3), freedom (5/3)^2 / (1/18 + 16/18) = 50/17.
    found = unpaired_difference(np.array([1.0, 2.0, 3.0]), np.array([4.0, 6.0, 8.0]))
    assert found is not None
    half = student_quantile(50 / 17) * math.sqrt(5 / 3)
    assert (found.value, found.low, found.high) == pytest.approx((4.0, 4.0 - half, 4.0 + half))
    assert half == pytest.approx(4.15, abs=0.02)


def test_pairs_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), 2 degrees of freedom.
    found = paired_difference(np.array([10.0, 20.0, 30.0]), np.array([11.0, 22.0, 33.0]))
    assert found is not None
    assert (found.value, found.low) == pytest.approx((2.0, 2.0 - 4.3027 / math.sqrt(3)), abs=1e-4)


def test_one_observation_has_no_interval() -> None:
    one, two = np.array([1.0]), np.array([1.0, 2.0])
    assert unpaired_difference(one, two) is None
    assert unpaired_difference(two, one) is None
    assert paired_difference(one, one) is None


def test_observations_that_do_not_differ() -> None:
    same = np.array([3.0, 3.0])
    assert unpaired_difference(same, same + 1) == Estimate(1.0, 1.0, 1.0)


def test_median_interval_is_the_same_for_the_same_seed() -> None:
    launches = list(latencies(CALM)[0])
    assert median_interval(launches, seed=3) == median_interval(launches, seed=3)
    assert median_interval(launches, seed=3) != median_interval(launches, seed=4)


def test_median_interval_holds_the_median() -> None:
    launches = list(latencies(NOISIEST)[0])
    found = median_interval(launches)
    assert found.value == np.median(np.concatenate(launches))
    assert found.low < found.value < found.high


@pytest.mark.parametrize("launches", [[np.full(5, 7.0)], [np.full(5, 7.0)] * 4, [np.array([7.0])]])
def test_samples_that_do_not_differ_have_no_spread(launches: list[np.ndarray]) -> None:
    found = median_interval(launches)
    assert (found.value, found.low, found.high) == pytest.approx((7.0, 7.0, 7.0))


def test_samples_of_zero_are_taken() -> None:
    found = median_interval([np.array([0.0, 0.0, 1.0]), np.array([0.0, 2.0, 0.0])])
    assert found.value == 0.0
    assert 0.0 <= found.low <= found.high


def test_the_interval_knows_that_launches_differ() -> None:
    quiet, split = Noise(jitter_std=0.01), Noise(jitter_std=0.01, launch_std=0.05)
    widths = [found.high - found.low for found in (median_interval(list(latencies(n)[0])) for n in (quiet, split))]
    assert widths[1] > 10 * widths[0]


def test_the_interval_knows_that_neighbours_are_alike() -> None:
    # One launch each: the same spread of samples, once independent and once in long waves.
    independent = Noise(jitter_std=0.02)
    waves = Noise(drift_std=0.02, drift_correlation=0.98)
    widths = [
        found.high - found.low
        for found in (median_interval(list(latencies(n, launches=1, invokes=2000)[0])) for n in (independent, waves))
    ]
    assert widths[1] > 3 * widths[0]


@pytest.mark.parametrize(("noise", "launches"), [(CALM, 6), (NOISIEST, 3)])
def test_95_percent_of_the_intervals_hold_the_true_median(noise: Noise, launches: int) -> None:
    true = np.median(latencies(noise, launches=200, trials=10, seed=99))
    trials = latencies(noise, launches=launches, trials=60, seed=1)
    found = [median_interval(list(trial)) for trial in trials]
    held = np.mean([one.low <= true <= one.high for one in found])
    # Three standard errors of 60 trials at 95 %.
    assert held >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 60)
    # An interval that holds everything would be no use: its half width is about that of Student's for these launches.
    half = np.mean([one.high - one.low for one in found]) / 2 / true
    spread = np.median(trials, axis=2).std(axis=1, ddof=1).mean() / true
    assert half < 1.5 * student_quantile(launches - 1) * spread / math.sqrt(launches)


def test_a_long_run_is_cut_into_few_blocks() -> None:
    # 400,000 samples; the matrix of resamples does not grow with them.
    (one,) = latencies(SILENT, launches=1, invokes=8)[0]
    samples = np.tile(one, 50_000) * np.linspace(1, 1.01, 400_000)
    found = median_interval([samples])
    assert found.low <= np.median(samples) <= found.high


@pytest.mark.parametrize("levels", [(1.0, 1.3), (1.0, 40.0), (1.0, 1e6)])
def test_the_interval_of_two_launches_stays_within_the_samples(levels: tuple[float, float]) -> None:
    launches = [level * np.linspace(9.9, 10.1, 50) for level in levels]
    found = median_interval(launches)
    assert (found.low, found.high) == pytest.approx((9.9, 10.1 * levels[1]))
