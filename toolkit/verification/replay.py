"""Stepping one artifact in lockstep with the reference, and everything that is measured on the way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from mvtool.errors import VerificationError
from mvtool.golden import Golden
from mvtool.ports import AnyArray, PortManifest
from mvtool.runtimes.borders import Borders
from mvtool.session import Session
from mvtool.verification import bounds
from mvtool.verification.frames import digest
from mvtool.verification.judge import Deviation, Judge, Worst, worst_of_each
from mvtool.verification.nearest import BORDERS_TRIED, SCATTERED, TURNED_VALUES, Attempt, Search, Spread, Turned
from mvtool.verification.report import Check, CheckResult, SignalToNoise, Status, failed, passed
from mvtool.verification.simulation import Simulation
from mvtool.verification.store import Frame

FRESH_STEPS = 8
"""Steps that are repeated after a reset."""


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
        self.search, self.spread = Search(), Spread()
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
        found, expected = Frame(frame.inputs, outputs, states), frame
        if self._simulated is not None:
            expected = self.nearest_simulation(before, found)
        outcome = self.deviations(before, found, expected, number)
        self._outputs.add(deviation for deviation in outcome if deviation.tensor in outputs)
        self._states.add(deviation for deviation in outcome if deviation.tensor not in outputs)
        if number in (*bounds.SNR_FRAMES, self._steps):
            self.snr.append(_snr(number, outputs, states, frame))
        if self._anchor is not None and number <= bounds.ANCHOR_FRAMES:
            self._follow_anchor(self._anchor, number, frame)
        self._done += 1

    def nearest_simulation(self, before: Mapping[str, AnyArray], found: Frame) -> Frame:
        """One step of the simulation from the artifact's stored state `before`, rounded as the artifact rounds; see `Search`.

        Args:
            before: Stored states, by name.
            found: What the artifact was given and made of it.

        Raises:
            VerificationError: The artifact is not quantized, so that there is no simulation.
        """

        def simulate(turned: Turned) -> Attempt:
            frame = self._simulate(before, found.inputs, turned)
            distance = self._distance(found, frame)
            return Attempt(turned, distance, frame, self._borders.met(BORDERS_TRIED + TURNED_VALUES))

        return self.search.nearest(simulate)

    def deviations(self, before: Mapping[str, AnyArray], found: Frame, expected: Frame, number: int) -> list[Deviation]:
        """How far the artifact is from `expected` in step `number`, with the limits that hold there.

        Args:
            before: Its stored states before the step, by name.
            found: What it was given and made of it.
            expected: What the reference or the nearest simulation made of it.
            number: Of the step, counted from 1.
        """
        measures = self.judge.measures(found, expected, number)
        if self._simulated is not None:
            scattered = (self._scattered(before, found, seed) for seed in range(SCATTERED))
            apart = (self.judge.measures(one, expected, number) for one in scattered)
            measures = self.spread.widened(measures, apart)
        return worst_of_each(measures)

    def _scattered(self, before: Mapping[str, AnyArray], found: Frame, seed: int) -> Frame:
        self._borders.scatter(seed, self.search.settled)
        return self._simulated_step(before, found.inputs)

    def _distance(self, found: Frame, expected: Frame) -> float:
        """Largest deviation, in limits; infinite where it is not a number."""
        deviations = self.judge.measures(found, expected, 1)
        return max((d.severity if d.severity == d.severity else math.inf for d in deviations), default=0.0)

    def _simulate(self, before: Mapping[str, AnyArray], inputs: Iterable[AnyArray], turned: Turned) -> Frame:
        if self._simulated is None:
            raise VerificationError("Only quantized artifacts are held against a simulation.")
        self._borders.begin(turned)
        return self._simulated_step(before, inputs)

    def _simulated_step(self, before: Mapping[str, AnyArray], inputs: Iterable[AnyArray]) -> Frame:
        assert self._simulated is not None
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
        against += self.search.told()
        check = Check.SIMULATION_OUTPUTS if simulated else Check.REPLAY_OUTPUTS
        yield self._explained(self._outputs.result(check, outputs, self._steps, against))
        if states:
            check = Check.SIMULATION_STATES if simulated else Check.REPLAY_STATES
            yield self._explained(self._states.result(check, states, self._steps, against))

    def _explained(self, result: CheckResult) -> CheckResult:
        """A result with how wide its limits were, and a failure with what the search for the artifact's roundings came to."""
        said = self.spread.told()
        if result.status is Status.FAILED:
            said = self.search.reason() + said
        return result.model_copy(update={"message": result.message + said})

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
