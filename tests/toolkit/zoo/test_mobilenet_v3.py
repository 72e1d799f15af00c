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
from mvtool.zoo.mobilenet import Excite, InvertedBottleneck, MobileNet, build
from mvtool.zoo.mobilenet_v3_table import IMAGENET_MEAN, IMAGENET_STD
from mvtool.zoo.untrained import deterministic_weights

Loader = Callable[[str], Any]
TOLERANCE = 1e-5
PARAMETERS = {"small": (2_542_856, 2_132_856, 1_927_856), "large": (5_483_032, 4_970_632, 4_714_432)}
"""With 1000 (published with torchvision's weights), 600 and 400 classes."""


def normalised(golden: Any) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (torch.from_numpy(golden.clip()) - mean) / std


def write(golden: Any, folder: Path) -> Path:
    path = folder / "weights.safetensors"
    save_file({key: torch.from_numpy(array) for key, array in golden.tensors().items()}, path)
    return path


def error(got: torch.Tensor, wanted: list[float], largest: float) -> float:
    return float(np.abs(got.numpy()[: len(wanted)] - np.asarray(wanted)).max()) / largest


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    with torch.device("meta"):
        counts = [count_parameters(build(architecture=name, num_classes=n)) for n in (1000, 600, 400)]
    assert tuple(counts) == PARAMETERS[name]
    assert registry.get(f"mobilenet_v3_{name}").parameters == PARAMETERS[name][1]


@pytest.mark.parametrize(("name", "macs"), [("small", 56.1e6), ("large", 216.1e6)])
def test_macs_are_those_of_the_papers(name: str, macs: float) -> None:
    """Of one frame; the MoViNet paper's count of 50 frames is 2 % higher for Large."""
    entry = registry.get(f"mobilenet_v3_{name}")
    assert count_macs(entry.build(), (1, 3, 1, 224, 224)) == pytest.approx(macs, rel=1e-3)
    assert entry.reported is not None
    assert entry.reported.macs == pytest.approx(macs, rel=0.02)


@torch.no_grad()
@pytest.mark.parametrize("name", PARAMETERS)
def test_golden(name: str, load_golden: Loader, tmp_path: Path) -> None:
    """Logits of every frame, alone and in a clip, and their mean."""
    golden = load_golden(f"mobilenet_v3/tv_mobilenet_v3_{name}")
    model = registry.get(f"mobilenet_v3_{name}").build(num_classes=1000)
    loaded = load_weights(model, write(golden, tmp_path))
    counters = sum("num_batches_tracked" in t["name"] for t in golden.content["tensors"])
    assert (loaded.naming, loaded.tensors_used) == (
        "torchvision MobileNetV3",
        len(golden.content["tensors"]) - counters,
    )
    clip, largest = normalised(golden), float(np.abs(golden.content["mean_logits"]).max())
    assert error(model(clip)[0], golden.content["mean_logits"], largest) < TOLERANCE
    assert isinstance(model, MobileNet)
    every = model.frame_logits(clip)[0]
    for t, wanted in enumerate(golden.content["frame_logits"]):
        for logits in (every[t], model(clip[:, :, t : t + 1])[0]):
            assert error(logits, wanted["first"], largest) < TOLERANCE
            assert int(logits.argmax()) == wanted["argmax"]


@torch.no_grad()
def test_videos_of_a_batch_do_not_mix() -> None:
    """Two videos in one call and one after the other."""
    model = build(architecture="small", num_classes=5, resolution=33)
    deterministic_weights(model)
    videos = torch.rand(2, 3, 4, 33, 33)
    together = model(videos)
    torch.testing.assert_close(together, torch.cat([model(video[None]) for video in videos]), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(together[0], together[1])
    torch.testing.assert_close(model.frame_logits(videos).mean(1), together)


def test_rows_of_the_table() -> None:
    """Where MobileNetV3 has squeeze-excites and residuals, and the rounding of their hidden layers."""
    model = build(architecture="large")
    layers = [layer for layer in model.layers if isinstance(layer, InvertedBottleneck)]
    excites = {i: layer.excite for i, layer in enumerate(layers, 1) if isinstance(layer.excite, Excite)}
    hidden = {i: excite.reduce.out_channels for i, excite in excites.items()}
    assert hidden == {4: 24, 5: 32, 6: 32, 11: 120, 12: 168, 13: 168, 14: 240, 15: 240}
    assert [i for i, layer in enumerate(layers, 1) if layer.residual] == [1, 3, 5, 6, 8, 9, 10, 12, 14, 15]
    assert isinstance(layers[0].expand, torch.nn.Identity)


def test_wrong_inputs_are_refused(load_golden: Loader, tmp_path: Path) -> None:
    model = build(architecture="small")
    with pytest.raises(UsageError, match=r"MobileNetV3-Small got a video of shape .* = \(any, 3, any, 224, 224\)"):
        model(torch.zeros(1, 3, 2, 224, 200))
    with pytest.raises(SourceError, match="no MobileNetV3 'medium'; there are small, large"):
        build(architecture="medium")
    with pytest.raises(SourceError, match="cannot take pictures of 16x16"):
        registry.get("mobilenet_v3_small").build(resolution=16)
    small = write(load_golden("mobilenet_v3/tv_mobilenet_v3_small"), tmp_path)
    with pytest.raises(WeightsError, match="do not fit mobilenet_v3_large"):
        load_weights(build(architecture="large", num_classes=1000), small, model="mobilenet_v3_large")


def test_training_learns_everywhere() -> None:
    model = build(architecture="small", num_classes=5, resolution=64).train()
    model(torch.rand(2, 3, 2, 64, 64)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []
