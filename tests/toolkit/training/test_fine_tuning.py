from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from mvtool.cli import cli
from mvtool.errors import UsageError
from mvtool.files import sha256_of
from mvtool.streaming import Gate
from mvtool.training.fine_tuning import FakeQuantizedLearner, FineTuning, trained_weights
from mvtool.training.trainer import Look, Trainer
from mvtool.zoo import registry
from mvtool.zoo.checkpoints import load_weights, save_weights

SHIPPED = Path(str(files("mvtool") / "data" / "movinet_nano_motion.safetensors"))
RECIPE = FineTuning(
    model="movinet_nano_motion",
    dataset="motion:split=train,clips=24,frames=4,size=32",
    validation="motion:split=validation,clips=4,frames=4,size=32",
    resolution=32,
    steps=4,
    batch=2,
    warmup=2,
    observed=2,
    weights_sha256=sha256_of(SHIPPED),
)


class Killed(Exception):
    pass


def trainer(folder: Path, recipe: FineTuning = RECIPE) -> Trainer:
    return Trainer(recipe, folder, every=2, workers=0, learner=partial(FakeQuantizedLearner, weights=SHIPPED))


@pytest.mark.slow
def test_a_resumed_run_computes_the_same_and_the_float_keys_are_kept(tmp_path: Path) -> None:
    looks: list[Look] = []
    whole = load_file(trainer(tmp_path / "whole").run(looks.append))
    assert [look.validation_accuracy is None for look in looks] == [True, False, True, False]

    def kill(look: Look) -> None:
        if look.step == 3:
            raise Killed

    with pytest.raises(Killed):
        trainer(tmp_path / "cut").run(kill)
    looks.clear()
    resumed = load_file(trainer(tmp_path / "cut").run(looks.append))
    assert [look.step for look in looks] == [3, 4]
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    lines = [json.loads(line) for line in (tmp_path / "cut" / "progress.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    before = load_file(SHIPPED)
    assert {n: v.shape for n, v in before.items()} == {n: v.shape for n, v in whole.items()}
    for name, value in before.items():
        # Statistics stay as they were, everything else was tuned; how many batches they are of is nobody's weight.
        if "num_batches" not in name:
            assert torch.equal(whole[name], value.to(whole[name].dtype)) is ("running" in name), name


@pytest.mark.slow
def test_the_command_keeps_the_gate_that_the_weights_came_with(tmp_path: Path) -> None:
    module = registry.get("movinet_nano_stream").build(num_classes=12, resolution=32)
    load_weights(module, SHIPPED, gate=Gate.RELU6)
    given = save_weights(module, tmp_path / "given.safetensors")
    words = ["qat", "movinet_nano_stream", "--weights", str(given), "--dataset", RECIPE.dataset, "--half"]
    options = [
        "--validation",
        RECIPE.validation,
        "--resolution",
        "32",
        "--steps",
        "1",
        "--batch",
        "2",
        "--workers",
        "0",
    ]
    result = CliRunner().invoke(cli, [*words, *options, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0
    assert "step 1: loss" in result.output
    written = tmp_path / "out" / "weights.safetensors"
    assert {value.dtype for name, value in load_file(written).items() if "num_batches" not in name} == {torch.float16}
    assert load_weights(module, written).gate is Gate.RELU6
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert recipe["weights_sha256"] == sha256_of(given)
    assert (recipe["steps"], recipe["learning_rate"], recipe["average"]) == (1, 1e-4, 0.0)


def test_where_the_weights_come_from(tmp_path: Path) -> None:
    assert trained_weights("movinet_nano_motion", None) == SHIPPED
    assert trained_weights("movinet_nano_stream", SHIPPED) == SHIPPED
    for model, given, told in (
        ("movinet_nano_stream", None, "comes without weights.*give them with --weights"),
        ("movinet_nano_base", SHIPPED, "keeps no state"),
        ("movinet_nano_stream", tmp_path / "none.safetensors", "There is no file"),
    ):
        with pytest.raises(UsageError, match=told):
            trained_weights(model, given)


def test_what_cannot_be_tuned(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="whole clips"):
        replace(RECIPE, whole_clips=1)
    with pytest.raises(UsageError, match="observed"):
        replace(RECIPE, observed=0)
    for wrong, told in (
        ({"batch": 5}, "4 validation clips; give 5 or more"),
        ({"subclips": 3}, "cannot be cut into 3"),
    ):
        with pytest.raises(UsageError, match=told):
            trainer(tmp_path, replace(RECIPE, **wrong))  # type: ignore[arg-type]
