"""One small model of each kind, for all runtimes, in fp32 and int8, verified from disk. Full sizes are in docs/zoo.md."""

from __future__ import annotations

from pathlib import Path

import pytest

import mvtool
from mvtool.build import Build
from mvtool.converters.tflite_graph import Graph

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

# Depthwise 3D kernels and squeeze-excite; attention and dynamic ReLU; states behind temporal strides.
MODELS = ("x3d_xs", "video_mobile_former_560m", "resnet3d_50_stream")
RESOLUTION = 64


@pytest.mark.parametrize("model", MODELS)
def test_all_runtimes_compute_the_model(model: str, tmp_path: Path) -> None:
    build = mvtool.convert(model, resolution=RESOLUTION, precisions=["fp32", "int8"], out=tmp_path / model)
    for precision in ("fp32", "int8"):
        assert build.artifact("tflite", precision).delegation == {"delegates": 1, "fully_accelerated": True}
        assert build.artifact("executorch", precision).delegation == {"delegates": 1, "operators_outside": {}}
        check_2d(build, precision)
    verification = mvtool.verify(build.folder)
    assert verification.failures == ()
    assert len(verification.artifacts) == 6


def check_2d(build: Build, precision: str) -> None:
    """No 3D operator and no tensor of more than four axes."""
    graph = Graph.parse(build.path(build.artifact("tflite", precision)).read_bytes())
    kinds = {graph.kind(operator) for operator in graph.operators}
    assert kinds
    assert not {kind for kind in kinds if "3D" in kind}
    used = {int(t) for operator in graph.operators for t in (*operator.inputs, *operator.outputs) if t >= 0}
    assert max(len(graph.shape(tensor)) for tensor in used) <= 4
