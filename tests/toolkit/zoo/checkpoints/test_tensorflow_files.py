"""Importers against real TensorFlow files, written with the golden tensors."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mvtool.errors import WeightsError
from mvtool.streaming import Gate
from mvtool.zoo import registry
from mvtool.zoo.checkpoints import load_weights
from mvtool.zoo.checkpoints.container import Container
from mvtool.zoo.checkpoints.keras_variables import KerasVariableNaming
from mvtool.zoo.movinet import MoViNet

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip("tensorflow")

STREAM = "movinet/tfm_movinet_a0_stream"
Loader = Callable[[str], Any]


def build(golden: Any) -> MoViNet:
    model = registry.get(golden.variant).build(resolution=32)
    assert isinstance(model, MoViNet)
    return model


def reference(golden: Any, folder: Path) -> MoViNet:
    """The same tensors through the path that the golden logits prove."""
    path = folder / "reference.safetensors"
    save_file({key: torch.from_numpy(array) for key, array in golden.tensors().items()}, path)
    model = build(golden)
    load_weights(model, path)
    return model


def tree(paths: dict[str, Any]) -> Any:
    """Nested trackable objects whose attributes spell the paths."""
    root = tf.train.Checkpoint()
    for path, array in paths.items():
        *parents, leaf = path.split("/")
        node = root
        for name in parents:
            if not hasattr(node, name):
                setattr(node, name, tf.Module())
            node = getattr(node, name)
        setattr(node, leaf, tf.Variable(array))
    return root


def assert_same(model: MoViNet, other: MoViNet) -> None:
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def path_of(form: str, entry: dict[str, Any]) -> str:
    name = str(entry["name"])
    if form == "convert_tool":
        return str(entry.get("convert_tool", name))
    return name.removeprefix("model/") if form == "root" else name


@pytest.mark.parametrize("form", ["model", "convert_tool", "root"])
def test_checkpoint_forms(form: str, load_golden: Loader, tmp_path: Path) -> None:
    """Three ways in which a Model Garden model is saved, beside optimizer slots and a step counter."""
    golden = load_golden(STREAM)
    arrays = golden.tensors()
    content = {path_of(form, entry): arrays[entry["name"]] for entry in golden.content["tensors"]}
    content["optimizer/iter"] = 3.0
    content["global_step"] = 100.0
    prefix = tree(content).save(str(tmp_path / "ckpt"))
    model = build(golden)
    loaded = load_weights(model, prefix)
    assert loaded.container is Container.TENSORFLOW
    assert (loaded.naming, loaded.tensors_used, loaded.gate) == ("Model Garden checkpoint", 389, Gate.REF)
    assert_same(model, reference(golden, tmp_path))


@pytest.mark.parametrize("spelling", ["prefix", "index", "folder"])
def test_ways_to_name_a_checkpoint(spelling: str, load_golden: Loader, tmp_path: Path) -> None:
    golden = load_golden("movinet/tfm_movinet_a0_base")
    prefix = Path(tree(golden.tensors()).save(str(tmp_path / "ckpt")))
    path = {"prefix": prefix, "index": Path(f"{prefix}.index"), "folder": tmp_path}[spelling]
    model = build(golden)
    assert load_weights(model, path).gate is Gate.SIGMOID
    assert_same(model, reference(golden, tmp_path))


@pytest.mark.parametrize("name", [STREAM, pytest.param("movinet/tfm_movinet_a3_stream", marks=pytest.mark.slow)])
def test_keras_saved_model(name: str, load_golden: Loader, tmp_path: Path) -> None:
    """Only numbers in the weight file; names, also 33 times the same one, from the object graph."""
    golden = load_golden(name)
    arrays = golden.tensors()
    entries = sorted(golden.content["tensors"], key=lambda entry: entry["index"])
    root = tf.train.Checkpoint()
    root.variables = [tf.Variable(arrays[e["name"]], name=e["variable"].partition(":")[0]) for e in entries]
    tf.saved_model.save(root, str(tmp_path / "saved"))
    model = build(golden)
    loaded = load_weights(model, tmp_path / "saved")
    assert loaded.container is Container.SAVED_MODEL
    assert (loaded.naming, loaded.tensors_used) == ("Model Garden SavedModel", len(entries))
    assert_same(model, reference(golden, tmp_path))


def test_older_variable_names(load_golden: Loader) -> None:
    """`b1/l0/` for `block1_layer0/bneck/`, and a counter behind the classifier's name, mean the same tensors."""
    golden, naming = load_golden(STREAM), KerasVariableNaming()
    model = build(golden)
    for entry in golden.content["tensors"]:
        name = entry["variable"]
        old = re.sub(r"^block(\d+)_layer(\d+)/(bneck/)?", r"b\1/l\2/", name)
        old = old.replace("classifier_head/", "classifier_head_2/")
        target = naming.target(name, model)
        assert target in model.state_dict()
        assert naming.target(old, model) == target


def test_missing_layer_is_named(load_golden: Loader, tmp_path: Path) -> None:
    golden = load_golden(STREAM)
    content = golden.tensors()
    del content["model/layer_with_weights-0/layer_with_weights-3/_mobile_bottleneck/_rezero/scale"]
    content["model/layer_with_weights-0/layer_with_weights-40/_stem/_conv/kernel"] = 1.0
    prefix = tree(content).save(str(tmp_path / "ckpt"))
    message = (
        r"1 missing, 1 unexpected(.|\n)*block1_layer1: rezero\n"
        r"(.|\n)*layer_with_weights-0/layer_with_weights-40: _stem/_conv/kernel"
    )
    with pytest.raises(WeightsError, match=message):
        load_weights(build(golden), prefix)


def test_damaged_checkpoints(load_golden: Loader, tmp_path: Path) -> None:
    """A cut data file, a cut index and a SavedModel without a graph."""
    golden = load_golden("movinet/tfm_movinet_a0_base")
    prefix = Path(tree(golden.tensors()).save(str(tmp_path / "ckpt")))
    for suffix in (".data-00000-of-00001", ".index"):
        file = Path(f"{prefix}{suffix}")
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(WeightsError, match="cannot be read"):
            load_weights(build(golden), prefix)
        file.write_bytes(content)
    root = tf.train.Checkpoint()
    root.variables = [tf.Variable(1.0)]
    tf.saved_model.save(root, str(tmp_path / "saved"))
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\xff" * 20)
    with pytest.raises(WeightsError, match="holds no readable object graph"):
        load_weights(build(golden), tmp_path / "saved")
