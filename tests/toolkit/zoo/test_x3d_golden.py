"""Every X3D golden file, through the importer its keys ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mvtool.errors import WeightsError
from mvtool.zoo import registry
from mvtool.zoo.checkpoints import LoadedWeights, load_weights
from mvtool.zoo.x3d import X3D

TOLERANCE = 1e-5
ALL = [
    *("ptv_x3d_xs", "ptv_x3d_s", "ptv_x3d_m", "ptv_x3d_l", "ptv_x3d_xl"),
    *("slowfast_x3d_xs", "slowfast_x3d_s", "slowfast_x3d_m", "slowfast_x3d_l"),
]

Loader = Callable[[str], Any]


def write(golden: Any, folder: Path) -> Path:
    path = folder / "weights.safetensors"
    save_file({key: torch.from_numpy(array) for key, array in golden.tensors().items()}, path)
    return path


def load(golden: Any, folder: Path, **options: Any) -> tuple[X3D, LoadedWeights]:
    model = registry.get(golden.variant.removesuffix("_wide")).build(**options)
    assert isinstance(model, X3D)
    return model, load_weights(model, write(golden, folder))


def clip(golden: Any) -> torch.Tensor:
    entry = registry.get("x3d_xs")
    assert golden.content["input"]["preprocess"] == f"(x - {entry.mean[0]}) / {entry.std[0]}"
    return (torch.from_numpy(golden.clip()) - entry.mean[0]) / entry.std[0]


def error(got: torch.Tensor, wanted: list[float]) -> float:
    return float(np.abs(got.numpy() - np.asarray(wanted)).max() / np.abs(wanted).max())


@torch.no_grad()
@pytest.mark.parametrize("name", ALL)
def test_golden(name: str, load_golden: Loader, tmp_path: Path) -> None:
    """Logits; SlowFast's form takes the weights of both."""
    golden = load_golden(f"x3d/{name}")
    model, loaded = load(golden, tmp_path)
    counters = sum("num_batches_tracked" in t["name"] for t in golden.content["tensors"])
    assert loaded.tensors_used == len(golden.content["tensors"]) - counters
    assert loaded.naming == {"ptv": "PyTorchVideo", "slowfast": "SlowFast"}[name.partition("_")[0]]
    logits = model(clip(golden))[0]
    assert error(logits, golden.content["logits"]) < TOLERANCE
    assert int(logits.argmax()) == int(np.argmax(golden.content["logits"]))


@torch.no_grad()
def test_golden_of_a_larger_picture(load_golden: Loader, tmp_path: Path) -> None:
    """182 pixels: positions of the training crop reproduce the published head, one mean over everything does not."""
    golden = load_golden("x3d/ptv_x3d_s_wide")
    wanted = golden.content["logits"]
    model, _ = load(golden, tmp_path, resolution=182, head_pool="positions")
    assert error(model(clip(golden))[0], wanted) < TOLERANCE
    model, _ = load(golden, tmp_path, resolution=182)
    assert error(model(clip(golden))[0], wanted) > 1e-3


@torch.no_grad()
def test_pytorchvideo_form_is_the_same_network(load_golden: Loader, tmp_path: Path) -> None:
    """The norm that PyTorchVideo lacks becomes the identity: not a bit differs from the model built without it."""
    golden = load_golden("x3d/ptv_x3d_xs")
    model, _ = load(golden, tmp_path)
    without, _ = load(golden, tmp_path, res2_shortcut_norm=False)
    assert len(model.state_dict()) == len(without.state_dict()) + 5
    assert torch.equal(model(clip(golden)), without(clip(golden)))
    x = torch.linspace(-9, 9, 24 * 64).reshape(1, 24, 1, 8, 8)
    assert torch.equal(model.get_submodule("stages.0.0.shortcut.norm")(x), x)


def test_slowfast_weights_do_not_fit_the_form_without_the_norm(load_golden: Loader, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="4 unexpected"):
        load(load_golden("x3d/slowfast_x3d_xs"), tmp_path, res2_shortcut_norm=False)


@pytest.mark.parametrize(
    ("name", "into", "message"),
    [
        ("x3d/ptv_x3d_xs", "x3d_xl", "do not fit"),
        ("x3d/slowfast_x3d_xs", "x3d_l", "do not fit"),
        ("resnet3d/ptv_slow_r50", "x3d_xs", "do not fit"),
        ("x3d/ptv_x3d_xs", "movinet_a0_base", "no known naming"),
        ("x3d/slowfast_x3d_xs", "movinet_a0_base", "no known naming"),
        ("movinet/atze_movinet_a0_base", "x3d_xs", "do not fit"),
    ],
)
def test_refuses_weights_of_another_network(
    name: str, into: str, message: str, load_golden: Loader, tmp_path: Path
) -> None:
    """Nothing is loaded, not even the part that would fit."""
    model = registry.get(into).build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        load_weights(model, write(load_golden(name), tmp_path))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_tensor_under_a_name_of_the_other_form_is_refused(load_golden: Loader, tmp_path: Path) -> None:
    """A PyTorchVideo file with a norm that PyTorchVideo does not have is of no known form."""
    golden = load_golden("x3d/ptv_x3d_xs")
    tensors = {key: torch.from_numpy(array) for key, array in golden.tensors().items()}
    tensors["blocks.1.res_blocks.0.branch1_norm.weight"] = torch.ones(24)
    save_file(tensors, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match="1 unexpected"):
        load_weights(registry.get("x3d_xs").build(), tmp_path / "weights.safetensors")


def test_training_files(load_golden: Loader, tmp_path: Path) -> None:
    """Both repositories save the weights under `model_state`, SlowFast beside its configuration."""
    golden = load_golden("x3d/slowfast_x3d_xs")
    tensors = {key: torch.from_numpy(array) for key, array in golden.tensors().items()}
    path = tmp_path / "checkpoint.pyth"
    torch.save({"epoch": 3, "cfg": "MODEL: {}", "model_state": tensors}, path)
    model = registry.get("x3d_xs").build()
    assert load_weights(model, path).naming == "SlowFast"
    assert torch.equal(model.get_parameter("stem.space.weight"), tensors["s1.pathway0_stem.conv_xy.weight"])
