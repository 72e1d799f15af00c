"""States in slots: the binding in the manifest, its bytes, and sessions that hand arrays on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from manifests import port_fields, port_manifest
from pydantic import ValidationError

from mvtool import slots
from mvtool.errors import ManifestError
from mvtool.ports import (
    AnyArray,
    InputPort,
    LogicalState,
    OutputPort,
    PortManifest,
    Precision,
    ResetBytes,
    RingBinding,
    Runtime,
    TensorPort,
)
from mvtool.runtimes.base import PortSession

WHOLE = np.arange(2 * 3 * 4, dtype=np.float32).reshape(1, 2, 3, 4)
"""(N, C, T, W): three slots along axis 2."""


def slot(name: str, position: int, **more: Any) -> TensorPort:
    """One entry of `WHOLE`, as (T, W, C)."""
    fields = port_fields(name, position, (1, 2, 1, 4))
    return TensorPort(**{**fields, "permutation": (0, 2, 3, 1), "shape": (1, 4, 2), **more})


def ring(outputs: int = 1, **more: Any) -> dict[str, Any]:
    inputs = tuple(slot(f"past_slot{n}", 1 + n) for n in range(3))
    newest = tuple(slot(f"past_next{n}", 1 + n) for n in range(outputs))
    whole = slots.whole_port("past", inputs, 2)
    reset = ResetBytes.of(whole.encode(WHOLE))
    return {"state": "past", "form": "ring", "axis": 2, "inputs": inputs, "outputs": newest, "reset": reset, **more}


def manifest(outputs: int = 1) -> PortManifest:
    return PortManifest(
        model="toy",
        runtime=Runtime.TFLITE,
        precision=Precision.FP32,
        inputs=(InputPort(**port_fields("x", 0, (1, 2, outputs, 4))),),
        outputs=(OutputPort(**port_fields("sum", 0, (1,))),),
        logical_states=(LogicalState(name="past", source="past", meaning="", shape=(1, 2, 3, 4), dtype="float32"),),
        states=(RingBinding(**ring(outputs)),),
    )


class Rolling:
    """Sums the slots, the oldest by 1, the next by 10, ..., and gives what came in, frame by frame."""

    engine = "Python"

    def __init__(self) -> None:
        self.taken: list[AnyArray] = []

    def run(self, inputs: Sequence[AnyArray]) -> Sequence[AnyArray]:
        x, *self.taken = inputs
        total = sum(float(array.sum()) * 10**place for place, array in enumerate(self.taken))
        frames = [x[:, :, n : n + 1].transpose(0, 2, 3, 1).reshape(1, 4, 2).copy() for n in range(x.shape[2])]
        return [np.array([total], np.float32), *frames]


@pytest.mark.parametrize("shape", [(), (5,), (1, 4, 2), (1, 6, 7, 8), (5, 1, 2, 3), (2, 3, 4, 5)])
def test_the_whole_has_four_axes_and_its_slots_lie_behind_each_other(shape: tuple[int, ...]) -> None:
    logical = (*shape, 1)
    port = TensorPort(**{**port_fields("s", 3, logical), "shape": shape})
    whole = slots.whole_port("s", [port] * 3, len(shape))
    assert len(whole.shape) <= 4
    values = np.random.default_rng(1).random((*shape, 3), np.float32)
    parts = slots.split(whole.encode(values), [port] * 3)
    for number, part in enumerate(parts):
        np.testing.assert_array_equal(part, port.encode(values[..., number : number + 1]))
        assert part.flags.c_contiguous
    np.testing.assert_array_equal(whole.decode(slots.join(parts, whole)), values)


@pytest.mark.parametrize("frames", [1, 2])
def test_a_session_hands_slots_on_without_a_copy(frames: int) -> None:
    executable = Rolling()
    session = PortSession(manifest(frames), executable)
    np.testing.assert_array_equal(session.manifest.states[0].input.decode(session.state()["past"]), WHOLE)
    history = [WHOLE[:, :, n : n + 1] for n in range(3)]
    for step in range(5):
        x = np.full((1, 2, frames, 4), step, np.float32)
        before = executable.taken
        found = session.step(x)["sum"]
        expected = sum(float(part.sum()) * 10**place for place, part in enumerate(history[-3:]))
        assert found == pytest.approx(expected)
        assert step == 0 or all(a is b for a, b in zip(before[frames:], executable.taken, strict=False))
        history += [x[:, :, n : n + 1] for n in range(frames)]
    whole = session.manifest.states[0].output.decode(session.state()["past"])
    np.testing.assert_array_equal(whole, np.concatenate(history[-3:], 2))
    kept = session.state()
    session.reset()
    session.set_state(kept)
    np.testing.assert_array_equal(session.state()["past"], kept["past"])
    with pytest.raises(ManifestError, match=r"expected float32 of \(3, 1, 4, 2\)"):
        session.set_state({"past": kept["past"][:2]})


def test_a_ring_survives_json_and_shifted_states_keep_their_text() -> None:
    found = manifest()
    assert PortManifest.from_json(found.to_json(), "here") == found
    assert [port.name for port in found.input_ports] == ["x", "past_slot0", "past_slot1", "past_slot2"]
    text = port_manifest().to_json()
    assert '"axis"' not in text
    assert PortManifest.from_json(text, "here").states[0].inputs[0].name == "left"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": (slot("a", 1), slot("b", 2, multiplier=2.0))}, "both sides of the loop must agree"),
        ({"outputs": (slot("a", 1, dtype="float16"),)}, "both sides of the loop must agree"),
        ({"axis": 1}, "axis 1 must have size 1"),
        ({"axis": 4}, "axis 4 must have size 1"),
        ({"outputs": tuple(slot(f"n{n}", n) for n in range(3))}, "3 outputs for 3 slots"),
        ({"inputs": (slot("a", 1),)}, "at least 2 items"),
        ({"form": "fifo"}, "Input should be"),
    ],
)
def test_a_ring_that_is_none_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RingBinding(**ring(outputs=1) | changes)


def test_a_shifted_state_that_calls_itself_a_ring_is_refused() -> None:
    text = port_manifest().to_json().replace('"form":"opaque"', '"form":"ring"', 1)
    with pytest.raises(ManifestError, match="is a ring, which has"):
        PortManifest.from_json(text, "here")
