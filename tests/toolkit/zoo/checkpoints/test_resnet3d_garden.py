from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mvtool.errors import WeightsError
from mvtool.zoo import registry
from mvtool.zoo.checkpoints import load_weights
from mvtool.zoo.checkpoints.naming import Naming
from mvtool.zoo.checkpoints.resnet3d_garden import ResNet3DPathNaming, ResNet3DVariableNaming
from mvtool.zoo.resnet3d import ResNet3D, ResNet3DConfig
from mvtool.zoo.resnet3d_table import Stage, Stem

PATHS, VARIABLES = ResNet3DPathNaming(), ResNet3DVariableNaming()
STAGES = (Stage(4, (3, 1), 1), Stage(6, (1, 3), 2))


def tiny(gating: bool = True) -> ResNet3D:
    return ResNet3D(ResNet3DConfig(gating=gating, num_classes=10, stem=Stem(width=5), stages=STAGES))


def layout(tensor: Tensor) -> Tensor:
    """From PyTorch's kernel layout to TensorFlow's."""
    return tensor.permute(*range(2, tensor.ndim), 1, 0).contiguous() if tensor.ndim > 1 else tensor.clone()


def published(model: ResNet3D) -> dict[str, Tensor]:
    """The weights of `model` as a checkpoint, every part spelled out from the table in the importer's docstring."""
    objects = {"shortcut": 0, "temporal": 1, "spatial": 2, "expand": 3}
    leaves = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    result: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        owner, _, leaf = key.rpartition(".")
        parts = owner.split(".")
        kernel = {"weight": "kernel"}.get(leaf, leaf)
        if leaf == "num_batches_tracked":
            continue
        if owner == "head.classifier":
            name = f"layer_with_weights-1/{kernel}"
        elif parts[0] == "stem":
            name = (
                f"layer_with_weights-0/layer_with_weights-{'0/kernel' if parts[1] == 'conv' else f'1/{leaves[leaf]}'}"
            )
        else:
            block = f"layer_with_weights-0/layer_with_weights-{2 + model.block_names.index(parts[0])}"
            if parts[1] == "gating":
                name = f"{block}/_self_gating/_transformer_w/{kernel}"
            elif parts[2] == "norm":
                name = f"{block}/_norm{objects[parts[1]]}/{leaves[leaf]}"
            else:
                name = f"{block}/_{parts[1]}_conv/{kernel}"
        result[f"model/{name}"] = layout(value)
    return result


def save(tensors: dict[str, Tensor], path: Path) -> Path:
    torch.save(tensors, path)
    return path


@pytest.mark.parametrize("prefix", ["model/layer_with_weights-0/", "backbone/", "layer_with_weights-0/", ""])
@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("layer_with_weights-0/kernel", "stem.conv.weight"),
        ("layer_with_weights-1/gamma", "stem.norm.weight"),
        ("layer_with_weights-1/kernel", "head.classifier.weight"),
        ("layer_with_weights-1/bias", "head.classifier.bias"),
        ("layer_with_weights-2/_shortcut_conv/kernel", "stage0_block0.shortcut.conv.weight"),
        ("layer_with_weights-2/_norm0/moving_variance", "stage0_block0.shortcut.norm.running_var"),
        ("layer_with_weights-5/_temporal_conv/kernel", "stage1_block1.temporal.conv.weight"),
        ("layer_with_weights-5/_self_gating/_transformer_w/bias", "stage1_block1.gating.transform.bias"),
        ("layer_with_weights-6/_temporal_conv/kernel", None),
        ("layer_with_weights-2/_surprise/kernel", None),
        ("layer_with_weights-2/_norm1/kernel", None),
        ("layer_with_weights-2/_spatial_conv/gamma", None),
        ("layer_with_weights-0/gamma", None),
        ("layer_with_weights-2/kernel", None),
        ("save_counter", None),
    ],
)
def test_object_paths(prefix: str, key: str, expected: str | None) -> None:
    """Whatever stands in front of the last numbered layer."""
    assert PATHS.target(prefix + key, tiny()) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("conv3d/kernel", "stem.conv.weight"),
        ("batch_normalization/beta:0", "stem.norm.bias"),
        ("dense/kernel", "head.classifier.weight"),
        ("bottleneck_block3d/conv3d/kernel:0", "stage0_block0.shortcut.conv.weight"),
        ("bottleneck_block3d/conv3d_1/kernel", "stage0_block0.temporal.conv.weight"),
        ("bottleneck_block3d_3/batch_normalization_3/moving_mean", "stage1_block1.expand.norm.running_mean"),
        ("bottleneck_block3d_3/self_gating/conv3d_4/kernel", "stage1_block1.gating.transform.weight"),
        ("bottleneck_block3d_4/conv3d_1/kernel", None),
        ("bottleneck_block3d/conv3d_4/kernel", None),
        ("conv3d/gamma", None),
        ("dense_1/kernel", None),
    ],
)
def test_variable_names(key: str, expected: str | None) -> None:
    assert VARIABLES.target(key, tiny()) == expected


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    source, target = tiny(), tiny()
    loaded = load_weights(target, save(published(source), tmp_path / "resnet3d.pth"))
    assert loaded.naming == PATHS.name
    assert all(torch.equal(value, target.state_dict()[key]) for key, value in source.state_dict().items())


@pytest.mark.parametrize(
    ("from_gating", "message"),
    [
        (True, r"0 missing, 4 unexpected(.|\n)*_self_gating"),
        (False, r"4 missing, 0 unexpected(.|\n)*gating\.transform"),
    ],
)
def test_gating_has_to_agree(from_gating: bool, message: str, tmp_path: Path) -> None:
    path = save(published(tiny(gating=from_gating)), tmp_path / "resnet3d.pth")
    with pytest.raises(WeightsError, match=message):
        load_weights(tiny(gating=not from_gating), path)


def test_a_transposed_kernel_is_refused(tmp_path: Path) -> None:
    tensors = published(tiny())
    key = "model/layer_with_weights-0/layer_with_weights-2/_expand_conv/kernel"
    tensors[key] = tensors[key].transpose(3, 4).contiguous()
    with pytest.raises(
        WeightsError, match=r"stage0_block0: expand\.conv\.weight \(4, 16, 1, 1, 1\), expected \(16, 4,"
    ):
        load_weights(tiny(), save(tensors, tmp_path / "resnet3d.pth"))


def test_networks_of_one_repository_do_not_take_each_others_files(
    load_golden: Callable[[str], Any], tmp_path: Path
) -> None:
    """Both have numbered layers with private attributes."""
    movinet = registry.get("movinet_a0_base").build(resolution=32)
    keys = [entry["name"] for entry in load_golden("movinet/tfm_movinet_a0_base").content["tensors"]]
    with pytest.raises(WeightsError, match="use no known naming of ResNet3D"):
        load_weights(tiny(), save(dict.fromkeys(keys, torch.zeros(1)), tmp_path / "movinet.pth"))
    with pytest.raises(WeightsError, match="use no known naming of MoViNet"):
        load_weights(movinet, save(published(tiny()), tmp_path / "resnet3d.pth"))


@pytest.mark.parametrize("naming", [PATHS, VARIABLES])
def test_only_a_resnet3d_is_recognised(naming: Naming) -> None:
    keys = ["model/layer_with_weights-0/layer_with_weights-2/_norm1/beta", "bottleneck_block3d_1/conv3d_1/kernel"]
    assert naming.matches(keys, tiny())
    assert not naming.matches(keys, registry.get("movinet_a0_base").build(resolution=32))
    assert not naming.matches(["model/layer_with_weights-0/layer_with_weights-2/_feature/_conv/kernel"], tiny())
