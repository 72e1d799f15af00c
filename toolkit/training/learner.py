"""What a `Trainer` trains: a stream, how its weights are named, and how it is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from mvtool.training.batches import Clips
from mvtool.training.recipe import Recipe
from mvtool.zoo import registry
from mvtool.zoo.checkpoints import weights_header


class Learner(Protocol):
    """A stream in training."""

    @property
    def module(self) -> nn.Module:
        """Takes clips `(N, 3, T, H, W)` and declares its states; a checkpoint holds its state_dict."""
        ...

    @property
    def looks(self) -> int:
        """Batches that it looks at before the first step."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The present weights as the model's file names them; not copies."""
        ...

    def written(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the model's file holds.

        Args:
            weights: As `weights` names them.
        """
        ...

    def header(self) -> dict[str, str]:
        """Text beside the tensors in the model's file."""
        ...

    def look(self, clips: Tensor) -> None:
        """Look at a batch of clips `(N, 3, T, H, W)`."""
        ...

    def evaluating(self, weights: Mapping[str, Tensor], batch: int) -> AbstractContextManager[nn.Module]:
        """The module in evaluation mode with the given weights.

        Args:
            weights: As `weights` names them.
            batch: Clips per call.
        """
        ...


class FloatLearner:
    """A stream of the zoo trained in float32, its batch norms on the statistics of each batch.

    Args:
        recipe: Names the model.
        clips: Say how many classes there are.
    """

    looks = 0

    def __init__(self, recipe: Recipe, clips: Clips) -> None:
        self._recipe, self._classes = recipe, len(clips.videos.labels)
        self.module = self._build(recipe.batch).train()

    def weights(self) -> dict[str, Tensor]:
        """The module's state_dict."""
        return self.module.state_dict()

    def written(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same."""
        return dict(weights)

    def header(self) -> dict[str, str]:
        """Its gate, for example."""
        return weights_header(self.module)

    def look(self, clips: Tensor) -> None:
        """Nothing is to be known before the first step."""

    @contextmanager
    def evaluating(self, weights: Mapping[str, Tensor], batch: int) -> Iterator[nn.Module]:
        """A second module."""
        model = self._build(batch)
        model.load_state_dict(weights)
        yield model

    def _build(self, batch: int) -> nn.Module:
        return zoo_stream(self._recipe, self._classes, batch)


def zoo_stream(recipe: Recipe, classes: int, batch: int) -> nn.Module:
    """The recipe's model with fresh weights, in evaluation mode.

    Args:
        recipe: Names the model, its picture and its arguments.
        classes: Width of the logits.
        batch: Clips per call.

    Raises:
        SourceError: The model cannot be built so.
    """
    entry = registry.get(recipe.model)
    entry.check((recipe.resolution, recipe.resolution), entry.frames_per_step)
    module = entry.build(num_classes=classes, resolution=recipe.resolution, batch_size=batch, **recipe.arguments)
    return module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]
