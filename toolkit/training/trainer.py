"""Training with progress, that goes on where it was interrupted.

    FOLDER/recipe.json          what was asked for
    FOLDER/checkpoint.pt        weights, their average, optimizer and step: what a resumed run starts from
    FOLDER/progress.jsonl       one line per look at the validation clips
    FOLDER/labels.txt           names of the classes
    FOLDER/weights.safetensors  the average, written at the end

A run that is killed and resumed computes the same as one that is not: clips, dropout and learning rate depend on the seed and
the number of the step.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mvtool.datasets.spec import parse
from mvtool.errors import UsageError
from mvtool.files import atomic_path, write_atomic
from mvtool.ports import Preprocessing
from mvtool.streaming.state import reset
from mvtool.training.batches import Clips, Order, batches
from mvtool.training.learner import FloatLearner, Learner
from mvtool.training.recipe import Recipe
from mvtool.training.stream_step import backward
from mvtool.zoo import registry

RECIPE, CHECKPOINT, PROGRESS, WEIGHTS = "recipe.json", "checkpoint.pt", "progress.jsonl", "weights.safetensors"
LABELS = "labels.txt"
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Look:
    """How far training is.

    Attributes:
        step: Optimizer steps done.
        steps: Of the recipe.
        loss: Mean since the last look.
        training_accuracy: Share of right answers at the end of the clips since the last look.
        validation_accuracy: The same on the validation clips, with averaged weights; None between two validations.
    """

    step: int
    steps: int
    loss: float
    training_accuracy: float
    validation_accuracy: float | None = None


class Trainer:
    """Trains one stream.

    Args:
        recipe: What is trained.
        folder: Where everything is kept; a run with the same recipe that was interrupted there goes on.
        every: Steps between two validations, after each of which a checkpoint is written.
        workers: Processes that prepare clips.
        half: Write the weights in half precision, which takes half the space; they are loaded as float32 again.
        learner: Makes what is trained from the recipe and its clips.

    Raises:
        UsageError: The folder holds a run of another recipe, or the recipe does not fit its data.
        SourceError: The model is not in the zoo or cannot be built so.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        *,
        every: int = 250,
        workers: int = 1,
        half: bool = False,
        learner: Callable[[Any, Clips], Learner] = FloatLearner,
    ) -> None:
        """Build the model, or read it back."""
        self._recipe, self._folder, self._every, self._workers, self._half = recipe, folder, every, workers, half
        videos, validation = parse(recipe.dataset), parse(recipe.validation)
        if videos.labels != validation.labels:
            raise UsageError("The training and validation clips have different labels; give two parts of one data set.")
        entry = registry.get(recipe.model)
        if not entry.stream:
            raise UsageError(f"{entry.name} keeps no state; this recipe trains streams.")
        size = recipe.resolution
        contract = Preprocessing(resize_short_side=size, crop=(size, size), mean=entry.mean, std=entry.std)
        self._clips = Clips(videos, contract, recipe.frames, entry.frame_rate)
        self._validation = replace(self._clips, videos=validation)
        self._labels = videos.labels
        torch.manual_seed(recipe.seed)
        self._learner = learner(recipe, self._clips)
        self._model = self._learner.module
        self._average = {name: value.clone() for name, value in self._learner.weights().items()}
        self._optimizer = _optimizer(self._model, recipe)
        self._step = 0
        self._prepare()

    def run(self, tell: Callable[[Look], None] = lambda look: None) -> Path:
        """Train to the end.

        Args:
            tell: Told of every step.

        Returns:
            The file of the averaged weights.
        """
        recipe = self._recipe
        steps = range(self._step, recipe.steps)
        order = Order(len(self._clips.videos), recipe.seed, in_order=recipe.in_order * recipe.batch)
        if self._step == 0:
            self._look(order)
        feed = batches(self._clips, steps=steps, batch=recipe.batch, order=order, workers=self._workers)
        seen: list[Tensor] = []
        for step, (clips, labels) in zip(steps, feed, strict=True):
            seen.append(self._train(step, clips, labels))
            self._step = step + 1
            done = torch.stack(seen).mean(0).tolist()
            validated = None
            if self._step % self._every == 0 or self._step == recipe.steps:
                validated = self._validate()
                seen.clear()
            look = Look(self._step, recipe.steps, done[0], done[1], validated)
            if validated is not None:
                self._keep(look)
            tell(look)
        return self._write_weights()

    def _look(self, order: Order) -> None:
        """Let the learner see the clips of the first steps."""
        batch = self._recipe.batch
        for number in range(self._learner.looks):
            clips, _ = self._clips.stacked([order(number * batch + place) for place in range(batch)])
            self._learner.look(clips.to(memory_format=torch.channels_last_3d))

    def _train(self, step: int, clips: Tensor, labels: Tensor) -> Tensor:
        torch.manual_seed((self._recipe.seed << 32) + step)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._recipe, step)
        self._optimizer.zero_grad()
        clips = clips.to(memory_format=torch.channels_last_3d)
        recipe = self._recipe
        parts = recipe.subclips if step >= recipe.whole_clips else 1
        told = backward(self._model, clips, labels, subclips=parts, label_smoothing=recipe.label_smoothing)
        nn.utils.clip_grad_norm_(self._model.parameters(), recipe.clip_norm)
        self._optimizer.step()
        self._update_average(min(recipe.average, (1 + step) / (10 + step)))
        return told

    @torch.no_grad()
    def _update_average(self, decay: float) -> None:
        for name, value in self._learner.weights().items():
            kept = self._average[name]
            if value.is_floating_point():
                kept.lerp_(value, 1 - decay)
            else:
                kept.copy_(value)

    @torch.no_grad()
    def _validate(self) -> float:
        """Share of right answers on the validation clips in whole batches, with the averaged weights."""
        total = len(self._validation.videos)
        size = min(self._recipe.batch, total)
        right = count = 0
        with self._learner.evaluating(self._average, size) as model:
            for first in range(0, total - size + 1, size):
                clips, labels = self._validation.stacked(range(first, first + size))
                reset(model)
                right += int((model(clips.to(memory_format=torch.channels_last_3d)).argmax(1) == labels).sum())
                count += size
        return right / count

    def _prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        written = self._folder / RECIPE
        asked = json.dumps(self._recipe.as_dict(), indent=1)
        with suppress(FileNotFoundError):
            if json.loads(written.read_text()) != json.loads(asked):
                raise UsageError(f"{self._folder} holds a run of another recipe. Give another folder, or remove it.")
        write_atomic(written, asked.encode())
        write_atomic(self._folder / LABELS, "".join(f"{label}\n" for label in self._labels).encode())
        with suppress(FileNotFoundError):
            self._restore(torch.load(self._folder / CHECKPOINT, weights_only=True))

    def _restore(self, kept: dict[str, Any]) -> None:
        self._model.load_state_dict(kept["model"])
        self._average = kept["average"]
        self._optimizer.load_state_dict(kept["optimizer"])
        self._step = kept["step"]

    def _keep(self, look: Look) -> None:
        kept = {
            "model": self._model.state_dict(),
            "average": self._average,
            "optimizer": self._optimizer.state_dict(),
            "step": self._step,
        }
        with atomic_path(self._folder / CHECKPOINT) as partial:
            torch.save(kept, partial)
        with (self._folder / PROGRESS).open("a") as lines:
            lines.write(json.dumps(vars(look)) + os.linesep)

    def _write_weights(self) -> Path:
        from safetensors.torch import save_file

        place = self._folder / WEIGHTS
        weights = {
            name: (value.half() if self._half and value.is_floating_point() else value).contiguous()
            for name, value in self._learner.written(self._average).items()
        }
        with atomic_path(place) as partial:
            save_file(weights, partial, self._learner.header())
        return place


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear to the highest, then half a cosine to zero."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    left = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * left))


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)
