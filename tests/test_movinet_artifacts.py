"""MoViNet streams through every emitter: one delegate, and the written file holds. Minutes per model."""

from __future__ import annotations

from pathlib import Path

import pytest

import mvtool
from mvtool.build import Build

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", params=["a0", "a1", "a2"])
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Build:
    out = tmp_path_factory.mktemp(request.param) / "build"
    return mvtool.convert(f"movinet_{request.param}_stream", precisions=["fp32", "int8"], out=out)


def test_one_delegate_takes_everything(build: Build) -> None:
    for precision in ("fp32", "int8"):
        assert build.artifact("tflite", precision).delegation == {"delegates": 1, "fully_accelerated": True}
        assert build.artifact("executorch", precision).delegation == {"delegates": 1, "operators_outside": {}}


def test_every_artifact_is_verified(build: Build) -> None:
    verification = mvtool.verify(build.folder)
    assert verification.passed, verification.failures


def test_int8_files_are_small(build: Build) -> None:
    for runtime in ("tflite", "executorch"):
        fp32, int8 = (build.artifact(runtime, precision).bytes for precision in ("fp32", "int8"))
        assert int8 < 0.33 * fp32


def test_no_state_has_more_than_four_axes(build: Build) -> None:
    for artifact in build.manifest.artifacts:
        assert max(len(b.input.shape) for b in artifact.ports.states) <= 4


def test_no_transpose_is_left_in_tflite(build: Build) -> None:
    from mvtool.operators import count
    from mvtool.ports import Runtime

    for precision in ("fp32", "int8"):
        path: Path = build.path(build.artifact("tflite", precision))
        assert "TRANSPOSE" not in count(path, Runtime.TFLITE)
