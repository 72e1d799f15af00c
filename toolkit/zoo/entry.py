"""What the registry knows of a model without building it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from mvtool.extras import require

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelEntry:
    """One model of the zoo.

    Input is (N, 3, T, H, W) float32 RGB, output (N, num_classes) logits.

    Attributes:
        name: Registry name.
        family: Family such as `movinet`.
        description: One line for listings.
        factory: `module:function` that builds the module; imported only when needed.
        arguments: Keyword arguments that select this model in `factory`.
        stream: The module keeps state from call to call.
        resolution: Height and width in pixels after the centre crop.
        resize_short_side: Shorter side in pixels before the crop.
        frames: Clip length of the published evaluation; a base model is built for it.
        frame_rate: Frames per second the model was trained at.
        frames_per_step: Smallest number of frames a stream takes per call, 1 for single networks.
        num_classes: Width of the published logits.
        parameters: Exact number of trainable scalars with `num_classes` classes.
        mean: Per channel, subtracted from RGB in 0..1.
        std: Per channel, divided by after subtracting `mean`.
        labels: Name of the label set.
    """

    name: str
    family: str
    description: str
    factory: str
    arguments: Mapping[str, object]
    stream: bool
    resolution: int
    resize_short_side: int
    frames: int
    frame_rate: float
    parameters: int
    frames_per_step: int = 1
    num_classes: int = 600
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    labels: str = field(default="kinetics600")

    def __post_init__(self) -> None:
        """Make `arguments` read-only."""
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))

    def build(self, num_classes: int | None = None, **options: object) -> nn.Module:
        """Build the module in evaluation mode with fresh weights.

        Args:
            num_classes: Width of the logits, `self.num_classes` if not given.
            options: Passed to the factory, for MoViNets `resolution`, `batch_size`, `gate`, `head_activation`.

        Raises:
            MissingExtraError: PyTorch is not installed.
            SourceError: An option has no meaning for this model.
        """
        require("torch", f"to build {self.name}")
        module_name, _, function = self.factory.partition(":")
        factory = getattr(importlib.import_module(module_name), function)
        arguments = {"resolution": self.resolution, **self.arguments, **options}
        module: nn.Module = factory(num_classes=num_classes or self.num_classes, **arguments)
        return module
