"""The search for the roundings that an artifact took, on steps whose distances are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from mvtool.runtimes.borders import Border
from mvtool.verification.nearest import (
    BORDERS_TRIED,
    SIMULATIONS_AT_FIRST,
    SIMULATIONS_PER_STEP,
    TURNED_VALUES,
    Attempt,
    Search,
    Turned,
)
from mvtool.verification.store import Frame

BORDERS = [Border("gate", element) for element in range(BORDERS_TRIED + TURNED_VALUES)]


class Step:
    """A simulated step whose distance follows from what is turned; its frame holds the number of the simulation."""

    def __init__(self, distance: Callable[[set[int]], float]) -> None:
        self.tried: list[Turned] = []
        self._distance = distance

    def __call__(self, turned: Turned) -> Attempt:
        self.tried.append(turned)
        frame = Frame((), {"y": np.array([len(self.tried)])}, {})
        return Attempt(turned, self._distance({border.element for border in turned}), frame, BORDERS)


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


def test_a_distance_that_is_not_a_number_is_not_near() -> None:
    search, step = Search(), Step(lambda turned: float("nan"))
    assert simulation(search.nearest(step)) == 1
    assert search.reason()
