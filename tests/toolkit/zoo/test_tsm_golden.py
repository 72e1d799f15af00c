"""The goldens of the TSM repository, and files that must not go into the other form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mvtool.errors import WeightsError
from mvtool.streaming import stream_state
from mvtool.zoo import registry
from mvtool.zoo.checkpoints import load_weights, save_weights
from mvtool.zoo.mobilenet_v3_table import IMAGENET_MEAN, IMAGENET_STD
from mvtool.zoo.tsm import build_clip, build_stream

Loader = Callable[[str], Any]
TOLERANCE = 1e-5
OFFLINE = {"mobilenet_v2": "tsm/tsm_mobilenetv2_offline", "resnet50": "tsm/tsm_resnet50_offline"}
ONLINE = "tsm/tsm_mobilenetv2_online"
CLASSES = 400


def normalised(golden: Any) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (torch.from_numpy(golden.clip()) - mean) / std


def tensors(golden: Any) -> dict[str, Tensor]:
    return {key: torch.from_numpy(array) for key, array in golden.tensors().items()}


def write(content: dict[str, Any], folder: Path) -> Path:
    """As the repository's training script does."""
    path = folder / "checkpoint.pth.tar"
    torch.save(content, path)
    return path


def weights_of(golden: Any) -> int:
    return sum("num_batches_tracked" not in t["name"] for t in golden.content["tensors"])


def error(got: Tensor, wanted: list[float], largest: float) -> float:
    return float(np.abs(got.numpy()[: len(wanted)] - np.asarray(wanted)).max()) / largest


@torch.no_grad()
@pytest.mark.parametrize("network", OFFLINE)
def test_offline(network: str, load_golden: Loader, tmp_path: Path) -> None:
    """Eight frames with the two-sided shift, from a file as released: under `state_dict`, with `module.` in front."""
    golden = load_golden(OFFLINE[network])
    model = registry.get(f"tsm_{network}").build()
    released = {"epoch": 100, "state_dict": {f"module.{key}": value for key, value in tensors(golden).items()}}
    loaded = load_weights(model, write(released, tmp_path))
    assert (loaded.naming, loaded.tensors_used) == ("TSM", weights_of(golden))
    wanted = golden.content["logits"]
    logits = model(normalised(golden))[0]
    assert error(logits, wanted, float(np.abs(wanted).max())) < TOLERANCE
    assert int(logits.argmax()) == int(np.argmax(wanted))


@torch.no_grad()
def test_online(load_golden: Loader, tmp_path: Path) -> None:
    """Logits after every frame, and the norms of the buffers after the last."""
    golden = load_golden(ONLINE)
    model = registry.get("tsm_mobilenet_v2_stream").build()
    loaded = load_weights(model, write(tensors(golden), tmp_path))
    assert (loaded.naming, loaded.tensors_used) == ("TSM", weights_of(golden))
    largest = float(np.abs(golden.content["calls"][-1]["first"]).max())
    for frame, call in zip(torch.split(normalised(golden), 1, dim=2), golden.content["calls"], strict=True):
        logits = model(frame)[0]
        assert error(logits, call["first"], largest) < TOLERANCE
        assert int(logits.argmax()) == call["argmax"]
    for name, wanted in zip(stream_state(model), golden.content["buffers_after_last_call"], strict=True):
        buffer = model.get_buffer(name)
        assert list(buffer.shape) == wanted["nchw"]
        assert float(buffer.norm()) == pytest.approx(wanted["l2"], rel=1e-5)


@pytest.mark.parametrize("network", OFFLINE)
def test_clip_weights_are_refused_by_streams(network: str, load_golden: Loader, tmp_path: Path) -> None:
    """With the right number of classes every tensor would fit."""
    path = write(tensors(load_golden(OFFLINE[network])), tmp_path)
    with pytest.raises(WeightsError, match=r"trained with two-sided .* computes with one-sided .* other frames"):
        load_weights(build_stream(network=network, num_classes=CLASSES), path)


def test_stream_weights_are_refused_by_clips(load_golden: Loader, tmp_path: Path) -> None:
    path = write(tensors(load_golden(ONLINE)), tmp_path)
    with pytest.raises(WeightsError, match=r"trained with one-sided .* tsm_mobilenet_v2 computes with two-sided"):
        load_weights(build_clip(network="mobilenet_v2", num_classes=27), path, model="tsm_mobilenet_v2")


def test_weights_without_shift_are_refused(load_golden: Loader, tmp_path: Path) -> None:
    """The repository's TSN baseline has the same names but for `.net.`."""
    plain = {key.replace(".net.", "."): value for key, value in tensors(load_golden(OFFLINE["resnet50"])).items()}
    with pytest.raises(WeightsError, match="trained with no temporal shift, and ResNet computes with two-sided"):
        load_weights(build_clip(network="resnet50", num_classes=CLASSES), write(plain, tmp_path))


def test_own_files_remember_their_form(tmp_path: Path) -> None:
    """Also where mvtool wrote the file; a network without shift may start either form's training."""
    stream, clip = (build(network="mobilenet_v3_small", num_classes=5) for build in (build_stream, build_clip))
    plain = registry.get("mobilenet_v3_small").build(num_classes=5)
    path = save_weights(stream, tmp_path / "stream.safetensors")
    assert load_weights(build_stream(network="mobilenet_v3_small", num_classes=5), path).naming == "mvtool"
    with pytest.raises(WeightsError, match=r"trained with one-sided .* computes with two-sided"):
        load_weights(clip, path)
    with pytest.raises(WeightsError, match=r"trained with one-sided .* computes with no temporal shift"):
        load_weights(plain, path)
    plain_path = save_weights(plain, tmp_path / "plain.safetensors")
    assert load_weights(clip, plain_path).tensors_used == load_weights(stream, plain_path).tensors_used > 0


@pytest.mark.parametrize("build", [build_stream, build_clip])
def test_pictures_start_any_form(build: Callable[..., Any], load_golden: Loader, tmp_path: Path) -> None:
    """torchvision's MobileNetV3 and ResNet-50, and the repository's MobileNetV2 of 1000 classes."""
    v3 = load_golden("mobilenet_v3/tv_mobilenet_v3_small")
    v3_model = build(network="mobilenet_v3_small", num_classes=1000)
    assert load_weights(v3_model, write(tensors(v3), tmp_path)).tensors_used == weights_of(v3)
    renames = {"base_model.": "", ".net.": ".", "new_fc.": "fc."}
    resnet = {}
    for key, value in tensors(load_golden(OFFLINE["resnet50"])).items():
        for old, new in renames.items():
            key = key.replace(old, new)
        resnet[key] = value
    assert load_weights(build(network="resnet50", num_classes=CLASSES), write(resnet, tmp_path)).naming == "TSM"
    v2 = tensors(load_golden(ONLINE))
    v2 |= {"classifier.weight": torch.zeros(1000, 1280), "classifier.bias": torch.zeros(1000)}
    assert load_weights(build(network="mobilenet_v2", num_classes=1000), write(v2, tmp_path)).naming == "TSM"


def test_files_of_another_network(load_golden: Loader, tmp_path: Path) -> None:
    path = write(tensors(load_golden(OFFLINE["resnet50"])), tmp_path)
    with pytest.raises(WeightsError, match=r"use no known naming of MobileNet: keys base_model\.bn1"):
        load_weights(build_clip(network="mobilenet_v2", num_classes=CLASSES), path)
