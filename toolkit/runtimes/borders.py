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
    """One element that lies on a border, or in a table one value, by the first element that has it.

    Attributes:
        site: The rounding in its graph.
        element: Position in the flat tensor.
    """

    site: str
    element: int


class Borders:
    """The borders that the roundings of one step met, and the choices made for them."""

    def __init__(self) -> None:
        """Nothing is rounded the other way."""
        self._near: dict[str, tuple[Tensor, Tensor]] = {}
        self._turned: frozenset[Border] = frozenset()
        self._generator: np.random.Generator | None = None

    def begin(self, turned: frozenset[Border] = frozenset()) -> None:
        """Forget the last step; in the next one the elements of `turned` are rounded the other way."""
        self._near, self._turned, self._generator = {}, turned, None

    def scatter(self, seed: int) -> None:
        """Forget the last step; in the next one a random half of the elements on a border is rounded the other way.

        Not of those exactly on it, see `met`, but for tables.
        """
        self._near, self._turned, self._generator = {}, frozenset(), np.random.default_rng(seed)

    def met(self, most: int | None = None) -> list[Border]:
        """The elements on a border since `begin`; no more than `most`, if that is given.

        The sites take turns, so that one whose values lie on a grid of their own, as means of few int8 values do, with
        hundreds of borders, does not keep the others waiting. So do, at each site, those exactly on a border and the others.
        Of a turn the nearest comes first.
        """
        if not self._near:
            return []
        sites, near = list(self._near), list(self._near.values())
        distances = np.concatenate([distances.numpy() for _, distances in near])
        elements = np.concatenate([elements.numpy() for elements, _ in near])
        turns = np.concatenate([_turns(distances.numpy()) for _, distances in near])
        site_of = np.repeat(np.arange(len(near)), [elements.numel() for elements, _ in near])
        # Of equally near ones the first comes first.
        order = np.lexsort((distances, turns))[:most]
        return [Border(sites[site_of[place]], int(elements[place])) for place in order]

    def round(self, site: str, steps: Tensor, *, table: bool = False) -> Tensor:
        """Round to whole steps, halves to even, but the elements that were chosen the other way.

        Args:
            site: Name of this rounding, unique in its graph.
            steps: Values in units of a step, any shape.
            table: Each is a function of one int8 value, so that equal ones go the same way, and only `TABLE_BORDER_STEPS` apart.
        """
        flat = steps.reshape(-1)
        distances = flat.floor()
        distances.sub_(flat).add_(0.5).abs_()
        elements = (distances < (TABLE_BORDER_STEPS if table else BORDER_STEPS)).nonzero().reshape(-1)
        if table:
            elements = _first_of_each(flat, elements)
        self._near[site] = (elements, distances[elements])
        chosen = [border.element for border in self._turned if border.site == site]
        if self._generator is not None:
            near = (elements if table else elements[distances[elements] > 0.0]).numpy()
            chosen = near[self._generator.random(near.size) < 0.5].tolist()
        rounded = flat.round()
        if chosen:
            turned = np.isin(flat.numpy(), flat[chosen].numpy()).nonzero()[0] if table else chosen
            rounded[turned] = 2.0 * flat[turned].floor() + 1.0 - rounded[turned]
        return rounded.reshape(steps.shape)


def _first_of_each(flat: Tensor, elements: Tensor) -> Tensor:
    """Of `elements`, positions in `flat`, the first of each value; ascending."""
    _, first = np.unique(flat[elements].numpy(), return_index=True)
    return elements[np.sort(first)]


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
