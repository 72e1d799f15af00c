"""Fine-tuning in float32: trained weights go on training, with kernels factored into pairs where that was asked for.

Batch norms keep the statistics that they were trained with; dropout and stochastic depth are off. What a rewrite took away is learned back in
the pairs; they are written as the 3D kernels that they compute, so that the same rewrite finds them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from mvtool.streaming.factored import FactoredConv3d, Pairs
from mvtool.training.batches import Clips
from mvtool.training.learner import zoo_stream
from mvtool.training.recipe import Recipe
from mvtool.zoo.checkpoints import load_weights, weights_header


@dataclass(frozen=True)
class FloatTuning(Recipe):
    """How trained weights go on training; see `Recipe` for what is not named here.

    Attributes:
        weights_sha256: Hash of the weights that are tuned.
        rewrite: `2plus1d:RANK`, see `mvtool.converters.rewrites.factorise`; empty for the model as it is.
    """

    weight_decay: float = 0.0
    average: float = 0.0
    weights_sha256: str = ""
    rewrite: str = ""


class FloatTuningLearner:
    """A trained stream of the zoo that goes on training.

    Args:
        recipe: Names the model.
        clips: What it is tuned on.
        weights: File with its trained weights.

    Raises:
        UsageError: The rewrite is unknown, or finds nothing to factor.
        WeightsError: The weights do not fit.
    """

    looks = 0

    def __init__(self, recipe: FloatTuning, clips: Clips, *, weights: Path) -> None:
        self._recipe, self._classes, self._file = recipe, len(clips.videos.labels), weights
        self.module = self._build(recipe.batch)

    def weights(self) -> dict[str, Tensor]:
        """The module's state_dict, with pairs where kernels were factored."""
        return self.module.state_dict()

    def written(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same with 3D kernels in place of the pairs."""
        found = dict(weights)
        for name, module in self.module.named_modules():
            if isinstance(module, FactoredConv3d):
                pairs = Pairs(found.pop(f"{name}.space"), found.pop(f"{name}.time"), 1.0)
                found[f"{name}.weight"] = pairs.kernel()
        return found

    def header(self) -> dict[str, str]:
        """Text beside the tensors in the model's file."""
        return weights_header(self.module)

    def look(self, clips: Tensor) -> None:
        """Nothing is to be known before the first step."""

    @contextmanager
    def evaluating(self, weights: Mapping[str, Tensor], batch: int) -> Iterator[nn.Module]:
        """A second module."""
        module = self._build(batch)
        module.load_state_dict(weights)
        yield module

    def _build(self, batch: int) -> nn.Module:
        module = zoo_stream(self._recipe, self._classes, batch)
        load_weights(module, self._file, model=self._recipe.model)
        if self._recipe.rewrite:
            from mvtool.converters.rewrites import factorise

            factorise.factorise(module, factorise.parse(self._recipe.rewrite))
        return module.eval()
