"""The native runner moves slots as the Python session does, with the real runtimes on real artifacts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import ring_stream
from emitted import write
from native_launches import expected_dump, needed, prepare, split

from mvtool.bench.device import Runner
from mvtool.bench.plan import CHECK_FILE
from mvtool.converters import executorch_lowering
from mvtool.ports import Precision, RingBinding, Runtime, StateLayout

pytest_plugins = ["native_fixtures"]
pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 11
LOOPS = {Runtime.TFLITE: "swap", Runtime.EXECUTORCH: "copy"}
"""ExecuTorch's outputs have planned memory, so the newest entries are copied; slots move by their pointers."""

Rings = Callable[[Runtime, Precision], Path]


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Rings:
    folder = tmp_path_factory.mktemp("rings")
    return lambda target, precision: write(ring_stream.captured(), target, precision, folder, StateLayout.RING)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
@pytest.mark.parametrize("runtime", [Runtime.TFLITE, Runtime.EXECUTORCH])
def test_rings_are_those_of_the_session_byte_by_byte(
    rings: Rings, runtime: Runtime, precision: Precision, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    artifact = rings(runtime, precision)
    runner: Runner = request.getfixturevalue("litert" if runtime is Runtime.TFLITE else "executorch")
    launch = prepare(tmp_path / "run", artifact, runner)
    states = launch.plan.ports.states
    assert all(isinstance(binding, RingBinding) for binding in states)
    assert {bool(binding.reset.element_hex) for binding in states} == {True, False}
    assert launch.run(check_steps=STEPS).state_loop == LOOPS[runtime]
    assert (launch.folder / CHECK_FILE).read_bytes() == expected_dump(artifact, STEPS)


def test_the_tflite_c_library_copies_slots_in_their_order(program: Path, tmp_path: Path) -> None:
    """Version 2.9, which has no convolution with groups."""
    library = needed("MVTOOL_TFLITE_C", "libtensorflowlite_c.so")
    artifact = write(
        ring_stream.captured(groups=1), Runtime.TFLITE, Precision.FP32, tmp_path / "artifact", StateLayout.RING
    )
    launch = prepare(tmp_path / "run", artifact, Runner(program, library))
    assert launch.run(check_steps=STEPS).state_loop == "copy"
    dumps = ((launch.folder / CHECK_FILE).read_bytes(), expected_dump(artifact, STEPS))
    for (_, got), (_, want) in zip(*(split(launch.plan.ports, dump, STEPS) for dump in dumps), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.slow
def test_slots_in_planned_memory_are_refused(
    executorch: Runner, rings: Rings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime gives such memory away within a step."""
    original = executorch_lowering.lower_to_executorch

    def planned(exported: object, methods: object, plan_inputs: bool) -> object:
        assert not plan_inputs
        return original(exported, methods, plan_inputs=True)  # type: ignore[arg-type]

    monkeypatch.setattr("mvtool.converters.executorch.lower_to_executorch", planned)
    artifact = write(ring_stream.captured(), Runtime.EXECUTORCH, Precision.FP32, tmp_path, StateLayout.RING)
    ended = prepare(tmp_path / "run", artifact, executorch).start()
    assert "plans the memory of slot frames_slot0, so it does not outlive a step" in ended.stderr
    assert ended.returncode != 0
