"""`--rewrite 2plus1d --max-drop`: the accuracy chooses the rank."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hard_net import CLASSES, answered_videos
from torch import Tensor, nn

import mvtool
from mvtool.build import Build
from mvtool.converters import rank_control
from mvtool.converters.inputs import parse_input
from mvtool.ports import Precision, Runtime
from mvtool.streaming import StreamConv3d

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


class Net(nn.Module):
    """One dense kernel over space and time, whose singular values fall by halves."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = StreamConv3d(3, 8, (3, 3, 3), causal=True, input_shape=(1, 16, 16), bias=True)
        self.head = nn.Linear(8, len(CLASSES))

    def forward(self, frame: Tensor) -> Tensor:
        scores: Tensor = self.head(self.conv(frame).relu().mean((2, 3, 4)))
        return scores


def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        made = Net().eval()
        with torch.no_grad():
            rows = made.conv.weight.permute(0, 2, 1, 3, 4).reshape(24, 27)
            left, _, right = torch.linalg.svd(rows, full_matrices=False)
            kernel = (left * 0.5 ** torch.arange(24.0)) @ right
            made.conv.weight.copy_(3 * kernel.reshape(8, 3, 3, 3, 3).permute(0, 2, 1, 3, 4))
            made.head.weight.normal_()
            scores = torch.cat([made(torch.rand(1, 3, 1, 16, 16)) for _ in range(50)])
            made.head.bias.sub_(scores.mean(0))
    return made


def answer(frames: list[Tensor]) -> Tensor:
    made = net()
    scores: list[Tensor] = [made(frame.unsqueeze(2)) for frame in frames]
    return scores[-1]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> str:
    return answered_videos(tmp_path_factory.mktemp("videos") / "all", answer)


def converted(place: Path, videos: str, max_drop: float, rewrite: str = "2plus1d") -> tuple[Build, int]:
    labels = place.parent / "labels.txt"
    labels.write_text("\n".join(CLASSES))
    build = mvtool.convert(
        net(),
        inputs=[parse_input("frame=1x3x1x16x16")],
        targets=["tflite"],
        out=place,
        labels=str(labels),
        rewrite=rewrite,
        max_drop=max_drop,
        evaluation=videos,
        parallel=1,
    )
    report = build.artifact(Runtime.TFLITE, Precision.FP32).rewrites[0]
    found = re.search(r"conv: rank (\d+) of 24", "\n".join(report.details))
    assert found
    return build, int(found[1])


@pytest.mark.slow
def test_the_accuracy_chooses_the_rank(tmp_path: Path, videos: str) -> None:
    strict, most = converted(tmp_path / "strict", videos, 0.0)
    loose, fewest = converted(tmp_path / "loose", videos, 0.3)
    assert fewest < most < 24
    for build, allowed in ((strict, 0.0), (loose, 30.0)):
        details = build.artifact(Runtime.TFLITE, Precision.FP32).rewrites[0].details
        told = re.match(r"rank by energy [\d.]+, which loses (-?[\d.]+) points .* on 40 clips of ", details[0])
        assert told
        assert float(told[1]) <= allowed
    assert mvtool.verify(tmp_path / "loose").passed


@pytest.mark.slow
def test_where_no_rank_holds_all_pairs_are_kept(tmp_path: Path, videos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_control, "ENERGIES", (0.01,))
    build, rank = converted(tmp_path / "net", videos, 0.0)
    assert rank == 24
    details = build.artifact(Runtime.TFLITE, Precision.FP32).rewrites[0].details
    assert details[0] == "no rank below all pairs loses at most 0 points"
