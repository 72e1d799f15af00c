from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mvtool.datasets.motion import MotionVideos
from mvtool.datasets.spec import parse
from mvtool.errors import SourceError, UsageError, VideoError
from mvtool.ports import Preprocessing
from mvtool.streaming.state import reset
from mvtool.training.batches import Clips, Order, batches
from mvtool.training.recipe import Recipe
from mvtool.training.stream_step import backward
from mvtool.training.trainer import Look, Trainer, learning_rate
from mvtool.zoo import registry
from mvtool.zoo.checkpoints import load_weights

RECIPE = Recipe(
    model="movinet_nano_stream",
    dataset="motion:split=train,clips=24,frames=4,size=32",
    validation="motion:split=validation,clips=4,frames=4,size=32",
    resolution=32,
    steps=4,
    batch=2,
    warmup=2,
    arguments={"rezero": 1.0},
)


class Killed(Exception):
    pass


def killer(step: int) -> object:
    def tell(look: Look) -> None:
        if look.step == step:
            raise Killed

    return tell


def same(left: Path, right: Path) -> bool:
    a, b = load_file(left), load_file(right)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_resumed_run_computes_the_same(tmp_path: Path) -> None:
    looks: list[Look] = []
    whole = Trainer(RECIPE, tmp_path / "whole", every=2, workers=0).run(looks.append)
    assert [look.step for look in looks] == [1, 2, 3, 4]
    assert [look.validation_accuracy is None for look in looks] == [True, False, True, False]
    # Killed one step after the checkpoint of step 2.
    with pytest.raises(Killed):
        Trainer(RECIPE, tmp_path / "cut", every=2, workers=0).run(killer(3))  # type: ignore[arg-type]
    assert not (tmp_path / "cut" / "weights.safetensors").exists()
    looks.clear()
    resumed = Trainer(RECIPE, tmp_path / "cut", every=2, workers=0).run(looks.append)
    assert [look.step for look in looks] == [3, 4]
    assert same(whole, resumed)
    lines = [json.loads(line) for line in (tmp_path / "cut" / "progress.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]


def test_the_weights_fit_the_model_and_differ_with_the_seed(tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=1)
    path = Trainer(recipe, tmp_path / "a", workers=0).run()
    module = registry.get(recipe.model).build(num_classes=12, resolution=32)
    load_weights(module, path, model=recipe.model)
    other = Trainer(replace(recipe, seed=1), tmp_path / "b", workers=0).run()
    assert not same(path, other)
    assert (tmp_path / "a" / "labels.txt").read_text().splitlines() == list(MotionVideos().labels)


def test_half_precision_takes_half_the_space(tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=1)
    full = Trainer(recipe, tmp_path / "full", workers=0).run()
    half = Trainer(recipe, tmp_path / "half", workers=0, half=True).run()
    assert half.stat().st_size < 0.55 * full.stat().st_size
    for name, value in load_file(half).items():
        expected = load_file(full)[name]
        assert torch.equal(value, expected.half() if expected.is_floating_point() else expected)


def test_another_recipe_does_not_go_on(tmp_path: Path) -> None:
    Trainer(replace(RECIPE, steps=1), tmp_path, workers=0).run()
    with pytest.raises(UsageError, match="holds a run of another recipe"):
        Trainer(replace(RECIPE, steps=2), tmp_path, workers=0)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": 0}, {"average": 1.0}, {"learning_rate": 0.0}])
def test_impossible_recipes(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        replace(RECIPE, **wrong)  # type: ignore[arg-type]


def test_models_that_cannot_be_trained_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="keeps no state"):
        Trainer(replace(RECIPE, model="movinet_nano_base"), tmp_path / "a")
    with pytest.raises(SourceError, match="no model"):
        Trainer(replace(RECIPE, model="movinet_x"), tmp_path / "b")


def test_the_learning_rate_rises_and_falls() -> None:
    recipe = replace(RECIPE, steps=100, warmup=10, learning_rate=1.0)
    rates = [learning_rate(recipe, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.001
    assert all(a > b for a, b in pairwise(rates[10:]))


def net() -> torch.nn.Module:
    torch.manual_seed(0)
    module = registry.get("movinet_nano_stream").build(num_classes=12, resolution=32, batch_size=2, rezero=1.0)
    # Batch statistics of a part differ from those of the whole, dropout from call to call.
    return module.eval()


def gradients(module: torch.nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


def test_subclips_carry_the_state_and_cut_the_gradient() -> None:
    clips, labels = torch.rand(2, 3, 8, 32, 32), torch.tensor([3, 7])
    module = net()
    backward(module, clips, labels, subclips=2, label_smoothing=0.0)
    by_parts = gradients(module)
    # The same by hand: the first half only sets the state for the second.
    module = net()
    reset(module)
    loss = torch.nn.functional.cross_entropy(module(clips[:, :, :4]), labels) / 2
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        reset(module)
        module(clips[:, :, :4])
    logits = module(clips[:, :, 4:])
    (torch.nn.functional.cross_entropy(logits, labels) / 2).backward()  # type: ignore[no-untyped-call]
    for found, expected in zip(by_parts, gradients(module), strict=True):
        torch.testing.assert_close(found, expected)
    # The answer at the end is that of the whole clip; the gradient is not.
    module = net()
    reset(module)
    torch.testing.assert_close(module(clips), logits)
    with pytest.raises(UsageError, match="cannot be cut into 3"):
        backward(module, clips, labels, subclips=3, label_smoothing=0.0)


def test_every_epoch_shows_every_clip_once() -> None:
    order = Order(5, seed=0)
    epochs = [[order(5 * epoch + place) for place in range(5)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    first = Order(5, seed=0, in_order=7)
    assert [first(place) for place in range(5)] == list(range(5))
    assert [first(place) for place in range(5, 7)] == [0, 1]
    assert [first(place) for place in range(7, 15)] == [order(place) for place in range(7, 15)]


def test_an_endless_data_set_is_drawn_from() -> None:
    order = Order(10**8, seed=0, in_order=7)
    drawn = [order(place) for place in range(5_000)]
    assert drawn[:7] == list(range(7))
    assert len(set(drawn)) > 4_990
    assert all(0 <= index < 10**8 for index in drawn)
    assert drawn == [order(place) for place in range(5_000)]
    assert drawn[7:] != [Order(10**8, seed=1)(place) for place in range(7, 5_000)]
    per_label = np.bincount(np.array(drawn[7:]) % 12, minlength=12)
    assert per_label.min() > 340
    assert per_label.max() < 495


def test_batches_depend_on_the_number_of_the_step_alone() -> None:
    videos = MotionVideos(clips=7, frames=2, size=32)
    contract = Preprocessing(resize_short_side=32, crop=(32, 32))

    def take(steps: range, workers: int) -> list[tuple[Tensor, Tensor]]:
        return list(batches(Clips(videos, contract), steps=steps, batch=3, order=Order(7, 1), workers=workers))

    everything, later = take(range(4), 0), take(range(2, 4), 1)
    for (clips, labels), (again, labels_again) in zip(everything[2:], later, strict=True):
        assert torch.equal(clips, again)
        assert torch.equal(labels, labels_again)
    index = Order(7, 1)(0)
    expected = videos.frames_of(index).astype(np.float32).transpose(3, 0, 1, 2) / np.float32(255)
    assert np.array_equal(everything[0][0][0].numpy(), expected)
    assert everything[0][1][0] == videos.label(index)


def test_videos_of_different_lengths(tmp_path: Path) -> None:
    for label, lengths in (("run", (5, 3)), ("jump", (4, 7))):
        (tmp_path / label).mkdir()
        for length in lengths:
            np.save(tmp_path / label / f"{length}.npy", np.full((length, 40, 48, 3), length, np.uint8))
    contract = Preprocessing(resize_short_side=32, crop=(32, 32))
    clips, labels = Clips(parse(str(tmp_path)), contract, frames=3).stacked(range(4))
    assert clips.shape == (4, 3, 3, 32, 32)
    assert labels.tolist() == [0, 0, 1, 1]
    for frames, told in ((None, "7 frames, 4 are needed"), (4, "3 frames, 4 are needed")):
        with pytest.raises(VideoError, match=f"{told}.*Train on fewer with --frames"):
            Clips(parse(str(tmp_path)), contract, frames).stacked(range(4))
