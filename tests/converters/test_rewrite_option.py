"""`--rewrite 2plus1d` from the module to files that are verified."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mvtool
from mvtool.build import Build
from mvtool.converters.inputs import parse_input
from mvtool.errors import UsageError
from mvtool.ports import Precision, Runtime
from mvtool.streaming import StreamConv3d

INPUT = parse_input("frame=1x3x1x16x16")


class Net(nn.Module):
    """A dense and a strided depthwise kernel over space and time."""

    def __init__(self) -> None:
        super().__init__()
        self.first = StreamConv3d(3, 8, (3, 3, 3), causal=True, input_shape=(1, 16, 16), bias=True)
        self.second = StreamConv3d(8, 8, (3, 3, 3), stride=2, groups=8, causal=True, input_shape=(1, 16, 16))
        self.head = nn.Linear(8, 4)

    def forward(self, frame: Tensor) -> Tensor:
        seen = self.second(self.first(frame).relu()).relu()
        scores: Tensor = self.head(seen.mean((2, 3, 4)))
        return scores


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def converted(place: Path, rewrite: str | None, *precisions: str, runtime: str = "tflite") -> Build:
    return mvtool.convert(
        net(), inputs=[INPUT], targets=[runtime], precisions=precisions or ["fp32"], out=place, rewrite=rewrite
    )


def state_bytes(build: Build) -> list[int]:
    ports = build.artifact(Runtime.TFLITE, Precision.FP32).ports
    return [4 * int(torch.tensor(state.input.shape).prod()) for state in ports.states]


def test_all_pairs_are_exact_and_the_files_are_verified(tmp_path: Path) -> None:
    build = converted(tmp_path / "full", "2plus1d", "fp32", "int8")
    report = build.artifact(Runtime.TFLITE, Precision.FP32).rewrites[0]
    assert (report.name, report.changed) == ("2plus1d", 2)
    assert report.max_difference < 1e-5
    assert report.details[0].startswith("one call: 180 thousand to 332 thousand multiply-adds, states 6 thousand to 15")
    assert report.details[1].startswith("first: rank 24 of 24, 1.0000 of the energy, space first")
    assert build.manifest.options["rewrite"] == "2plus1d"
    verification = mvtool.verify(tmp_path / "full")
    assert verification.passed, verification.failures


@pytest.mark.slow
def test_one_pair_moves_the_state_behind_the_stride(tmp_path: Path) -> None:
    plain, one = converted(tmp_path / "plain", None), converted(tmp_path / "one", "2plus1d:1")
    # Two frames of 3 x 16 x 16 and of 8 x 16 x 16, then of 1 x 16 x 16 and of 8 x 8 x 8.
    assert state_bytes(plain) == [2 * 4 * 3 * 256, 2 * 4 * 8 * 256]
    assert state_bytes(one) == [2 * 4 * 256, 2 * 4 * 8 * 64]
    report = one.artifact(Runtime.TFLITE, Precision.FP32).rewrites[0]
    assert report.max_difference > 1e-3
    assert report.details[2].endswith("space first, 216 to 96 multiply-adds per position, state 4096 to 1024")
    assert mvtool.verify(tmp_path / "one").passed


@pytest.mark.slow
def test_the_module_itself_is_not_changed(tmp_path: Path) -> None:
    module = net()
    mvtool.convert(module, inputs=[INPUT], targets=["tflite"], out=tmp_path / "x", rewrite="2plus1d:0.9")
    assert isinstance(module.first, StreamConv3d)


@pytest.mark.parametrize("rewrite", ["3plus1d", "2plus1d:0", "2plus1d:much"])
def test_what_is_no_rewrite(tmp_path: Path, rewrite: str) -> None:
    with pytest.raises(UsageError, match="2plus1d"):
        converted(tmp_path, rewrite)


def test_a_model_without_such_kernels(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no convolution over space and time"):
        mvtool.convert(
            nn.Conv2d(3, 4, 3), inputs=[parse_input("1x3x8x8")], targets=["tflite"], out=tmp_path, rewrite="2plus1d"
        )
