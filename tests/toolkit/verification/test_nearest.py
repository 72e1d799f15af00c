"""The search for the roundings that an artifact took, on steps whose distances are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pytest

from mvtool.runtimes.borders import Border
from mvtool.verification.judge import Deviation
from mvtool.verification.nearest import (
    BORDERS_TRIED,
    MOST_SPREAD,
    SIMULATIONS_AT_FIRST,
    SIMULATIONS_PER_STEP,
    TURNED_VALUES,
    Attempt,
    Search,
    Spread,
    Turned,
)
from mvtool.verification.store import Frame

BORDERS = [Border("gate", element) for element in range(BORDERS_TRIED + TURNED_VALUES)]
ENTRY = Border("swish", entry=102.5)


def number(border: Border) -> int:
    """The element that is turned; -1 for the entry of a table."""
    return -1 if border.element is None else border.element


class Step:
    """A simulated step whose distance follows from what is turned; its frame holds the number of the simulation."""

    def __init__(self, distance: Callable[[set[int]], float], borders: Sequence[Border] = BORDERS) -> None:
        self.tried: list[Turned] = []
        self._distance, self._borders = distance, borders

    def __call__(self, turned: Turned) -> Attempt:
        self.tried.append(turned)
        frame = Frame((), {"y": np.array([len(self.tried)])}, {})
        return Attempt(turned, self._distance({number(border) for border in turned}), frame, self._borders)


def right(wanted: Iterable[int], start: float = 4.0) -> Callable[[set[int]], float]:
    """Every value of `wanted` that is turned brings the two nearer; any other takes them apart."""
    chosen = set(wanted)
    return lambda turned: start - start * len(turned & chosen) / len(chosen) + len(turned - chosen)


def simulation(frame: Frame) -> int:
    return int(frame.outputs["y"][0])


def test_a_step_that_is_near_enough_is_simulated_once() -> None:
    search, step = Search(), Step(lambda turned: 1.0)
    assert simulation(search.nearest(step)) == 1
    assert (step.tried, search.simulations, search.told(), search.reason()) == ([frozenset()], 0, "", "")


def test_the_first_choice_that_is_near_enough_ends_the_search() -> None:
    search, step = Search(), Step(right([3]))
    frame = search.nearest(step)
    assert step.tried == [frozenset(), *(frozenset({border}) for border in BORDERS[:4])]
    assert simulation(frame) == len(step.tried)
    assert search.told() == ", which rounds 1 values on the border of two steps as it does,"


def test_no_step_is_simulated_again_that_was_already() -> None:
    search, step = Search(), Step(right([5, 0]))
    frame = search.nearest(step)
    assert step.tried[-1] == {BORDERS[0], BORDERS[5]}
    assert len(step.tried) == len(set(step.tried)) == 1 + BORDERS_TRIED + 5
    assert simulation(frame) == len(step.tried)
    assert (search.turned, search.simulations) == (2, BORDERS_TRIED + 5)


def test_the_nearest_is_kept_when_none_is_near_enough() -> None:
    search, step = Search(), Step(lambda turned: 2.0 - 0.5 * (7 in turned))
    assert simulation(search.nearest(step)) == 1 + 8
    assert search.turned == 0
    assert search.reason() == f"; other roundings of values on the border of two steps were tried: {2 * BORDERS_TRIED}"
    # An artifact that was wrong once is not searched for again.
    again = Step(right([3]))
    search.nearest(again)
    assert len(again.tried) == 1


def last(turned: set[int]) -> float:
    """Near enough after the longest search: each value turned helps, and of the last ones the last alone is enough."""
    return 1.0 if len(turned) == TURNED_VALUES and max(turned) >= BORDERS_TRIED + 2 else 8.0 - len(turned)


def test_the_budget_ends_a_search_and_the_reason_says_so() -> None:
    search, longest = Search(), BORDERS_TRIED * TURNED_VALUES
    frame = search.nearest(Step(last))
    assert (search.turned, search.simulations, simulation(frame)) == (TURNED_VALUES, longest, longest + 1)
    assert not search.ended
    search.nearest(Step(last))
    allowed = SIMULATIONS_AT_FIRST + 2 * SIMULATIONS_PER_STEP
    assert (search.turned, search.simulations) == (TURNED_VALUES, allowed)
    assert search.reason().endswith(f"were tried: {allowed}, as many as the budget of a replay")


def test_what_steps_leave_of_the_budget_is_there_for_later_ones() -> None:
    search, longest = Search(), BORDERS_TRIED * TURNED_VALUES
    search.nearest(Step(last))
    for _ in range(longest // SIMULATIONS_PER_STEP):
        search.nearest(Step(lambda turned: 0.5))
    search.nearest(Step(last))
    assert (search.turned, search.simulations) == (2 * TURNED_VALUES, 2 * longest)
    assert not search.ended


def test_an_entry_of_a_table_stays_turned_in_later_steps_and_an_element_does_not() -> None:
    search = Search()
    search.nearest(Step(right([-1, 2]), [ENTRY, *BORDERS]))
    assert (search.turned, search.settled) == (2, frozenset({ENTRY}))
    # Its table need not meet the entry again for that.
    later = Step(right([-1, 3]), BORDERS)
    search.nearest(later)
    assert later.tried[0] == {ENTRY}
    assert later.tried[-1] == {ENTRY, BORDERS[3]}
    assert (search.turned, search.settled) == (3, frozenset({ENTRY}))


def test_an_entry_that_was_turned_for_nothing_is_turned_back() -> None:
    search = Search()
    search.nearest(Step(right([-1]), [ENTRY]))
    later = Step(lambda turned: 5.0 if -1 in turned else 3.0 - 3.0 * (4 in turned), [*BORDERS[:5], ENTRY])
    search.nearest(later)
    assert later.tried[-1] == {BORDERS[4]}
    assert search.settled == frozenset()


def test_a_distance_that_is_not_a_number_is_not_near() -> None:
    search, step = Search(), Step(lambda turned: float("nan"))
    assert simulation(search.nearest(step)) == 1
    assert search.reason()


def deviation(tensor: str, value: float) -> Deviation:
    return Deviation(tensor, 1, value, 0.05)


def test_an_artifact_within_the_limits_is_not_held_against_scattered_simulations() -> None:
    spread = Spread()

    def none() -> Iterator[list[Deviation]]:
        raise AssertionError("simulated without need")
        yield []

    found = [deviation("y", 0.05)]
    assert spread.widened(found, none()) == found
    assert spread.told() == ""


def test_limits_are_as_wide_as_simulations_are_apart() -> None:
    spread = Spread()
    simulations = [[deviation("y", 0.09), deviation("z", 0.01)], [deviation("y", 0.02), deviation("z", 0.02)]]
    wider = spread.widened([deviation("y", 0.08), deviation("z", 0.04)], simulations)
    assert [(d.tensor, d.value, round(d.limit, 6), d.holds) for d in wider] == [
        ("y", 0.08, 0.09, True),
        ("z", 0.04, 0.05, True),
    ]
    assert not spread.hopeless
    assert spread.told().endswith("differ by up to 1.8 limits")


def test_an_artifact_further_away_than_simulations_fails_and_is_not_tried_again() -> None:
    spread = Spread()
    found = [deviation("y", 0.08)]
    assert not spread.widened(found, [[deviation("y", 0.07)]])[0].holds
    assert spread.hopeless
    assert spread.widened(found, [[deviation("y", 0.2)]]) == found


@pytest.mark.parametrize(("apart", "holds"), [(0.19, True), (0.21, False), (float("nan"), False)])
def test_simulations_that_are_too_far_apart_excuse_nothing(apart: float, holds: bool) -> None:
    assert 0.19 < 0.05 * MOST_SPREAD < 0.21
    (wider,) = Spread().widened([deviation("y", 0.08)], [[deviation("y", apart)]])
    assert wider.holds is holds
    assert (wider.limit == 0.05) is not holds


def test_one_measure_of_a_tensor_excuses_no_other() -> None:
    """One channel that is far off in few elements says nothing of an artifact that is off everywhere."""

    def measures(beyond: float, mean: float) -> list[Deviation]:
        return [Deviation("s", 1, beyond, 0.01, "of the elements beyond 2 steps"), Deviation("s", 1, mean, 0.5, "mean")]

    beyond, mean = Spread().widened(measures(0.02, 1.5), [measures(0.03, 0.09)])
    assert (beyond.holds, mean.holds) == (True, False)
    assert beyond.limit == pytest.approx(0.03)
    assert mean.limit == 0.5
