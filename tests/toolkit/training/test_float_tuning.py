"""Trained weights that go on training, with their 3D kernels in pairs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor, nn

from mvtool.cli.train import command
from mvtool.converters.rewrites.factorise import Rank, factorise
from mvtool.errors import UsageError
from mvtool.streaming.factored import FactoredConv3d
from mvtool.streaming.state import reset
from mvtool.training.batches import Clips
from mvtool.training.float_tuning import FloatTuning, FloatTuningLearner
from mvtool.training.learner import zoo_stream
from mvtool.training.trainer import Look, Trainer
from mvtool.zoo.checkpoints import load_weights, save_weights

RECIPE = FloatTuning(
    model="movinet_nano_stream_3d",
    dataset="motion:split=train,clips=100,size=32,frames=4",
    validation="motion:split=validation,clips=4,size=32,frames=4",
    resolution=32,
    steps=2,
    batch=2,
    learning_rate=1e-2,
    warmup=0,
    arguments={"rezero": 1.0, "stochastic_depth": 0.0},
    rewrite="2plus1d:1",
)


def built(batch: int = 2) -> nn.Module:
    return zoo_stream(RECIPE, 12, batch).eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("weights") / "float.safetensors"
    save_weights(built(), place)
    return place


def tuned(folder: Path, weights: Path) -> Trainer:
    return Trainer(RECIPE, folder, every=1, workers=0, learner=partial(FloatTuningLearner, weights=weights))


def answers(module: nn.Module, clips: Tensor) -> Tensor:
    reset(module)
    with torch.no_grad():
        scores: Tensor = module(clips)
    return scores


def test_pairs_are_trained_and_written_as_the_kernels_that_they_compute(tmp_path: Path, weights: Path) -> None:
    looks: list[Look] = []
    made: list[FloatTuningLearner] = []

    def learner(recipe: FloatTuning, clips: Clips) -> FloatTuningLearner:
        made.append(FloatTuningLearner(recipe, clips, weights=weights))
        return made[0]

    written = Trainer(RECIPE, tmp_path / "run", every=1, workers=0, learner=learner).run(looks.append)
    module = made[0].module
    assert any(isinstance(part, FactoredConv3d) for part in module.modules())
    before, after = load_file(weights), load_file(written)
    after = {name: value for name, value in after.items() if not name.endswith("num_batches_tracked")}
    assert {name: value.shape for name, value in after.items()} == {n: v.shape for n, v in before.items()}
    # Batch norms keep their statistics, and everything else learns.
    for name, value in before.items():
        kept = "running_" in name
        assert torch.equal(value, after[name]) == kept or not value.any(), name
    clips = torch.rand(2, 3, 4, 32, 32)
    again = built()
    load_weights(again, written, model=RECIPE.model)
    torch.testing.assert_close(answers(again, clips), answers(module, clips), rtol=1e-3, atol=1e-4)
    # One pair holds all of a kernel that one pair made.
    _, layers = factorise(again, Rank(pairs=1))
    assert min(layer.energy for layer in layers) > 0.9999
    torch.testing.assert_close(answers(again, clips), answers(module, clips), rtol=1e-3, atol=1e-4)


def test_a_run_goes_on_where_it_was(tmp_path: Path, weights: Path) -> None:
    class StopError(Exception):
        pass

    def stop(look: Look) -> None:
        if look.step == 1:
            raise StopError

    whole = tuned(tmp_path / "whole", weights).run()
    with pytest.raises(StopError):
        tuned(tmp_path / "parts", weights).run(stop)
    resumed = tuned(tmp_path / "parts", weights).run()
    expected = load_file(whole)
    assert all(torch.equal(value, expected[name]) for name, value in load_file(resumed).items())


def test_a_rewrite_needs_weights(tmp_path: Path) -> None:
    options = ["--dataset", "motion", "--validation", "motion", "--out", str(tmp_path), "--resolution", "32"]
    told = CliRunner().invoke(command, ["movinet_nano_stream_3d", *options, "--steps", "1", "--rewrite", "2plus1d:1"])
    assert isinstance(told.exception, UsageError)
    assert "--rewrite factors trained kernels" in str(told.exception)
