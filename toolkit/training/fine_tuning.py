"""Quantization-aware fine-tuning: a trained stream goes on training with the rounding of int8 in its forward pass.

The parameters are the float model's own, so what is written is loaded and converted like any other weights. Batch norms keep
the statistics they were trained with, folded into the convolutions as in the artifacts; dropout and stochastic depth are off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from mvtool.datasets.spec import parse
from mvtool.errors import UsageError
from mvtool.extras import require
from mvtool.program import ModelInfo
from mvtool.streaming.state import StateInfo, declare_state, reset, stream_state, write_state
from mvtool.training.batches import Clips
from mvtool.training.learner import zoo_stream
from mvtool.training.recipe import Recipe
from mvtool.training.stream_step import part_length
from mvtool.zoo import registry
from mvtool.zoo.checkpoints import load_weights, weights_header


@dataclass(frozen=True)
class FineTuning(Recipe):
    """How a trained stream is tuned for int8; see `Recipe` for what is not named here.

    The defaults are for a few hundred steps. The last weights are kept, not an average: weights that lie between those that
    were rounded in training round to something else (Krishnamoorthi 2018, arXiv 1806.08342), and the
    learning rate ends at zero anyway.

    Attributes:
        weights_sha256: Hash of the weights that are tuned.
        observed: Batches whose ranges are taken before the first step.
    """

    batch: int = 16
    learning_rate: float = 1e-4
    warmup: int = 20
    weight_decay: float = 0.0
    average: float = 0.0
    weights_sha256: str = ""
    observed: int = 8

    def __post_init__(self) -> None:
        """Refuse what cannot be tuned with.

        Raises:
            UsageError: A number out of its range, or first steps on whole clips.
        """
        super().__post_init__()
        if not 1 <= self.observed <= 10**6:
            raise UsageError(f"The recipe's observed is {self.observed}; expected 1 to 1e+06.")
        if self.whole_clips:
            raise UsageError(
                "Fine-tuning takes every clip in equal parts; whole clips are for a network without weights."
            )


def trained_weights(model: str, given: Path | None) -> Path:
    """The file to start from.

    Args:
        model: Name in the zoo.
        given: What the user gives.

    Raises:
        SourceError: The model is not in the zoo.
        UsageError: The model keeps no state, or there are no trained weights.
    """
    entry = registry.get(model)
    if not entry.stream:
        raise UsageError(f"{entry.name} keeps no state; this recipe tunes streams.")
    if given is not None:
        if not given.exists():
            raise UsageError(f"There is no file {given}.")
        return given
    if entry.weights is None:
        raise UsageError(
            f"{entry.name} comes without weights; fine-tuning starts from trained ones, give them with --weights."
        )
    return Path(str(files("mvtool") / "data" / entry.weights))


class FakeQuantizedStream(nn.Module):
    """A prepared graph as a stream that keeps its states.

    Args:
        body: `(clips, states...) -> (logits, next states...)`.
        states: Shape and description per state, in the graph's order.
        frames: Frames of one call of the graph.
    """

    def __init__(
        self, body: fx.GraphModule, states: Mapping[str, tuple[tuple[int, ...], StateInfo]], frames: int
    ) -> None:
        super().__init__()
        self.body, self._frames = body, frames
        self._names = [f"state_{name}" for name in states]
        for name, (shape, info) in zip(self._names, states.values(), strict=True):
            declare_state(self, name, shape, info)

    def forward(self, clips: Tensor) -> Tensor:
        """Logits (N, classes) at the end of clips `(N, 3, T, H, W)`, T a multiple of the frames of a call."""
        for part in torch.split(clips, self._frames, dim=2):
            # Copies, since the states are written before the gradient is computed.
            logits, *states = self.body(part, *(self.get_buffer(name).clone() for name in self._names))
            for name, value in zip(self._names, states, strict=True):
                write_state(self.get_buffer(name), value)
        return logits  # type: ignore[no-any-return]


class FakeQuantizedLearner:
    """A trained stream of the zoo, tuned with fake quantization.

    Args:
        recipe: Names the model.
        clips: What it is tuned on.
        weights: File with its trained weights.

    Raises:
        MissingExtraError: torchao is not installed.
        SourceError: The model cannot be built so, or cannot take the frames of a part.
        UsageError: There are fewer validation clips than a batch has, or clips cannot be cut into the parts asked for.
        WeightsError: The weights do not fit.
    """

    def __init__(self, recipe: FineTuning, clips: Clips, *, weights: Path) -> None:
        require("torchao", "to train with fake quantization")
        from mvtool.quantization.fake_quantization import prepare
        from mvtool.quantization.training_graph import training_graph

        self._recipe, self.looks = recipe, recipe.observed
        found = len(parse(recipe.validation))
        if found < recipe.batch:
            raise UsageError(f"There are {found} validation clips; give {recipe.batch} or more, as many as --batch.")
        frames = part_length(recipe.frames or clips.stacked([0])[0].shape[2], recipe.subclips)
        registry.get(recipe.model).check(recipe.resolution, frames)

        def trained(batch: int) -> nn.Module:
            module = zoo_stream(recipe, len(clips.videos.labels), batch)
            load_weights(module, weights, model=recipe.model)
            return module

        self._stream = trained(recipe.batch)
        shape = (recipe.batch, 3, frames, recipe.resolution, recipe.resolution)
        graph = training_graph(
            trained(1), self._stream, shape, ModelInfo(recipe.model, preprocessing=clips.preprocessing)
        )
        declared = stream_state(self._stream)
        sources = {state.logical.name: state.logical.source for state in graph.program.states}
        states = {n: (tuple(self._stream.get_buffer(s).shape), declared[s]) for n, s in sources.items()}
        self.module = FakeQuantizedStream(prepare(graph), states, frames)

    def weights(self) -> dict[str, Tensor]:
        """The float model's state_dict; the graph reads the same parameters."""
        return self._stream.state_dict()

    def written(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same."""
        return dict(weights)

    def header(self) -> dict[str, str]:
        """The gate that the weights came with, for example."""
        return weights_header(self._stream)

    @torch.no_grad()
    def look(self, clips: Tensor) -> None:
        """Take the ranges of the activations, without rounding."""
        from mvtool.quantization.fake_quantization import set_rounding

        set_rounding(self.module, False)
        reset(self.module)
        self.module(clips)
        set_rounding(self.module, True)

    @contextmanager
    def evaluating(self, weights: Mapping[str, Tensor], batch: int) -> Iterator[nn.Module]:
        """The module itself, with rounding, its ranges kept."""
        from mvtool.quantization.fake_quantization import ranges_kept

        live = {name: value.clone() for name, value in self._stream.state_dict().items()}
        self._stream.load_state_dict(weights)
        try:
            with ranges_kept(self.module):
                yield self.module
        finally:
            self._stream.load_state_dict(live)
