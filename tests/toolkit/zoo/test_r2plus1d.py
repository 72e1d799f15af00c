from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mvtool.errors import SourceError, UsageError, WeightsError
from mvtool.zoo import registry
from mvtool.zoo.checkpoints import load_weights
from mvtool.zoo.checkpoints.torchvision_r2plus1d import R2Plus1DNaming
from mvtool.zoo.macs import count_macs, count_parameters
from mvtool.zoo.r2plus1d import R2Plus1D, R2Plus1DConfig
from mvtool.zoo.r2plus1d_table import STEM_INNER, STEM_WIDTH, Stage, inner_width
from mvtool.zoo.untrained import deterministic_weights

TOLERANCE = 1e-5
ENTRY = registry.get("r2plus1d_18")
Loader = Callable[[str], Any]


def published() -> R2Plus1D:
    with torch.device("meta"):
        model = ENTRY.build()
    assert isinstance(model, R2Plus1D)
    return model


def tiny() -> R2Plus1D:
    model = R2Plus1D(R2Plus1DConfig(7, stem=(5, 6), stages=(Stage(6, 1, 1), Stage(8, 2, 2)))).eval()
    deterministic_weights(model)
    return model


def test_parameters_and_multiply_adds() -> None:
    """Both as torchvision publishes them, for 400 classes and 16 frames of 112 pixels."""
    model = published()
    assert count_parameters(model) == ENTRY.parameters == 31_505_325
    macs = count_macs(model, (1, 3, ENTRY.frames, ENTRY.resolution, ENTRY.resolution))
    assert macs == pytest.approx(40.52e9, abs=0.005e9)


@pytest.mark.parametrize(
    ("channels", "inner"),
    [((64, 64), 144), ((64, 128), 230), ((128, 128), 288), ((128, 256), 460), ((256, 512), 921), ((512, 512), 1152)],
)
def test_inner_width(channels: tuple[int, int], inner: int) -> None:
    """As in torchvision's checkpoint."""
    assert inner_width(*channels) == inner
    assert (STEM_INNER, STEM_WIDTH) == (45, 64)


def test_shapes_of_the_stages() -> None:
    """Time and space halve together from the second stage on; the stem halves space only."""
    model, shapes = published().to("meta"), []
    for layer in (model.stem, *model.blocks()):
        layer.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    model(torch.empty(1, 3, 16, 112, 112, device="meta"))
    wanted = [(64, 16, 56, 56), (64, 16, 56, 56), (128, 8, 28, 28), (256, 4, 14, 14), (512, 2, 7, 7)]
    assert [shapes[k] for k in (0, 2, 4, 6, 8)] == wanted


@torch.no_grad()
def test_golden(load_golden: Loader, tmp_path: Path) -> None:
    """torchvision's logits of 8 frames of 112 pixels, normalised as its weights ask for."""
    golden = load_golden("r2plus1d/tv_r2plus1d_18")
    path = tmp_path / "r2plus1d.pth"
    torch.save({key: torch.from_numpy(array) for key, array in golden.tensors().items()}, path)
    model = ENTRY.build()
    loaded = load_weights(model, path)
    counters = sum("num_batches_tracked" in entry["name"] for entry in golden.content["tensors"])
    assert loaded.naming == "torchvision (R(2+1)D)"
    assert loaded.tensors_used == len(golden.content["tensors"]) - counters
    mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (ENTRY.mean, ENTRY.std))
    logits = model((torch.from_numpy(golden.clip()) - mean) / std)[0].numpy()
    wanted = np.asarray(golden.content["logits"])
    assert np.abs(logits - wanted).max() / np.abs(wanted).max() < TOLERANCE
    assert int(logits.argmax()) == int(wanted.argmax())


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("stem.3.weight", "stem.temporal.conv.weight"),
        ("stem.4.num_batches_tracked", ""),
        ("layer1.0.conv2.1.running_var", "stage0_block0.second.temporal.norm.running_var"),
        ("layer4.1.conv1.0.0.weight", "stage3_block1.first.spatial.conv.weight"),
        ("layer2.0.downsample.0.weight", "stage1_block0.shortcut.conv.weight"),
        ("fc.bias", "classifier.bias"),
        ("stem.2.weight", None),
        ("layer1.0.conv1.0.2.weight", None),
        ("layer1.0.conv3.0.weight", None),
    ],
)
def test_keys(key: str, expected: str | None) -> None:
    assert R2Plus1DNaming().target(key, published()) == expected


def test_other_files_and_models_are_refused(load_golden: Loader, tmp_path: Path) -> None:
    """A ResNet-50 of the TSM repository has `layer1.0.conv1` too; and these keys are no MoViNet's."""
    shift = [entry["name"] for entry in load_golden("tsm/tsm_resnet50_offline").content["tensors"]]
    torch.save(dict.fromkeys(shift, torch.zeros(1)), tmp_path / "tsm.pth")
    with pytest.raises(WeightsError, match="use no known naming of R2Plus1D"):
        load_weights(tiny(), tmp_path / "tsm.pth")
    keys = [entry["name"] for entry in load_golden("r2plus1d/tv_r2plus1d_18").content["tensors"]]
    assert R2Plus1DNaming().matches(keys, tiny())
    movinet = registry.get("movinet_a0_base").build(resolution=32)
    assert not R2Plus1DNaming().matches(keys, movinet)
    torch.save(dict.fromkeys(keys, torch.zeros(1)), tmp_path / "r2plus1d.pth")
    with pytest.raises(WeightsError, match="use no known naming of MoViNet"):
        load_weights(movinet, tmp_path / "r2plus1d.pth")
    with pytest.raises(WeightsError, match=r"do not fit R2Plus1D: 0 missing, \d+ unexpected"):
        load_weights(tiny(), tmp_path / "r2plus1d.pth")


@torch.no_grad()
@pytest.mark.parametrize("shape", [(2, 3, 1, 32, 32), (1, 3, 5, 33, 50)])
def test_any_size_can_go_in(shape: tuple[int, ...]) -> None:
    assert tiny()(torch.rand(shape)).shape == (shape[0], 7)


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"got a video of shape \(1, 8, 3, 32, 32\), expected .* = \(any, 3, any, any, any\)"
    ):
        tiny()(torch.zeros(1, 8, 3, 32, 32))
    with pytest.raises(SourceError, match="cannot take pictures of 16x16"):
        ENTRY.build(resolution=16)


def test_training_learns() -> None:
    """Gradients reach every parameter."""
    model = tiny().train()
    model(torch.rand(2, 3, 4, 32, 32)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []
