"""Replay, judge and order check on a toy in Python, whose faults are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from manifests import SwappedInputs, ToyExecutable, port_manifest, toy_session
from numpy.typing import NDArray

from mvtool.ports import AnyArray, PortManifest, Precision, Quantization
from mvtool.runtimes.base import PortSession
from mvtool.runtimes.borders import BORDER_STEPS, Borders
from mvtool.verification.frames import FrameSource
from mvtool.verification.judge import Deviation, Worst
from mvtool.verification.lockstep import replay_all
from mvtool.verification.messages import ALL_SLOTS, PROBE_AFTER, PROBE_BEFORE, Command, Finish, Step
from mvtool.verification.order import check_order, perturbed
from mvtool.verification.replay import Replay, logical_states
from mvtool.verification.report import Check, CheckResult, Status
from mvtool.verification.simulation import Simulation
from mvtool.verification.store import Frame, FrameStore

Examine = Callable[[PortSession], dict[Check, CheckResult]]
STEPS = 20


class LocalWorker:
    """Does what a worker process does, here."""

    def __init__(self, session: PortSession, store: FrameStore) -> None:
        self.replay = Replay(session, None, STEPS)
        self.results: dict[Check, CheckResult] = {}
        self._store = store

    def send(self, command: Command) -> None:
        if isinstance(command, Step):
            self.replay.step(command.number, self._store.read(command.slot))
            return
        assert isinstance(command, Finish)
        order = check_order(self.replay, self._store.read(PROBE_BEFORE), self._store.read(PROBE_AFTER))
        results = [*self.replay.results(), order, self.replay.check_reset()]
        self.results = {result.check: result for result in results}

    def wait_ready(self) -> None: ...

    def wait_step(self, number: int) -> None: ...

    def wait_finished(self) -> None: ...


@pytest.fixture
def examine(tmp_path: Path) -> Examine:
    def run(session: PortSession) -> dict[Check, CheckResult]:
        reference = toy_session()
        store = FrameStore(tmp_path / "store", reference.manifest, ALL_SLOTS)
        worker = LocalWorker(session, store)
        source = FrameSource(reference.manifest.inputs)
        replayed = replay_all(reference, source, store, [worker], STEPS, lambda *_: None)  # type: ignore[list-item]
        assert (replayed.steps, replayed.distinct) == (STEPS, STEPS)
        return worker.results

    return run


def swapped_manifest(what: str) -> PortManifest:
    """Both states claim each other's port."""
    manifest = port_manifest()
    left, right = manifest.states
    exchanged = (
        left.model_copy(update={what: getattr(right, what)}),
        right.model_copy(update={what: getattr(left, what)}),
    )
    return manifest.model_copy(update={"states": exchanged})


def test_the_same_function_passes_everything(examine: Examine) -> None:
    results = examine(toy_session())
    assert {r.status for r in results.values()} == {Status.PASSED}
    assert results[Check.REPLAY_STATES].worst == 0.0


@pytest.mark.parametrize(
    ("session", "message"),
    [
        (lambda: PortSession(swapped_manifest("output"), ToyExecutable()), "the results of states 'left' and 'right'"),
        (lambda: PortSession(swapped_manifest("input"), ToyExecutable()), "the inputs of states 'left' and 'right'"),
        (lambda: toy_session(SwappedInputs()), "the inputs of states 'left' and 'right'"),
        (lambda: toy_session(ToyExecutable(lambda r: [r[0], r[2], r[1]])), "the results of states 'left' and 'right'"),
    ],
)
def test_a_swapped_pair_is_named(examine: Examine, session: Callable[[], PortSession], message: str) -> None:
    results = examine(session())
    assert results[Check.ORDER].status is Status.FAILED
    assert results[Check.ORDER].message.startswith(f"swapped state pair: {message}")
    assert results[Check.REPLAY_STATES].status is Status.FAILED


def test_states_swapped_on_both_sides_are_named(examine: Examine) -> None:
    both = swapped_manifest("output")
    left, right = both.states
    states = (left.model_copy(update={"input": right.input}), right.model_copy(update={"input": left.input}))
    results = examine(PortSession(both.model_copy(update={"states": states}), ToyExecutable()))
    assert "'left' and 'right' are exchanged" in results[Check.ORDER].message
    assert results[Check.ORDER].status is Status.FAILED


def test_the_worst_frame_and_tensor_are_named(examine: Examine) -> None:
    calls = 0

    def late(results: list[NDArray[Any]]) -> list[NDArray[Any]]:
        nonlocal calls
        calls += 1
        return [results[0], results[1], results[2] + np.float32(1e-2 if calls == 13 else 0)]

    states = examine(toy_session(ToyExecutable(late)))[Check.REPLAY_STATES]
    assert (states.status, states.tensor, states.frame) == (Status.FAILED, "right", 13)


def test_not_a_number_is_a_failure(examine: Examine) -> None:
    results = examine(toy_session(ToyExecutable(lambda r: [r[0] * np.float32(np.nan), *r[1:]])))
    assert results[Check.REPLAY_OUTPUTS].status is Status.FAILED
    assert results[Check.REPLAY_OUTPUTS].tensor == "y"


def test_memory_that_a_reset_does_not_clear_is_found(examine: Examine) -> None:
    calls = 0

    def drifting(results: list[NDArray[Any]]) -> list[NDArray[Any]]:
        nonlocal calls
        calls += 1
        return [results[0] + np.float32(1e-7 * calls), *results[1:]]

    results = examine(toy_session(ToyExecutable(drifting)))
    assert results[Check.RESET_IS_FRESH].status is Status.FAILED
    assert "'y' of frame 1" in results[Check.RESET_IS_FRESH].message


def test_a_tensor_that_was_not_compared_at_every_frame_fails() -> None:
    worst = Worst()
    worst.add([Deviation("a", 1, 0.0, 1.0), Deviation("b", 1, 0.0, 1.0)])
    worst.add([Deviation("a", 2, 0.0, 1.0)])
    result = worst.result(Check.REPLAY_STATES, ["a", "b"], 2, "it")
    assert (result.status, "'b'" in result.message) == (Status.FAILED, True)
    assert Worst().result(Check.REPLAY_STATES, [], 2, "it").status is Status.FAILED


def test_probe_states_differ_from_each_other_and_from_the_stream() -> None:
    manifest = port_manifest()
    states = {name: np.ones(4, np.float32) for name in ("left", "right")}
    changed = perturbed(manifest, states)
    assert not np.array_equal(changed["left"], changed["right"])
    assert not np.array_equal(changed["left"], states["left"])


def test_store_keeps_slots_apart(tmp_path: Path) -> None:
    manifest = port_manifest()
    writer, reader = (FrameStore(tmp_path / "store", manifest, 2) for _ in range(2))
    for slot in range(2):
        value = np.full(4, slot + 1, np.float32)
        writer.write(slot, Frame((value,), {"y": 2 * value}, {"left": 3 * value, "right": 4 * value}))
    for slot in range(2):
        frame = reader.read(slot)
        assert [float(a[0]) for a in (*frame.inputs, *frame.outputs.values(), *frame.states.values())] == [
            (slot + 1) * factor for factor in (1.0, 2.0, 3.0, 4.0)
        ]


GRID = Quantization(scale=0.5, zero_point=-3)
GATE = 2.5 + BORDER_STEPS / 4
"""In steps: midway between 2 and 3."""


class Gated(ToyExecutable):
    """Both states become steps times gates that `round_gates` puts on an int8 grid; `fault` is added to `left`."""

    def __init__(self, round_gates: Callable[[Any], Any], fault: int = 0, gates: int = 1, steps: int = 10) -> None:
        super().__init__()
        self._round_gates = round_gates
        self._fault = fault
        self._gates, self._steps = gates, steps

    def run(self, inputs: Sequence[NDArray[Any]]) -> Sequence[AnyArray]:
        (x, *_) = inputs
        gates = self._round_gates(torch.full((self._gates,), GATE)).numpy()
        stored = np.broadcast_to(self._steps * gates + GRID.zero_point, (4,)).astype(np.int8)
        return [x, stored + np.int8(self._fault), stored]

    def rounded_by(self, borders: Borders) -> Gated:
        """The same without a fault, with gates that `borders` rounds."""
        return Gated(lambda gates: borders.round("gates", gates), gates=self._gates, steps=self._steps)


def int8_session(executable: ToyExecutable) -> PortSession:
    return PortSession(port_manifest(precision=Precision.INT8, scale=GRID), executable)


def replay_gated(artifact: Gated) -> dict[Check, CheckResult]:
    simulation = Simulation(lambda borders: int8_session(artifact.rounded_by(borders)), toy_session)
    replay = Replay(int8_session(artifact), simulation, STEPS)
    reference = toy_session()
    for number, inputs in enumerate(FrameSource(reference.manifest.inputs).steps(STEPS), start=1):
        outputs = reference.step(*inputs)
        replay.step(number, Frame(inputs, outputs, logical_states(reference.manifest, reference.state())))
    return {result.check: result for result in replay.results()}


def test_a_value_on_the_border_of_two_steps_may_go_either_way() -> None:
    for gate, told in ((torch.ceil, ""), (torch.floor, f"rounds {STEPS} values on the border")):
        states = replay_gated(Gated(gate))[Check.SIMULATION_STATES]
        assert states.status is Status.PASSED
        assert told in states.message


def test_a_fault_is_no_matter_of_rounding() -> None:
    for gate in (torch.ceil, torch.floor):
        states = replay_gated(Gated(gate, fault=5))[Check.SIMULATION_STATES]
        assert (states.status, states.tensor) == (Status.FAILED, "left")
    assert replay_gated(Gated(lambda steps: steps.floor() - 1))[Check.SIMULATION_STATES].status is Status.FAILED


def test_a_failure_tells_what_was_tried() -> None:
    states = replay_gated(Gated(torch.floor, fault=5))[Check.SIMULATION_STATES]
    tried, apart = states.message.split("; ")[-2:]
    assert tried == "other roundings of values on the border of two steps were tried: 1"
    # One step of the gate moves all elements by ten, of which one in a hundred may be beyond two.
    assert apart == "simulations with other roundings of values on the border of two steps differ by up to 100 limits"


def test_what_no_single_value_explains_may_be_as_far_as_simulations_are_from_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every element has a gate of its own, near the border of two steps; the artifact takes other sides than the simulation."""
    # As if there were too many to search.
    monkeypatch.setattr("mvtool.verification.nearest.TURNED_VALUES", 0)

    def outcome(round_gates: Callable[[Any], Any], fault: int = 0) -> CheckResult:
        return replay_gated(Gated(round_gates, fault, gates=4, steps=1))[Check.SIMULATION_STATES]

    assert outcome(torch.ceil).status is Status.PASSED
    other = outcome(lambda gates: gates.floor() + torch.tensor([0.0, 0.0, 0.0, 1.0]))
    assert other.status is Status.PASSED
    assert other.message.endswith(("differ by up to 1.5 limits", "differ by up to 2 limits"))
    assert outcome(torch.ceil, fault=3).status is Status.FAILED
