"""Deciding whether one tensor is near enough to what it should be, and remembering the worst."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mvtool.ports import AnyArray, PortManifest
from mvtool.verification import bounds
from mvtool.verification.report import Check, CheckResult, failed, passed
from mvtool.verification.store import Frame


@dataclass(frozen=True)
class Deviation:
    """Distance of one tensor from its reference.

    Attributes:
        tensor: Name of the output or state.
        frame: Counted from 1.
        value: The distance.
        limit: Largest distance allowed.
        unit: What `value` measures.
    """

    tensor: str
    frame: int
    value: float
    limit: float
    unit: str = "relative error"

    @property
    def holds(self) -> bool:
        """Whether the limit is kept; false for a distance that is not a number."""
        return self.value <= self.limit

    @property
    def severity(self) -> float:
        """Distance in limits."""
        return self.value / self.limit


@dataclass(frozen=True)
class Judge:
    """The limits of one artifact.

    Attributes:
        manifest: Its ports.
    """

    manifest: PortManifest

    def measures(self, actual: Frame, expected: Frame, number: int) -> list[Deviation]:
        """Every measure of every output and state of frame `number`; logical arrays."""
        outputs = [(port.name, port.step, actual.outputs, expected.outputs) for port in self.manifest.outputs]
        states = [(b.state, b.output.step, actual.states, expected.states) for b in self.manifest.states]
        return [
            deviation
            for name, step, found, wanted in (*outputs, *states)
            for deviation in self.tensor(name, step, found[name], wanted[name], number)
        ]

    def tensor(
        self, name: str, step: float, actual: AnyArray, expected: AnyArray, number: int
    ) -> tuple[Deviation, ...]:
        """The measures of one tensor; `step` is the width of its int8 grid, 0 for a float tensor."""
        if not step:
            error = bounds.relative_error(actual, expected)
            return (Deviation(name, number, error, bounds.LIMITS[self.manifest.precision]),)
        distance = bounds.step_distance(actual, expected, step)
        return (
            Deviation(name, number, distance.beyond, bounds.INT8_BEYOND, "of the elements beyond 2 steps"),
            Deviation(name, number, distance.mean, bounds.INT8_MEAN_STEPS, "steps on average"),
        )


def worst_of_each(deviations: Iterable[Deviation]) -> list[Deviation]:
    """One deviation for each tensor, its most severe one."""
    worst: dict[str, Deviation] = {}
    for deviation in deviations:
        known = worst.get(deviation.tensor)
        if known is None or not deviation.severity <= known.severity:
            worst[deviation.tensor] = deviation
    return list(worst.values())


class Worst:
    """The worst deviation per tensor over a replay."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._worst: dict[str, Deviation] = {}
        self._frames: dict[str, int] = {}

    def add(self, deviations: Iterable[Deviation]) -> None:
        """Take the deviations of one frame into account."""
        for deviation in deviations:
            known = self._worst.get(deviation.tensor)
            self._frames[deviation.tensor] = self._frames.get(deviation.tensor, 0) + 1
            if known is None or not deviation.severity <= known.severity:
                self._worst[deviation.tensor] = deviation

    def result(self, check: Check, tensors: Iterable[str], frames: int, against: str) -> CheckResult:
        """The outcome of `check`: every one of `tensors` within its limit at each of `frames` frames."""
        expected = list(tensors)
        incomplete = [name for name in expected if self._frames.get(name, 0) != frames]
        if incomplete or not expected:
            return failed(check, f"not every tensor was compared at all {frames} frames: {incomplete or 'no tensors'}")
        # NaN compares as larger than anything, so that it cannot hide behind a number.
        worst = max(self._worst.values(), key=lambda d: d.severity if d.severity == d.severity else float("inf"))
        found: dict[str, float | str | None] = {
            "worst": worst.value,
            "limit": worst.limit,
            "tensor": worst.tensor,
            "frame": worst.frame,
        }
        place = (
            f"worst is {worst.tensor!r} at frame {worst.frame}: {worst.value:.3g} {worst.unit}, limit {worst.limit:.3g}"
        )
        bad = [name for name, deviation in self._worst.items() if not deviation.holds]
        if bad:
            names = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
            return failed(check, f"{len(bad)} of {len(expected)} tensors leave {against} ({names}); {place}", **found)
        return passed(check, f"{len(expected)} tensors follow {against} over {frames} frames; {place}", **found)
