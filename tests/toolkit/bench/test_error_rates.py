"""How often a comparison errs, on simulated machines.

`docs/decisions/011-comparing-benchmarks.md` holds these rates from more trials.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from bench_records import CALM, HOPELESS, NOISIER, NOISIEST, NOISY, Noise, latencies, record
from numpy.typing import NDArray

from mvtool.bench.comparison import Verdict, compare
from mvtool.bench.metrics import METRICS, Kind
from mvtool.bench.profiles import LAUNCHES, MIN_INVOKES
from mvtool.bench.verdict import change, verdict

TRIALS = 200
INVOKES = -(-MIN_INVOKES // LAUNCHES)
"""The fewest that a launch of the default profile has: those of a slow model, whose percentiles are least sure."""
ALARMS = (Verdict.SLOWER, Verdict.FASTER)
Floats = NDArray[np.float64]


def verdicts(base: Floats, new: Floats, percent: float, paired: bool = False) -> list[Verdict]:
    """Verdicts of each trial on a percentile of latencies `(trials, launches, invokes)`."""
    before, after = (np.percentile(side, percent, axis=2) for side in (base, new))
    threshold = METRICS["latency_p50"].threshold_percent / 100
    found = []
    for one, other in zip(before, after, strict=True):
        ratio = change(Kind.TIME, [one], [other], paired)
        assert ratio is not None
        found.append(verdict(Kind.TIME, ratio, threshold))
    return found


def false_alarms(base: Floats, new: Floats, paired: bool = False) -> float:
    """Part of the trials in which the median or the 90th percentile is called slower or faster."""
    both = [verdicts(base, new, percent, paired) for percent in (50, 90)]
    return float(np.mean([any(v in ALARMS for v in trial) for trial in zip(*both, strict=True)]))


def found_slower(base: Floats, new: Floats, paired: bool = False) -> float:
    """Part of the trials in which a median that is really 10 % longer is called slower."""
    return rate(verdicts(base, 1.1 * new, 50, paired), Verdict.SLOWER)


def rate(found: Sequence[Verdict], *wanted: Verdict) -> float:
    return float(np.mean([one in wanted for one in found]))


def drawn(noise: Noise, launches: int, invokes: int) -> tuple[Floats, Floats]:
    """Two independent benchmarks of each trial."""
    return (
        latencies(noise, launches=launches, invokes=invokes, trials=TRIALS, seed=1),
        latencies(noise, launches=launches, invokes=invokes, trials=TRIALS, seed=2),
    )


def interleaved(noise: Noise, launches: int) -> tuple[Floats, Floats]:
    """The same with launches that took turns."""
    return (
        latencies(noise, launches=launches, trials=TRIALS, seed=1, shared_seed=5),
        latencies(noise, launches=launches, trials=TRIALS, seed=2, shared_seed=5),
    )


@pytest.mark.parametrize(
    ("noise", "launches", "invokes", "least_found"),
    [
        (CALM, LAUNCHES, INVOKES, 1.0),
        (NOISY, LAUNCHES, INVOKES, 0.95),
        (NOISIER, LAUNCHES, INVOKES, 0.90),
        # 4 % between launches and slow launches beside it are more than 6 launches can bear.
        (NOISIEST, 6, 171, 0.80),
        (NOISIEST, 8, 128, 0.90),
        # The quick profile.
        (CALM, 3, 100, 0.95),
        (NOISY, 3, 100, 0.60),
        (NOISIEST, 3, 100, 0.25),
    ],
)
def test_false_alarms_are_rare_and_10_percent_is_found(
    noise: Noise, launches: int, invokes: int, least_found: float
) -> None:
    base, new = drawn(noise, launches, invokes)
    assert false_alarms(base, new) <= 0.05
    assert found_slower(base, new) >= least_found


def test_the_whole_comparison_of_200_pairs_of_records() -> None:
    alarms = found = 0
    for trial in range(TRIALS):
        base, same = (record(noise=NOISY, launches=LAUNCHES, invokes=INVOKES, seed=2 * trial + k) for k in (0, 1))
        slower = record(noise=NOISY, launches=LAUNCHES, invokes=INVOKES, seed=2 * trial + 1, base_ms=11, artifact="b")
        alarms += any(one.gated and one.verdict in ALARMS for one in compare([base], [same]).metrics)
        compared = {one.metric.name: one.verdict for one in compare([base], [slower]).metrics}
        found += compared["latency_p50"] == Verdict.SLOWER
    assert alarms <= 0.05 * TRIALS
    assert found >= 0.90 * TRIALS


def test_a_hopeless_machine_gives_inconclusive_and_not_same() -> None:
    base, new = drawn(HOPELESS, LAUNCHES, INVOKES)
    # Beyond every threshold only the intervals are left, which leave 5 % out for each of the two metrics.
    assert false_alarms(base, new) <= 0.08
    assert rate(verdicts(base, 1.1 * new, 50), Verdict.INCONCLUSIVE) >= 0.8
    assert rate(verdicts(base, 1.1 * new, 50), Verdict.SAME) == 0.0


def test_a_calm_machine_says_same() -> None:
    base, new = drawn(CALM, LAUNCHES, INVOKES)
    assert rate(verdicts(base, new, 50), Verdict.SAME) == 1.0


def test_pairs_find_what_single_launches_cannot() -> None:
    """The machine's level wanders by 10 % from launch to launch, and takes both artifacts along."""
    base, new = interleaved(Noise(launch_std=0.01, slot_std=0.10, jitter_std=0.02), LAUNCHES)
    assert found_slower(base, new, paired=False) < 0.5
    assert found_slower(base, new, paired=True) >= 0.95
    assert false_alarms(base, new, paired=True) <= 0.05


def test_pairs_do_not_raise_alarms_where_nothing_is_shared() -> None:
    base, new = interleaved(NOISIER, LAUNCHES)
    assert false_alarms(base, new, paired=True) <= 0.05


def test_single_sessions_cannot_see_what_differs_between_sessions() -> None:
    """Why interleaving is recommended: a level of the day that differs by 5 % looks like a change; in turns it is shared."""
    day = Noise(launch_std=0.01, session_std=0.05, jitter_std=0.02)
    assert false_alarms(*drawn(day, LAUNCHES, INVOKES)) > 0.2
    assert false_alarms(*interleaved(day, LAUNCHES), paired=True) == 0.0
