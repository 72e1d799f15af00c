"""Error, step distance and signal to noise on numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mvtool.verification.bounds import StepDistance, relative_error, snr_db, step_distance


def test_relative_error_divides_by_the_largest_reference() -> None:
    # |1.5 - 1| = 0.5 over max|-4| = 4
    assert relative_error(np.array([1.5, -4.0]), np.array([1.0, -4.0])) == pytest.approx(0.125)


def test_relative_error_has_a_floor_of_a_thousandth() -> None:
    assert relative_error(np.array([1e-5]), np.array([0.0])) == pytest.approx(1e-2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_infinitely_wrong(bad: float) -> None:
    assert relative_error(np.array([bad, 1.0]), np.array([1.0, 1.0])) == math.inf
    assert step_distance(np.array([bad, 1.0]), np.array([1.0, 1.0]), 0.5) == StepDistance(0.5, math.inf)
    assert snr_db(np.array([bad, 1.0]), np.array([1.0, 1.0])) == -200.0


def test_other_shapes_are_an_error_and_not_broadcast() -> None:
    for measure in (relative_error, snr_db, lambda a, b: step_distance(a, b, 1.0)):
        with pytest.raises(ValueError, match="shape"):
            measure(np.zeros(3), np.zeros((1, 3)))


def test_step_distance_counts_what_is_beyond_two_steps() -> None:
    actual = np.zeros(100)
    actual[:4] = [50.0, 1.5, 1.0, -0.5]  # 100, 3, 2 and 1 steps of 0.5
    found = step_distance(actual, np.zeros(100), 0.5)
    assert found.beyond == pytest.approx(0.02)
    assert found.mean == 1.06


def test_step_distance_lets_float16_lie_beside_the_grid() -> None:
    assert step_distance(np.array([2.1]), np.zeros(1), 1.0).beyond == 0.0
    assert step_distance(np.array([2.2]), np.zeros(1), 1.0).beyond == 1.0


def test_snr_of_a_tenth_is_twenty_decibels() -> None:
    assert snr_db(np.array([1.1, -2.2]), np.array([1.0, -2.0])) == pytest.approx(20.0)
    assert snr_db(np.array([1.0]), np.array([1.0])) == 200.0
    assert snr_db(np.array([1.0]), np.array([0.0])) == -200.0
