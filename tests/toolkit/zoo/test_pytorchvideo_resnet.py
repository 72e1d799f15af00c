from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mvtool.errors import SourceError, UsageError, WeightsError
from mvtool.zoo import registry
from mvtool.zoo.checkpoints import load_weights
from mvtool.zoo.macs import count_macs, count_parameters
from mvtool.zoo.pytorchvideo_resnet import Bottleneck, PyTorchVideoResNet, build
from mvtool.zoo.pytorchvideo_resnet_table import Row, Stage
from mvtool.zoo.untrained import deterministic_weights

GOLDENS = {"slow_r50": "resnet3d/ptv_slow_r50", "r2plus1d_50": "r2plus1d/ptv_r2plus1d_r50"}
TINY = Row(
    "tiny",
    "",
    True,
    (Stage(2, 4, 3, 1, 1, 1), Stage(2, 8, 1, 3, 2, 2)),
    frames=4,
    frame_stride=1,
    parameters=0,
    published=(0.0, 0.0, 0.0),
)

Loader = Callable[[str], Any]


def write(golden: Any, folder: Path) -> Path:
    path = folder / "weights.safetensors"
    save_file({key: torch.from_numpy(array) for key, array in golden.tensors().items()}, path)
    return path


def on_meta(name: str) -> PyTorchVideoResNet:
    with torch.device("meta"):
        model = registry.get(name).build()
    assert isinstance(model, PyTorchVideoResNet)
    return model


@torch.no_grad()
@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name: str, load_golden: Loader, tmp_path: Path) -> None:
    """Logits; every tensor of the file goes in."""
    golden = load_golden(GOLDENS[name])
    entry = registry.get(name)
    assert golden.content["input"]["preprocess"] == f"(x - {entry.mean[0]}) / {entry.std[0]}"
    model = entry.build()
    loaded = load_weights(model, write(golden, tmp_path))
    assert loaded.naming == "PyTorchVideo"
    assert loaded.tensors_used == sum("num_batches" not in t["name"] for t in golden.content["tensors"])
    logits = model((torch.from_numpy(golden.clip()) - entry.mean[0]) / entry.std[0])[0].numpy()
    wanted = np.asarray(golden.content["logits"])
    assert np.abs(logits - wanted).max() < 1e-5 * np.abs(wanted).max()
    assert logits.argmax() == wanted.argmax()


@pytest.mark.parametrize("name", GOLDENS)
def test_parameters(name: str) -> None:
    """28,107,600 is the count of the released R(2+1)D; the published 32.45 and 28.11 million agree with both."""
    entry = registry.get(name)
    assert count_parameters(on_meta(name)) == entry.parameters
    assert entry.reported is not None
    assert entry.reported.parameters == pytest.approx(entry.parameters, rel=3e-4)


@pytest.mark.parametrize(("name", "wanted", "tolerance"), [("slow_r50", 54.52, 1e-4), ("r2plus1d_50", 76.45, 2e-2)])
def test_macs(name: str, wanted: float, tolerance: float) -> None:
    """Published for 256 pixels. The layers of R(2+1)D, which reproduce its golden file, sum up to 75.15."""
    entry = registry.get(name)
    macs = count_macs(on_meta(name), (1, 3, entry.frames, 256, 256))
    assert macs / 1e9 == pytest.approx(wanted, rel=tolerance)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("slow_r50", [(8, 56), (8, 56), (8, 28), (8, 14), (8, 7)]),
        ("r2plus1d_50", [(16, 112), (16, 56), (16, 28), (8, 14), (4, 7)]),
    ],
)
def test_sizes_of_the_stages(name: str, sizes: list[tuple[int, int]]) -> None:
    """Frames and pixels behind the stem and each stage, as in the released networks."""
    model = on_meta(name)
    x = model.stem(torch.empty(1, 3, registry.get(name).frames, 224, 224, device="meta"))
    got = [tuple(x.shape[2:4])]
    for stage in model.stages:
        x = stage(x)
        got.append(tuple(x.shape[2:4]))
    assert got == sizes


@pytest.mark.parametrize(
    ("golden", "into", "message"),
    [
        ("slow_r50", "r2plus1d_50", "do not fit"),
        ("r2plus1d_50", "slow_r50", "do not fit"),
        ("slow_r50", "movinet_a0_base", "no known naming"),
    ],
)
def test_refuses_weights_of_another_network(
    golden: str, into: str, message: str, load_golden: Loader, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        load_weights(registry.get(into).build(), write(load_golden(GOLDENS[golden]), tmp_path))


@torch.no_grad()
def test_starts_training_as_published() -> None:
    """Every branch starts as nothing, so its kernels do not matter yet."""
    model = PyTorchVideoResNet(TINY, 5).eval()
    clip = torch.rand(1, 3, 4, 32, 32)
    before = model(clip)
    blocks = [module for module in model.modules() if isinstance(module, Bottleneck)]
    for block in blocks:
        block.spatial.conv.weight.add_(1.0)
    assert len(blocks) == 4
    assert torch.equal(model(clip), before)
    assert float(before.abs().max()) > 0.0


def test_trains() -> None:
    """Every parameter gets a gradient."""
    model = PyTorchVideoResNet(TINY, 5)
    deterministic_weights(model).train()
    model(torch.rand(2, 3, 4, 32, 32)).logsumexp(1).sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0.0 for p in model.parameters())


@pytest.mark.parametrize("shape", [(1, 4, 4, 32, 32), (3, 4, 32, 32)])
def test_refuses_what_is_no_clip(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"got a video of shape .*, expected .* = \(any, 3, any, any, any\)"):
        PyTorchVideoResNet(TINY, 5)(torch.zeros(shape))


def test_unknown_architecture() -> None:
    with pytest.raises(SourceError, match=r"no ResNet 'r50'.*known are slow_r50, r2plus1d_50"):
        build(architecture="r50")
