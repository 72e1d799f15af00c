"""Float values on the border of two int8 steps.

A float that falls midway between two steps of an int8 grid goes up or down with the order in which a runtime added the
terms of some sum before it: both are right. A simulation keeps note of such values, and can be asked to round chosen
ones the other way, so that what follows from either choice can be compared with an artifact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

BORDER_STEPS = 1e-3
"""Distance from the midpoint of two steps within which either is right, in steps. A float32 sum of a thousand terms is
known to some 1e-6 of its terms' size, and a value of an int8 grid is at most 255 steps."""

TABLE_BORDER_STEPS = 2.0**-13
"""The same for a function of one int8 value, such as hard-swish: eight units in the last place of a float32 between 128 and 256
steps. There is no sum whose order could matter, but how many roundings an activation takes is each kernel's own affair."""


@dataclass(frozen=True)
class Border:
    """One element that lies on a border, or one entry of a table.

    Attributes:
        site: The rounding in its graph.
        element: Position in the flat tensor; None for an entry.
        entry: In steps, of all elements that have it; None for one element.
    """

    site: str
    element: int | None = None
    entry: float | None = None


@dataclass(frozen=True)
class _Near:
    """What one rounding met: positions of elements, or the entries of a table, and their distances in steps."""

    places: np.ndarray
    distances: np.ndarray
    table: bool

    def border(self, site: str, number: int) -> Border:
        place = self.places[number]
        return Border(site, entry=float(place)) if self.table else Border(site, int(place))


class Borders:
    """The borders that the roundings of one step met, and the choices made for them."""

    def __init__(self) -> None:
        """Nothing is rounded the other way."""
        self._near: dict[str, _Near] = {}
        self._turned: frozenset[Border] = frozenset()
        self._generator: np.random.Generator | None = None

    def begin(self, turned: frozenset[Border] = frozenset()) -> None:
        """Forget the last step; in the next one those of `turned` are rounded the other way."""
        self._near, self._turned, self._generator = {}, turned, None

    def scatter(self, seed: int, turned: frozenset[Border] = frozenset()) -> None:
        """Forget the last step; in the next one a random half of what is on a border is rounded the other way.

        Elements exactly on it are left out, see `met`; entries of tables are not. All of `turned` go the other way.
        """
        self._near, self._turned, self._generator = {}, turned, np.random.default_rng(seed)

    def met(self, most: int | None = None) -> list[Border]:
        """What was on a border since `begin`; no more than `most`, if that is given.

        The sites take turns, so that one whose values lie on a grid of their own, as means of few int8 values do, with
        hundreds of borders, does not keep the others waiting. So do, at each site, those exactly on a border and the others.
        Of a turn the nearest comes first.
        """
        if not self._near:
            return []
        sites, near = list(self._near), list(self._near.values())
        counts = [one.distances.size for one in near]
        distances = np.concatenate([one.distances for one in near])
        turns = np.concatenate([_turns(one.distances) for one in near])
        site_of = np.repeat(np.arange(len(near)), counts)
        number = np.concatenate([np.arange(count) for count in counts])
        # Of equally near ones the first comes first.
        order = np.lexsort((distances, turns))[:most]
        return [near[site_of[place]].border(sites[site_of[place]], number[place]) for place in order]

    def round(self, site: str, steps: Tensor, *, table: bool = False) -> Tensor:
        """Round to whole steps, halves to even, but those that were chosen the other way.

        Args:
            site: Name of this rounding, unique in its graph.
            steps: Values in units of a step, any shape.
            table: Each is a function of one int8 value, so that equal ones go the same way, and only `TABLE_BORDER_STEPS` apart.
        """
        flat = steps.reshape(-1)
        distances = flat.floor()
        distances.sub_(flat).add_(0.5).abs_()
        elements = (distances < (TABLE_BORDER_STEPS if table else BORDER_STEPS)).nonzero().reshape(-1)
        near = _Near(elements.numpy(), distances[elements].numpy(), table=False)
        if table:
            entries, first = np.unique(flat[elements].numpy(), return_index=True)
            near = _Near(entries, near.distances[first], table=True)
        self._near[site] = near
        chosen = self._chosen(site, near, flat)
        rounded = flat.round()
        if chosen.size:
            rounded[chosen] = 2.0 * flat[chosen].floor() + 1.0 - rounded[chosen]
        return rounded.reshape(steps.shape)

    def _chosen(self, site: str, near: _Near, flat: Tensor) -> np.ndarray:
        """Positions of the elements to be rounded the other way."""
        turned = [border for border in self._turned if border.site == site]
        elements = np.array([border.element for border in turned if border.element is not None], np.int64)
        entries = np.array([border.entry for border in turned if border.entry is not None], np.float32)
        if self._generator is not None:
            free = near.places if near.table else near.places[near.distances > 0.0]
            drawn = free[self._generator.random(free.size) < 0.5]
            if near.table:
                entries = np.union1d(entries, drawn)
            else:
                elements = np.union1d(elements, drawn)
        return np.isin(flat.numpy(), entries).nonzero()[0] if entries.size else elements


def _turns(distances: np.ndarray) -> np.ndarray:
    """The turn of each element of a site, from 0, given all distances to its border; shape (elements,)."""
    exact = distances == 0.0
    rank = np.empty(len(distances), np.int64)
    for alike in (exact, ~exact):
        (places,) = np.nonzero(alike)
        rank[places[np.argsort(distances[places], kind="stable")]] = np.arange(len(places))
    turns = np.empty(len(distances), np.int64)
    turns[np.lexsort((~exact, rank))] = np.arange(len(distances))
    return turns
