"""`verify` as a whole: real processes, real builds, and what it does when one of them dies."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mvtool import cli
from mvtool.build import Build, RequestedArtifact
from mvtool.errors import ManifestError
from mvtool.ports import Precision, Runtime
from mvtool.verification.messages import ALL_SLOTS
from mvtool.verification.process import Worker
from mvtool.verification.report import Check, Status, Verification
from mvtool.verification.store import FrameStore
from mvtool.verification.verify import make_job, verify

pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning"),
]


def one_artifact(build: Build, folder: Path) -> Build:
    """A copy of the build with its .tflite fp32 alone, which needs no PyTorch in its worker."""
    shutil.copytree(build.folder, folder)
    entry = build.artifact(Runtime.TFLITE, Precision.FP32)
    for other in build.manifest.artifacts:
        path = folder / other.file
        if other.file != entry.file:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    requested = (RequestedArtifact(runtime=entry.runtime, precision=entry.precision),)
    changes = {"artifacts": (entry,), "simulations": (), "requested": requested}
    manifest = build.manifest.model_copy(update=changes)
    Build(folder, manifest).save()
    return Build.load(folder)


@pytest.fixture
def small(tiny_build: Build, tmp_path: Path) -> Build:
    return one_artifact(tiny_build, tmp_path / "small")


def statuses(verification: Verification) -> dict[Check, Status]:
    (artifact,) = verification.artifacts
    return {result.check: result.status for result in (*verification.checks, *artifact.checks)}


def test_every_artifact_of_a_build_holds(tiny_build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "build"
    shutil.copytree(tiny_build.folder, folder)
    threads = torch.get_num_threads()
    told: list[tuple[str, int, int]] = []
    found = verify(folder, progress=lambda *what: told.append(what))
    assert found.failures == ()
    assert found.passed
    assert (found.frames, found.distinct_inputs, len(found.artifacts)) == (300, 300, 6)
    assert Build.load(folder).manifest.verification == found
    assert ("replaying frames", 300, 300) in told
    assert torch.get_num_threads() == threads
    engines = {artifact.runtime: artifact.engine for artifact in found.artifacts}
    assert engines[Runtime.TFLITE] == "LiteRT"
    assert engines[Runtime.EXECUTORCH] == "ExecuTorch"
    for artifact in found.artifacts:
        frames = [snr.frame for snr in artifact.snr]
        assert frames == ([1, 50, 300] if artifact.precision is Precision.INT8 else [])


def test_too_few_frames_do_not_verify(small: Build) -> None:
    found = verify(small.folder, frames_replayed=12, save=False)
    assert not found.passed
    assert {check for check, status in statuses(found).items() if status is not Status.PASSED} == {Check.INPUTS}
    assert Build.load(small.folder).manifest.verification is None


def test_a_build_that_can_only_be_read_is_verified_with_a_warning(
    small: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (small.folder / "manifest.json").read_bytes()

    def refuse(target: Path, data: bytes) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(target))

    monkeypatch.setattr("mvtool.build.write_atomic", refuse)
    with pytest.raises(SystemExit) as end:
        cli.main(["verify", str(small.folder)])
    assert end.value.code == 0
    shown = capsys.readouterr()
    assert f"{small.manifest.model.name} is verified: 1 of 1" in shown.out
    records = [record for record in caplog.records if record.name.startswith("mvtool")]
    told = f"The report is not saved in {small.folder}: Read-only file system. The verdict stands."
    assert [record.getMessage() for record in records] == [told]
    assert (small.folder / "manifest.json").read_bytes() == before


def test_files_beside_the_artifacts_are_checked_too(small: Build) -> None:
    golden, program = small.path(small.manifest.golden), small.path(small.manifest.program)
    golden.write_bytes(golden.read_bytes() + b"x")
    (program / "extra").write_bytes(b"x")
    (small.folder / "stray.pte").write_bytes(b"x")
    found = verify(small.folder, frames_replayed=8)
    bad = {check: status for check, status in statuses(found).items() if status is not Status.PASSED}
    assert {Check.REFERENCE_FILES, Check.LISTED, Check.GOLDEN_FILE} <= set(bad)
    assert "stray.pte" in " ".join(found.failures)


def test_without_a_reference_nothing_passes(small: Build) -> None:
    shutil.rmtree(small.path(small.manifest.program))
    found = verify(small.folder)
    assert not found.passed
    assert statuses(found)[Check.REPLAY_STATES] is Status.NOT_RUN


def test_a_missing_artifact_fails(small: Build) -> None:
    (small.folder / small.manifest.artifacts[0].file).unlink()
    found = verify(small.folder, frames_replayed=8)
    assert statuses(found)[Check.SIZE] is Status.FAILED
    assert "is missing" in " ".join(found.failures)


def test_a_requested_artifact_that_was_not_written_fails(small: Build) -> None:
    wanted = (*small.manifest.requested, RequestedArtifact(runtime=Runtime.COREML, precision=Precision.INT8))
    Build(small.folder, small.manifest.model_copy(update={"requested": wanted})).save()
    found = verify(small.folder, frames_replayed=8, save=False)
    assert statuses(found)[Check.LISTED] is Status.FAILED
    assert "coreml int8 was requested but is not in the build" in " ".join(found.failures)
    assert not found.passed


def test_a_build_that_does_not_say_what_was_requested_is_accepted(small: Build) -> None:
    document = json.loads((small.folder / "manifest.json").read_text())
    del document["requested"]
    (small.folder / "manifest.json").write_text(json.dumps(document))
    found = verify(small.folder, frames_replayed=8, save=False)
    assert statuses(found)[Check.LISTED] is Status.PASSED


def test_an_unknown_kind_of_artifact_is_refused(small: Build) -> None:
    path = small.folder / "manifest.json"
    document = json.loads(path.read_text())
    document["artifacts"][0]["runtime"] = "onnx"
    path.write_text(json.dumps(document))
    with pytest.raises(ManifestError, match="runtime"):
        verify(small.folder)


@pytest.fixture
def worker(small: Build, tmp_path: Path) -> Iterator[Worker]:
    entry = small.manifest.artifacts[0]
    FrameStore(tmp_path / "store", entry.ports, ALL_SLOTS)
    job = make_job(small, entry, entry.ports, tmp_path / "store", 300, 1)
    made = Worker(job, timeout_s=60)
    yield made
    made.close()


def test_a_worker_that_dies_is_reported_with_its_activity(worker: Worker) -> None:
    worker.wait_ready()
    os.kill(worker.pid, signal.SIGSEGV)
    worker.wait_finished()
    assert worker.blame
    assert "was killed by SIGSEGV while loading" in worker.reason


def test_a_worker_that_hangs_is_reported_and_ended(worker: Worker) -> None:
    worker.wait_ready()
    os.kill(worker.pid, signal.SIGSTOP)
    worker.timeout_s = 0.2
    worker.wait_finished()
    assert worker.blame
    assert worker.reason.startswith("no answer for 0.2 s")


def test_a_crash_in_one_artifact_leaves_the_report(small: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Worker.wait_ready

    def kill(self: Worker) -> None:
        started(self)
        os.kill(self.pid, signal.SIGKILL)

    monkeypatch.setattr(Worker, "wait_ready", kill)
    found = verify(small.folder, frames_replayed=8)
    (artifact,) = found.artifacts
    failures = {result.check: result for result in artifact.failures}
    assert "SIGKILL" in failures[Check.LOADS].message
    assert failures[Check.REPLAY_STATES].status is Status.NOT_RUN
    assert not found.passed


@pytest.mark.slow
def test_a_model_of_whole_clips(tmp_path: Path) -> None:
    from tiny_models import SIZE, TinyClip, seeded

    from mvtool.converters.inputs import InputSpec
    from mvtool.converters.pipeline import convert

    spec = InputSpec("frame", (1, 3, 4, SIZE, SIZE))
    build = convert(
        seeded(TinyClip), targets=["coreml"], inputs=[spec], out=tmp_path / "clip", precisions=("fp32", "int8")
    )
    found = verify(build.folder)
    assert found.failures == ()
    assert (found.frames, found.step, found.distinct_inputs) == (2, "clip", 2)
    for artifact in found.artifacts:
        checks = {result.check for result in artifact.checks}
        assert Check.ORDER in checks
        assert {Check.REPLAY_STATES, Check.TIED_STATES, Check.RESET_VALUE}.isdisjoint(checks)
