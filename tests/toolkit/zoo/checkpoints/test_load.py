from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mvtool.errors import UsageError, WeightsError
from mvtool.streaming import Gate
from mvtool.zoo import registry
from mvtool.zoo.checkpoints import load_members, load_weights, save_weights
from mvtool.zoo.movinet import MoViNet
from mvtool.zoo.untrained import deterministic_weights


def a0(kind: str = "stream", **options: Any) -> MoViNet:
    model = registry.get(f"movinet_a0_{kind}").build(resolution=32, **options)
    assert isinstance(model, MoViNet)
    return model


@pytest.fixture
def port_weights(load_golden: Callable[[str], Any]) -> dict[str, Tensor]:
    """Keys of the PyTorch port's A0 stream."""
    golden = load_golden("movinet/atze_movinet_a0_stream")
    return {key: torch.from_numpy(array) for key, array in golden.tensors().items()}


def save(tensors: dict[str, Tensor], path: Path) -> Path:
    torch.save(tensors, path)
    return path


def test_own_file_round_trip(tmp_path: Path) -> None:
    """All weights, the gate and the metadata come back; stream state is not saved."""
    model = a0(gate="relu6")
    deterministic_weights(model)
    with torch.no_grad():
        model(torch.rand(1, 3, 2, 32, 32))
    path = save_weights(model, tmp_path / "a0.safetensors", {"model": "movinet_a0_stream"})
    other = a0()
    loaded = load_weights(other, path)
    assert (loaded.naming, loaded.tensors_used, loaded.gate) == ("mvtool", 389, Gate.RELU6)
    assert loaded.metadata["model"] == "movinet_a0_stream"
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert other.gate is Gate.RELU6
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    assert float(other.get_buffer("clock.frame_count")) == 0.0
    assert os.listdir(tmp_path) == ["a0.safetensors"]


def test_any_module_with_its_own_state_dict(tmp_path: Path) -> None:
    source, target = nn.Linear(3, 4), nn.Linear(3, 4)
    loaded = load_weights(target, save(source.state_dict(), tmp_path / "linear.pt"))
    assert (loaded.naming, loaded.tensors_used, loaded.gate) == ("mvtool", 2, None)
    assert torch.equal(source.weight, target.weight)


@pytest.mark.parametrize("wrap", ["state_dict", "model", "DataParallel"])
def test_training_files_are_unwrapped(wrap: str, port_weights: dict[str, Tensor], tmp_path: Path) -> None:
    content: dict[str, Any] = {wrap: port_weights, "epoch": 3}
    if wrap == "DataParallel":
        content = {f"module.{key}": value for key, value in port_weights.items()}
    loaded = load_weights(a0(), save(content, tmp_path / "a0.pth"))
    assert (loaded.naming, loaded.tensors_used) == ("MoViNet-pytorch", 389)


@pytest.mark.parametrize(("given", "expected"), [(None, Gate.KERAS), ("ref", Gate.REF), (Gate.RELU6, Gate.RELU6)])
def test_gate_of_the_port(given: str | None, expected: Gate, port_weights: dict[str, Tensor], tmp_path: Path) -> None:
    model = a0(gate="ref")
    assert load_weights(model, save(port_weights, tmp_path / "a0.pth"), gate=given).gate is expected
    assert model.gate is expected


def test_gate_where_there_is_none(tmp_path: Path) -> None:
    path = save(nn.Linear(3, 4).state_dict(), tmp_path / "linear.pt")
    with pytest.raises(UsageError, match="Linear has no squeeze-excite gate"):
        load_weights(nn.Linear(3, 4), path, gate="ref")
    with pytest.raises(UsageError, match="'soft' is no gate"):
        load_weights(a0(), save_weights(a0(), tmp_path / "a0.safetensors"), gate="soft")


def drop(weights: dict[str, Tensor]) -> None:
    del weights["blocks.b1_l0.deep.conv_2.conv2d.weight"]


def add(weights: dict[str, Tensor]) -> None:
    weights["blocks.b9_l0.alpha"] = torch.tensor(1.0)


def reshape(weights: dict[str, Tensor]) -> None:
    weights["classifier.3.conv_1.conv2d.weight"] = torch.zeros(400, 2048, 1, 1)


def swap_axes(weights: dict[str, Tensor]) -> None:
    key = "blocks.b1_l0.expand.conv_1.conv2d.weight"
    weights[key] = weights[key].permute(1, 0, 2, 3).contiguous()


def poison(weights: dict[str, Tensor]) -> None:
    weights["conv1.conv_1.norm.weight"] = weights["conv1.conv_1.norm.weight"] * float("nan")


def double(weights: dict[str, Tensor]) -> None:
    weights["conv1.conv_1.conv3d.weight"] = weights["conv1.conv_1.conv2d.weight"].clone()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            drop,
            r"1 missing, 0 unexpected, 0 misshapen, 0 not finite\.\n.*missing.*\n    block1_layer0: temporal\.conv\.weight\n",
        ),
        (add, r"0 missing, 1 unexpected.*\n.*unexpected.*\n    blocks\.b9_l0: alpha\n"),
        (reshape, r"1 misshapen.*\n.*\n    head: classifier\.weight \(400, 2048, 1, 1\), expected \(600, 2048\)\n"),
        (
            swap_axes,
            r"1 misshapen.*\n.*\n    block1_layer0: expand\.conv\.weight \(8, 80, 1, 1\), expected \(80, 8, 1, 1, 1\)",
        ),
        (poison, r"1 not finite\.\n  not finite:\n    conv1: conv_1\.norm\.weight\n"),
        (double, r"0 missing, 1 unexpected"),
    ],
)
def test_mismatch_is_listed_by_layer(
    damage: Callable[[dict[str, Tensor]], None], message: str, port_weights: dict[str, Tensor], tmp_path: Path
) -> None:
    """And the model stays as it was."""
    damage(port_weights)
    model = a0()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        load_weights(model, save(port_weights, tmp_path / "a0.pth"), model="movinet_a0_stream")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_another_number_of_classes_says_how_to_go_on(port_weights: dict[str, Tensor], tmp_path: Path) -> None:
    for leaf, shape in {"weight": (51, 2048, 1, 1), "bias": (51,)}.items():
        port_weights[f"classifier.3.conv_1.conv2d.{leaf}"] = torch.zeros(shape)
    path = save(port_weights, tmp_path / "tuned.pth")
    wanted = r"of a model with 51 classes, and mine was built for 600; .*--num-classes 51 .*--labels FILE"
    with pytest.raises(WeightsError, match=wanted):
        load_weights(a0(), path, model="mine")
    assert load_weights(a0(num_classes=51), path).tensors_used > 0


def test_weights_of_another_model(port_weights: dict[str, Tensor], tmp_path: Path) -> None:
    """Stream weights in a base model, and A0 in A1: many lines, cut short."""
    path = save(port_weights, tmp_path / "a0.pth")
    with pytest.raises(WeightsError, match="do not fit base") as raised:
        load_weights(a0("base"), path, model="base")
    assert "kind (base or stream)" in str(raised.value)
    a1 = registry.get("movinet_a1_stream").build(resolution=32)
    with pytest.raises(WeightsError, match=r"\.\.\. and \d+ more layers") as raised:
        load_weights(a1, path)
    assert len(str(raised.value).splitlines()) < 60


def test_truncated_files(port_weights: dict[str, Tensor], tmp_path: Path) -> None:
    pth = save(port_weights, tmp_path / "a0.pth")
    safe = tmp_path / "a0.safetensors"
    save_file(port_weights, safe)
    for path in (pth, safe):
        content = path.read_bytes()
        for length in (0, 7, 1000, len(content) // 2):
            path.write_bytes(content[:length])
            with pytest.raises(WeightsError, match=r"is not a complete|is not loaded"):
                load_weights(a0(), path)


class Malice:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


def test_pickle_with_code_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Malice()}, "zip.pth")
    Path("plain.pth").write_bytes(pickle.dumps({"weight": Malice()}))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(WeightsError, match="because unpickling it could run code"):
            load_weights(a0(), name)
    assert not Path("executed").exists()


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    text = tmp_path / "weights.txt"
    text.write_text("hello")
    archive = tmp_path / "movinet.tar.gz"
    archive.write_bytes(b"hello")
    for path, message in [
        (tmp_path / "absent.pth", "There are no weights at"),
        (tmp_path, "There are no weights at"),
        (text, "a suffix that is no weight format"),
        (archive, "Unpack the archive first"),
        (save([1, 2], tmp_path / "list.pth"), "holds a list, expected a state_dict"),  # type: ignore[arg-type]
        (save({}, tmp_path / "empty.pth"), "holds a dict, expected a state_dict"),
        (save({"w": torch.zeros(1)}, tmp_path / "other.pth"), "use no known naming of MoViNet: keys w"),
    ]:
        with pytest.raises(WeightsError, match=message):
            load_weights(a0(), path)


def test_members_of_an_ensemble(tmp_path: Path) -> None:
    """One file per member, each with its own weights."""
    ensemble = registry.get("movinet_a0_stream_ensemble").build(resolution=32)
    paths = []
    for seed in (1, 2):
        single = a0()
        deterministic_weights(single, seed)
        paths.append(save_weights(single, tmp_path / f"{seed}.safetensors"))
    assert [loaded.tensors_used for loaded in load_members(ensemble, paths)] == [389, 389]
    alphas = {float(ensemble.get_parameter(f"members.{k}.block1_layer0.rezero").detach()) for k in (0, 1)}
    assert len(alphas) == 2
    with pytest.raises(WeightsError, match="has 2 members, got 1 weight files"):
        load_members(ensemble, paths[:1])
