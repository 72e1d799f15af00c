"""The Model Garden's ResNet3D-50, from both of its namings, in the clip model; and its weights in the stream."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mvtool.zoo import registry
from mvtool.zoo.checkpoints import load_weights

TOLERANCE = 1e-5
Loader = Callable[[str], Any]


@pytest.fixture(scope="module")
def golden(load_golden: Loader) -> Any:
    return load_golden("resnet3d/tfm_resnet3d_50")


@pytest.fixture(scope="module")
def paths(golden: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same tensors under object paths and under variable names."""
    folder, tensors = tmp_path_factory.mktemp("resnet3d"), golden.tensors()
    arrays = {key: torch.from_numpy(array) for key, array in tensors.items()}
    variables = {entry["name"]: entry["variable"] for entry in golden.content["tensors"]}
    save_file(arrays, folder / "objects.safetensors")
    # The reader of SavedModels cuts off the `:0`.
    save_file({variables[key].partition(":")[0]: array for key, array in arrays.items()}, folder / "names.safetensors")
    return {"objects": folder / "objects.safetensors", "names": folder / "names.safetensors"}


@torch.no_grad()
def test_golden(golden: Any, paths: dict[str, Path]) -> None:
    """Logits of 16 frames of 112 pixels."""
    size = golden.content["input"]
    resolution = (size["height"], size["width"])
    model = registry.get("resnet3d_50").build(resolution=resolution)
    loaded = load_weights(model, paths["objects"])
    assert (loaded.naming, loaded.tensors_used) == ("Model Garden checkpoint (ResNet3D)", 275)
    logits, wanted = model(torch.from_numpy(golden.clip()))[0].numpy(), np.asarray(golden.content["logits"])
    assert np.abs(logits - wanted).max() / np.abs(wanted).max() < TOLERANCE
    assert int(logits.argmax()) == int(wanted.argmax())


@pytest.mark.parametrize(
    ("name", "file", "naming"),
    [
        ("resnet3d_50_stream", "objects", "Model Garden checkpoint (ResNet3D)"),
        ("resnet3d_50", "names", "Model Garden SavedModel (ResNet3D)"),
    ],
)
def test_both_forms_take_the_same_weights_from_both_namings(
    name: str, file: str, naming: str, paths: dict[str, Path]
) -> None:
    model, clip = (registry.get(n).build(resolution=32) for n in (name, "resnet3d_50"))
    loaded = load_weights(model, paths[file])
    assert (loaded.naming, loaded.tensors_used) == (naming, 275)
    load_weights(clip, paths["objects"])
    expected = clip.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
