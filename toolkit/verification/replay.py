"""Stepping one artifact in lockstep with the reference, and everything that is measured on the way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from mvtool.errors import VerificationError
from mvtool.golden import Golden
from mvtool.ports import AnyArray, PortManifest
from mvtool.runtimes.borders import Border, Borders
from mvtool.session import Session
from mvtool.verification import bounds
from mvtool.verification.frames import digest
from mvtool.verification.judge import Judge, Worst
from mvtool.verification.report import Check, CheckResult, SignalToNoise, failed, passed
from mvtool.verification.simulation import Simulation
from mvtool.verification.store import Frame

FRESH_STEPS = 8
"""Steps that are repeated after a reset."""

TURNED_VALUES = 4
"""Values on the border of two steps that one step of the simulation may round the other way."""

BORDERS_TRIED = 48
"""How many of them are tried, nearest to their border first."""


class Replay:
    """A free-running artifact and, where its weights are int8, the simulation that is fed the artifact's state."""

    def __init__(self, session: Session, simulation: Simulation | None, steps: int) -> None:
        """Take over a fresh session that `steps` steps will be asked of."""
        self.session = session
        self.judge = Judge(session.manifest)
        self.snr: list[SignalToNoise] = []
        self._steps = steps
        self._done = 0
        self._outputs, self._states, self._anchor_worst = Worst(), Worst(), _LowestSnr()
        self._fresh: list[tuple[tuple[AnyArray, ...], dict[str, bytes]]] = []
        self._borders = Borders()
        self._turned = 0
        self._hopeless = False
        self._simulated = simulation.quantized(self._borders) if simulation else None
        self._anchor = simulation.anchor() if simulation else None

    def step(self, number: int, frame: Frame) -> None:
        """Replay step `number`, counted from 1; `frame` is what the reference did in it."""
        before = self.session.state()
        outputs = self.session.step(*frame.inputs)
        after = self.session.state()
        states = logical_states(self.session.manifest, after)
        if number <= FRESH_STEPS:
            inputs = tuple(array.copy() for array in frame.inputs)
            self._fresh.append((inputs, _fingerprints(outputs, after)))
        expected = frame
        if self._simulated is not None:
            expected = self.nearest_simulation(before, Frame(frame.inputs, outputs, states))
        self._outputs.add(self.judge.outputs(outputs, expected, number))
        self._states.add(self.judge.states(states, expected, number))
        if number in (*bounds.SNR_FRAMES, self._steps):
            self.snr.append(_snr(number, outputs, states, frame))
        if self._anchor is not None and number <= bounds.ANCHOR_FRAMES:
            self._follow_anchor(self._anchor, number, frame)
        self._done += 1

    def nearest_simulation(self, before: Mapping[str, AnyArray], found: Frame) -> Frame:
        """One step of the simulation from the artifact's stored state `before`.

        Where the artifact leaves it by more than the limits, values on the border of two int8 steps are rounded the
        other way, one at a time, as long as that brings the two nearer: in a deep network one step of one value, such
        as the gate of a channel, moves more than the limits allow, and a runtime may take it either way.

        Args:
            before: Stored states, by name.
            found: What the artifact was given and made of it.

        Raises:
            VerificationError: The artifact is not quantized, so that there is no simulation.
        """
        nearest = self._simulate(before, found.inputs)
        distance, turned = self._distance(found, nearest), frozenset[Border]()
        while not distance <= 1.0 and not self._hopeless and len(turned) < TURNED_VALUES:
            met = [border for border in self._borders.met() if border not in turned][:BORDERS_TRIED]
            choices = [turned | {border} for border in met]
            tried = [
                (self._distance(found, self._simulate(before, found.inputs, choice)), choice) for choice in choices
            ]
            best = min(tried, key=lambda one: one[0], default=(distance, turned))
            if not best[0] < distance:
                break
            distance, turned = best
            nearest = self._simulate(before, found.inputs, turned)
        # An artifact that is wrong is so at every frame; there is no use in trying at each.
        self._hopeless = self._hopeless or not distance <= 1.0
        self._turned += len(turned) if distance <= 1.0 else 0
        return nearest

    def _distance(self, found: Frame, expected: Frame) -> float:
        """Largest deviation, in limits; infinite where it is not a number."""
        deviations = (*self.judge.outputs(found.outputs, expected, 1), *self.judge.states(found.states, expected, 1))
        return max((d.severity if d.severity == d.severity else math.inf for d in deviations), default=0.0)

    def _simulate(
        self, before: Mapping[str, AnyArray], inputs: Iterable[AnyArray], turned: frozenset[Border] = frozenset()
    ) -> Frame:
        if self._simulated is None:
            raise VerificationError("Only quantized artifacts are held against a simulation.")
        self._borders.begin(turned)
        ports = {binding.state: binding.input for binding in self._simulated.manifest.states}
        real = logical_states(self.session.manifest, before)
        self._simulated.set_state({name: ports[name].encode(array) for name, array in real.items()})
        fed = tuple(inputs)
        outputs = self._simulated.step(*fed)
        return Frame(fed, outputs, logical_states(self._simulated.manifest, self._simulated.state()))

    def _follow_anchor(self, anchor: Session, number: int, frame: Frame) -> None:
        outputs = anchor.step(*frame.inputs)
        states = logical_states(anchor.manifest, anchor.state())
        self._anchor_worst.add(number, outputs, frame.outputs)
        self._anchor_worst.add(number, states, frame.states)
        if number == bounds.ANCHOR_FRAMES:
            self._anchor = None

    def results(self) -> Iterable[CheckResult]:
        """The checks of the steps so far."""
        manifest = self.session.manifest
        outputs = [port.name for port in manifest.outputs]
        states = [binding.state for binding in manifest.states]
        simulated = manifest.precision.quantized
        against = f"the {manifest.precision} simulation" if simulated else "the PyTorch stream"
        if simulated:
            yield self._anchor_worst.result(min(self._done, bounds.ANCHOR_FRAMES))
        yield self._outputs.result(
            Check.SIMULATION_OUTPUTS if simulated else Check.REPLAY_OUTPUTS, outputs, self._steps, against
        )
        if states:
            check = Check.SIMULATION_STATES if simulated else Check.REPLAY_STATES
            yield self._states.result(check, states, self._steps, against + self._choices())

    def _choices(self) -> str:
        return f", which rounds {self._turned} values on the border of two steps as it does," if self._turned else ""

    def check_reset(self) -> CheckResult:
        """Reset, repeat the first steps, and compare bit by bit with the fresh session."""
        self.session.reset()
        for number, (inputs, expected) in enumerate(self._fresh, start=1):
            found = _fingerprints(self.session.step(*inputs), self.session.state())
            for name in expected:
                if found.get(name) != expected[name]:
                    return failed(
                        Check.RESET_IS_FRESH,
                        f"after a reset {name!r} of frame {number} differs from the fresh session's",
                        tensor=name,
                        frame=number,
                    )
        return passed(
            Check.RESET_IS_FRESH,
            f"the first {len(self._fresh)} frames after a reset equal the fresh session's bit by bit",
        )

    def check_golden(self, golden: Golden, tolerance: float | None) -> CheckResult:
        """Run the golden inputs from reset, as an app's unit test does."""
        if tolerance is None:
            precision = self.session.manifest.precision
            return failed(Check.GOLDEN, f"the build states no tolerance of the golden file for {precision}")
        self.session.reset()
        manifest = self.session.manifest
        errors = [golden.error(self.session.step(*golden.step(manifest, i)), i) for i in range(golden.frames)]
        worst = int(np.argmax(errors))
        text = f"error {errors[worst]:.3g} at golden frame {worst + 1} of {golden.frames}, tolerance {tolerance:.3g}"
        verdict = passed if errors[worst] <= tolerance else failed
        return verdict(Check.GOLDEN, text, worst=errors[worst], limit=tolerance, frame=worst + 1)


class _LowestSnr:
    """The tensor that the anchor follows worst."""

    def __init__(self) -> None:
        self._lowest: tuple[float, str, int] | None = None

    def add(self, number: int, actual: Mapping[str, AnyArray], reference: Mapping[str, AnyArray]) -> None:
        for name, array in reference.items():
            snr = bounds.snr_db(actual[name], array)
            # A tensor of zeros, such as a state after few frames, has no signal to compare noise with.
            if np.any(array) and (self._lowest is None or snr < self._lowest[0]):
                self._lowest = (snr, name, number)

    def result(self, frames: int) -> CheckResult:
        if self._lowest is None:
            return failed(Check.SIMULATION_ANCHOR, "the simulation was never compared with the fp32 stream")
        snr, name, number = self._lowest
        noise, limit = (10.0 ** (-decibels / 20.0) for decibels in (snr, bounds.ANCHOR_SNR_DB))
        text = (
            f"without activation rounding the simulation follows the fp32 stream over {frames} frames with at least "
            f"{snr:.1f} dB ({name!r}, frame {number}), limit {bounds.ANCHOR_SNR_DB:g} dB"
        )
        verdict = passed if noise <= limit else failed
        return verdict(Check.SIMULATION_ANCHOR, text, worst=noise, limit=limit, tensor=name, frame=number)


def logical_states(manifest: PortManifest, stored: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """Stored states as tensors of the trained model."""
    return {binding.state: binding.output.decode(stored[binding.state]) for binding in manifest.states}


def _fingerprints(outputs: Mapping[str, AnyArray], states: Mapping[str, AnyArray]) -> dict[str, bytes]:
    return {name: digest([array]) for name, array in (*outputs.items(), *states.items())}


def _snr(number: int, outputs: Mapping[str, AnyArray], states: Mapping[str, AnyArray], frame: Frame) -> SignalToNoise:
    actual, reference = (
        np.concatenate([side[name].astype(np.float64).ravel() for name in sorted(frame.outputs)])
        for side in (outputs, frame.outputs)
    )
    by_state = {name: bounds.snr_db(states[name], array) for name, array in frame.states.items()}
    worst = min(by_state, key=by_state.__getitem__, default=None)
    return SignalToNoise(
        frame=number,
        outputs_db=bounds.snr_db(actual, reference),
        states_db=None if worst is None else by_state[worst],
        worst_state=worst,
    )
