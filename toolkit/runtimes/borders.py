"""Float values on the border of two int8 steps.

A float that falls midway between two steps of an int8 grid goes up or down with the order in which a runtime added the
terms of some sum before it: both are right. A simulation keeps note of such values, and can be asked to round chosen
ones the other way, so that what follows from either choice can be compared with an artifact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BORDER_STEPS = 1e-3
"""Distance from the midpoint of two steps within which either is right, in steps. A float32 sum of a thousand terms is
known to some 1e-6 of its terms' size, and a value of an int8 grid is at most 255 steps."""


@dataclass(frozen=True)
class Border:
    """One element that lies on a border.

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
        self._distances: dict[Border, float] = {}
        self._turned: frozenset[Border] = frozenset()

    def begin(self, turned: frozenset[Border] = frozenset()) -> None:
        """Forget the last step; in the next one the elements of `turned` are rounded the other way."""
        self._distances, self._turned = {}, turned

    def met(self) -> list[Border]:
        """The elements on a border since `begin`, nearest first."""
        return sorted(self._distances, key=self._distances.__getitem__)

    def round(self, site: str, steps: Tensor) -> Tensor:
        """Round to whole steps, halves to even, but the elements that were chosen the other way.

        Args:
            site: Name of this rounding, unique in its graph.
            steps: Values in units of a step, any shape.
        """
        below = steps.floor()
        distances = (steps - below - 0.5).abs().reshape(-1)
        for element in (distances < BORDER_STEPS).nonzero().reshape(-1).tolist():
            self._distances[Border(site, element)] = float(distances[element])
        rounded = steps.round()
        chosen = [border.element for border in self._turned if border.site == site]
        if chosen:
            flat, low = rounded.reshape(-1), below.reshape(-1)
            flat[chosen] = 2.0 * low[chosen] + 1.0 - flat[chosen]
            rounded = flat.reshape(rounded.shape)
        return rounded
