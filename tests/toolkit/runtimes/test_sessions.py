"""One contract for every runtime: reset, step, state, and files that are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from mvtool.build import Build
from mvtool.errors import ManifestError, RuntimeLoadError, UsageError
from mvtool.ports import AnyArray, Precision, Runtime
from mvtool.runtimes import module_of, open_artifact, open_file, runtime_of
from mvtool.runtimes.base import PortSession, ScaleHome
from mvtool.session import Session
from mvtool.verification.frames import FrameSource

pytestmark = pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning")

ALL = [(runtime, precision) for runtime in Runtime for precision in (Precision.FP32, Precision.INT8)]
ENGINES = {Runtime.TFLITE: "LiteRT", Runtime.EXECUTORCH: "ExecuTorch", Runtime.COREML: "reference evaluator"}


@pytest.fixture(params=ALL, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def session(request: pytest.FixtureRequest, tiny_build: Build) -> Session:
    return tiny_build.open(*request.param)


def inputs(session: Session, index: int) -> tuple[AnyArray, ...]:
    return FrameSource(session.manifest.inputs, session.manifest.preprocessing).step(index)


def test_steps_carry_state_and_reset_forgets_it(session: Session) -> None:
    first = session.step(*inputs(session, 0))["logits"]
    second = session.step(*inputs(session, 0))["logits"]
    assert first.shape == (1, 5)
    assert first.dtype == np.float32
    assert not np.array_equal(first, second)
    session.reset()
    np.testing.assert_array_equal(session.step(*inputs(session, 0))["logits"], first)


def test_state_is_stored_as_the_ports_say_and_can_be_put_back(session: Session) -> None:
    for index in range(3):
        session.step(*inputs(session, index))
    kept = session.state()
    for binding in session.manifest.states:
        assert kept[binding.state].shape == binding.input.shape
        assert kept[binding.state].dtype == np.dtype(binding.input.dtype)
    copies = {name: array.copy() for name, array in kept.items()}
    after = session.step(*inputs(session, 3))["logits"]
    for name, array in copies.items():
        np.testing.assert_array_equal(kept[name], array, err_msg="a later step wrote into a state that was handed out")
    session.set_state(copies)
    np.testing.assert_array_equal(session.step(*inputs(session, 3))["logits"], after)


def test_results_stay_valid_after_the_next_step(session: Session) -> None:
    first = session.step(*inputs(session, 0))["logits"]
    copy = first.copy()
    session.step(*inputs(session, 7))
    np.testing.assert_array_equal(first, copy)


def test_wrong_inputs_and_states_are_refused(session: Session) -> None:
    (frame,) = inputs(session, 0)
    with pytest.raises(ManifestError, match="got 0 inputs"):
        session.step()
    with pytest.raises(ManifestError, match="got shape"):
        session.step(frame[..., :-1])
    state = session.state()
    name = session.manifest.states[0].state
    with pytest.raises(ManifestError, match="expected"):
        session.set_state({name: state[name]})
    with pytest.raises(ManifestError, match="of shape"):
        session.set_state({**state, name: state[name][None]})


@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_a_file_alone_says_what_it_is(tiny_build: Build, runtime: Runtime, precision: Precision) -> None:
    path = tiny_build.path(tiny_build.artifact(runtime, precision))
    session = open_artifact(path)
    assert (session.manifest.runtime, session.manifest.precision) == (runtime, precision)
    assert session.manifest == tiny_build.artifact(runtime, precision).ports
    assert runtime_of(path) is runtime
    with pytest.raises(UsageError, match="choose an artifact of a build folder"):
        open_artifact(path, precision=Precision.FP16)


@pytest.mark.parametrize("runtime", list(Runtime))
def test_file_ports_are_the_manifests(tiny_build: Build, runtime: Runtime) -> None:
    entry = tiny_build.artifact(runtime, Precision.INT8)
    ports = module_of(runtime).file_ports(tiny_build.path(entry))
    assert len(ports.inputs) == len(entry.ports.input_ports)
    assert [port.name for port in ports.inputs] == (
        [None] * 5 if runtime is Runtime.EXECUTORCH else [port.name for port in entry.ports.input_ports]
    )
    int8 = sum(bool(port.scales) for port in ports.outputs)
    assert int8 == {ScaleHome.NOWHERE: 0}.get(ports.scale_home, 2)


def test_a_build_opens_its_default_and_checks_the_hash(tiny_build: Build, tmp_path: Path) -> None:
    assert open_artifact(tiny_build.folder).manifest.runtime is Runtime.TFLITE
    assert isinstance(open_artifact(tiny_build.folder, "executorch", "int8"), PortSession)
    folder = tmp_path / "build"
    shutil.copytree(tiny_build.folder, folder)
    entry = tiny_build.artifact()
    with (folder / entry.file).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ManifestError, match="too long"):
        open_artifact(folder)


def test_engines_are_named_for_what_they_are(session: Session) -> None:
    import sys

    native = sys.platform == "darwin" and session.manifest.runtime is Runtime.COREML
    assert session.engine == ("Core ML" if native else ENGINES[session.manifest.runtime])


def test_files_that_are_no_artifacts_are_refused(tmp_path: Path) -> None:
    for name, content in (("a.tflite", b""), ("b.tflite", b"x" * 64), ("c.pte", b"x" * 64), ("d.pte", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RuntimeLoadError):
            open_file(tmp_path / name)
    with pytest.raises(RuntimeLoadError, match="does not exist"):
        open_file(tmp_path / "missing.pte")
    with pytest.raises(UsageError, match="not an artifact"):
        open_file(tmp_path / "model.onnx")
    with pytest.raises(ManifestError, match="not a build folder"):
        open_artifact(tmp_path)
