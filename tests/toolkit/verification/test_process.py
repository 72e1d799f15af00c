"""The worker process of `verify` as its parent sees it, without a build."""

from __future__ import annotations

from pathlib import Path

import pytest
from manifests import artifact_entry, port_manifest

from mvtool.ports import Precision, Runtime
from mvtool.verification.messages import Job
from mvtool.verification.process import Worker


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job whose artifact does not exist, so that it ends early, but by itself."""
    return Job(
        artifact=tmp_path / "none.tflite",
        entry_json=artifact_entry(Runtime.TFLITE, Precision.FP32).model_dump_json(by_alias=True),
        reference_json=port_manifest().to_json(),
        simulation=None,
        golden=tmp_path / "none.npz",
        tolerance=None,
        store=tmp_path / "store",
        steps=1,
        threads=1,
    )


def test_modules_in_the_users_folder_do_not_replace_pythons(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("random", "queue", "pickle", "inspect"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken from the folder of the user')")
    monkeypatch.chdir(tmp_path)
    worker = Worker(job, timeout_s=60)
    try:
        worker.wait_finished()
    finally:
        worker.close()
    assert worker.results
    assert "ended with exit code" not in worker.reason
