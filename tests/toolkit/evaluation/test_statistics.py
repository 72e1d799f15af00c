from __future__ import annotations

import numpy as np
import pytest

from mvtool.evaluation.statistics import paired_drop, share


def test_wilsons_interval() -> None:
    # R: prop.test(x = 81, n = 263, correct = FALSE), and E. B. Wilson's formula by hand for the ends.
    assert share(81, 263) == pytest.approx((0.30798, 0.25527, 0.36619), abs=1e-4)
    assert share(0, 10) == pytest.approx((0.0, 0.0, 0.27753), abs=1e-4)
    assert share(10, 10) == pytest.approx((1.0, 0.72247, 1.0), abs=1e-4)


def test_the_paired_interval_ignores_what_both_sides_agree_on() -> None:
    few, many = paired_drop(30, 20, 1000), paired_drop(30, 20, 10000)
    assert few.value == 0.01
    assert many.value == 0.001
    assert few.low < 0 < few.high
    assert many.high - many.low == pytest.approx((few.high - few.low) / 10, rel=0.05)
    worse, better = paired_drop(5, 9, 100), paired_drop(9, 5, 100)
    assert (worse.value, worse.low, worse.high) == pytest.approx((-better.value, -better.high, -better.low))


@pytest.mark.parametrize(("lost", "won"), [(0.02, 0.01), (0.002, 0.002), (0.1, 0.05), (0.0, 0.01)])
def test_paired_coverage(lost: float, won: float) -> None:
    """The 95 % interval holds the true difference in about 95 of 100 evaluations of 2,000 clips."""
    draws = np.random.default_rng(0).multinomial(2000, (lost, won, 1 - lost - won), size=4000)
    intervals = [paired_drop(int(a), int(b), 2000) for a, b, _ in draws]
    covered = np.mean([i.low <= lost - won <= i.high for i in intervals])
    assert 0.935 <= covered <= 0.995


@pytest.mark.parametrize("truth", [0.5, 0.9, 0.99])
def test_coverage_of_a_share(truth: float) -> None:
    draws = np.random.default_rng(0).binomial(500, truth, size=4000)
    covered = np.mean([share(int(n), 500).low <= truth <= share(int(n), 500).high for n in draws])
    assert 0.935 <= covered <= 0.975
