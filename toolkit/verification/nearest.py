"""Which of the simulations that are equally right an artifact follows.

A runtime may take a value on the border of two int8 steps either way (`mvtool.runtimes.borders`), and in a deep network
one step of one value, such as the gate of a channel, moves more than the limits allow. So where an artifact leaves the
simulation, such values are rounded the other way, one at a time, as long as that brings the two nearer.

In a network with thousands of such values no search finds those that the artifact took. What it can be asked for then is
not to be further from the simulation than simulations are from each other (`Spread`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from mvtool.runtimes.borders import Border
from mvtool.verification.judge import Deviation
from mvtool.verification.store import Frame

TURNED_VALUES = 4
"""Values on the border of two steps that one step of the simulation may round the other way."""

BORDERS_TRIED = 96
"""How many of them are tried for each, in the order of `Borders.met`."""

SIMULATIONS_AT_FIRST = BORDERS_TRIED * TURNED_VALUES
"""Simulations of steps with other roundings that a replay may take, enough to search one step to the end; a number, not a
time, so that the outcome is the same on every machine."""

SIMULATIONS_PER_STEP = 16
"""How many more every step brings. What one step leaves, later ones may take."""

SCATTERED = 8
"""Simulations that each round a random half of the values on a border the other way."""

MOST_SPREAD = 4.0
"""Limits that they may be apart. Beyond it, a fifth of the largest logit, they excuse nothing any more."""

Turned = frozenset[Border]


@dataclass(frozen=True)
class Attempt:
    """One simulated step.

    Attributes:
        turned: The values that it rounds the other way.
        distance: To the artifact, in limits.
        frame: What it computed.
        borders: The values on a border that it met, in the order of `Borders.met`, and more than a search tries.
    """

    turned: Turned
    distance: float
    frame: Frame
    borders: Sequence[Border]

    @property
    def holds(self) -> bool:
        """Whether the artifact follows it; false for a distance that is not a number."""
        return self.distance <= 1.0


class Search:
    """The searches of one replay.

    Attributes:
        turned: Values that the artifact rounds the other way, in all steps whose search succeeded.
        settled: Entries of tables among them. A table is the same in every step, so that no search has to find them again.
        simulations: How often a step was simulated with other roundings.
        ended: The budget of simulations was used up before a search came to its end.
    """

    def __init__(self) -> None:
        """Nothing was tried yet."""
        self.turned = 0
        self.settled: Turned = frozenset()
        self.simulations = 0
        self.ended = False
        self._left = SIMULATIONS_AT_FIRST
        self._hopeless = False

    def nearest(self, simulate: Callable[[Turned], Attempt]) -> Frame:
        """What the nearest simulation of a step computes.

        Args:
            simulate: Simulates the step with the given values rounded the other way.
        """
        self._left += SIMULATIONS_PER_STEP
        best = simulate(self.settled)
        while not best.holds and not self._hopeless and len(best.turned ^ self.settled) < TURNED_VALUES:
            better = self._better(best, simulate)
            if better is best:
                break
            best = better
        # An artifact that is wrong is so at every frame; there is no use in trying at each.
        self._hopeless = self._hopeless or not best.holds
        if best.holds:
            self.turned += len(best.turned - self.settled)
            self.settled = frozenset(border for border in best.turned if border.entry is not None)
        return best.frame

    def _better(self, start: Attempt, simulate: Callable[[Turned], Attempt]) -> Attempt:
        """The nearest simulation with one value more turned than in `start`, or the first that holds; `start` if none is nearer.

        An entry that an earlier step settled may be turned back.
        """
        best = start
        turned_here = start.turned - self.settled
        for border in [border for border in start.borders if border not in turned_here][:BORDERS_TRIED]:
            if not self._left:
                self.ended = True
                break
            self._left -= 1
            self.simulations += 1
            attempt = simulate(start.turned ^ {border})
            if attempt.distance < best.distance:
                best = attempt
            if best.holds:
                break
        return best

    def told(self) -> str:
        """What the simulation does because of the searches, to be said after its name; empty if nothing."""
        return f", which rounds {self.turned} values on the border of two steps as it does," if self.turned else ""

    def reason(self) -> str:
        """How the search that failed ended, to be said behind a failure; empty if none failed."""
        if not self._hopeless or not self.simulations:
            return ""
        tried = f"; other roundings of values on the border of two steps were tried: {self.simulations}"
        return f"{tried}, as many as the budget of a replay" if self.ended else tried


class Spread:
    """How far simulations that are equally right are from each other, over a replay.

    Attributes:
        largest: In limits, of the steps that were looked at; 0 for none.
        hopeless: An artifact was further away than that.
    """

    def __init__(self) -> None:
        """Nothing was looked at yet."""
        self.largest = 0.0
        self.hopeless = False

    def widened(self, found: Sequence[Deviation], simulations: Iterable[Iterable[Deviation]]) -> list[Deviation]:
        """Measures of an artifact, each with a limit as wide as the simulations need for themselves, if that is no more than `MOST_SPREAD`.

        Args:
            found: From the artifact to the nearest simulation.
            simulations: From scattered simulations to the same; looked at only if the artifact leaves a limit.
        """
        if self.hopeless or all(deviation.holds for deviation in found):
            return list(found)
        apart: dict[tuple[str, str], float] = {}
        for one in (one for simulation in simulations for one in simulation):
            apart[one.tensor, one.unit] = max(apart.get((one.tensor, one.unit), 0.0), one.severity)
        self.largest = max(self.largest, *(apart.get((d.tensor, d.unit), 0.0) for d in found if not d.holds))
        factors = {measure: limits for measure, limits in apart.items() if 1.0 < limits <= MOST_SPREAD}
        wider = [replace(d, limit=d.limit * factors.get((d.tensor, d.unit), 1.0)) for d in found]
        self.hopeless = not all(deviation.holds for deviation in wider)
        return wider

    def told(self) -> str:
        """What was seen, to be said behind a result; empty if nothing was looked at."""
        if not self.largest:
            return ""
        return f"; simulations with other roundings of values on the border of two steps differ by up to {self.largest:.3g} limits"
