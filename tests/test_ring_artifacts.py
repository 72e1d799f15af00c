"""Builds in the ring layout: verified, evaluated, and equal to those in the shift layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ring_stream
from mutants import Copy
from tiny_models import seeded

import mvtool
from mvtool.build import Build
from mvtool.converters.inputs import InputSpec
from mvtool.ports import Precision, RingBinding, Runtime
from mvtool.verification.frames import FrameSource
from mvtool.verification.report import Check, Status

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PRECISIONS = ("fp32", "int8")
STEPS = 20
PAIRS = [(runtime, Precision(precision)) for runtime in Runtime for precision in PRECISIONS]


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Build]:
    """The two-layer stream in both layouts, for all targets."""
    folder, size = tmp_path_factory.mktemp("builds"), ring_stream.SIZE
    inputs = [InputSpec("frame", (1, 3, 1, size, size))]
    return {
        layout: mvtool.convert(
            seeded(ring_stream.RingStream),
            inputs=inputs,
            precisions=PRECISIONS,
            state_layout=layout,
            out=folder / layout,
        )
        for layout in ("shift", "ring")
    }


def test_every_file_is_verified(builds: dict[str, Build]) -> None:
    assert builds["ring"].manifest.options == {"state_layout": "ring"}
    verification = mvtool.verify(builds["ring"].folder)
    assert verification.passed, verification.failures
    for artifact in builds["ring"].manifest.artifacts:
        assert all(isinstance(binding, RingBinding) for binding in artifact.ports.states)


@pytest.mark.parametrize(("runtime", "precision"), PAIRS)
def test_both_layouts_compute_the_same(builds: dict[str, Build], runtime: Runtime, precision: Precision) -> None:
    sessions = [build.open(runtime, precision) for build in builds.values()]
    source = FrameSource(sessions[0].manifest.inputs, sessions[0].manifest.preprocessing)
    steps = [[session.step(*source.step(number))["logits"] for session in sessions] for number in range(STEPS)]
    shift, ring = (np.concatenate(side) for side in zip(*steps, strict=True))
    # float16 between int8 operators falls to one side or the other of a step.
    limit = 1e-6 if precision is Precision.FP32 else 0.02
    assert float(np.abs(shift - ring).max()) <= limit * float(np.abs(shift).max())
    scales = [[b.input.quantization or b.input.grid for b in session.manifest.states] for session in sessions]
    assert scales[0] == scales[1]


@pytest.mark.parametrize("runtime", list(Runtime))
def test_swapped_slots_are_found(builds: dict[str, Build], runtime: Runtime, tmp_path: Path) -> None:
    """A manifest that names two slots in the wrong order feeds an older frame for a newer one."""
    damaged = Copy(builds["ring"], tmp_path / "copy", runtime, Precision.FP32)
    damaged.edit_manifest(swap_slots)
    results = damaged.examine(damaged.rehashed(swap_slots))
    assert results[Check.ORDER].status is Status.FAILED
    assert results[Check.REPLAY_OUTPUTS].status is Status.FAILED


def swap_slots(manifest: dict[str, Any]) -> None:
    """Exchange the oldest slot of the second state with the third."""
    slots = manifest["states"][1]["inputs"]
    first, third = slots[0], slots[2]
    for field in ("name", "position"):
        first[field], third[field] = third[field], first[field]


def test_the_nano_model_of_the_zoo_holds(tmp_path: Path) -> None:
    build = mvtool.convert("movinet_nano_motion", precisions=PRECISIONS, state_layout="ring", out=tmp_path / "nano")
    verification = mvtool.verify(build.folder)
    assert verification.passed, verification.failures
    states = build.artifact(Runtime.TFLITE, Precision.INT8).ports.states
    rings = [binding for binding in states if isinstance(binding, RingBinding)]
    assert sorted(len(binding.inputs) for binding in rings) == [2] * 6 + [4] * 2
    assert all(len(binding.outputs) == 1 for binding in rings)
