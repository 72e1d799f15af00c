"""What the registry knows of a model without building it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from mvtool.errors import SourceError
from mvtool.extras import require

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Reported:
    """What a paper prints about a model; shown beside measured numbers, never mixed with them.

    Attributes:
        source: Paper and table, such as `X3D (arXiv 2004.04730), table 4`.
        parameters: Number of weights as printed.
        macs: Multiply-adds as printed, for one call of the published input; None where the paper prints none.
        accuracy: With data set and protocol, such as `68.6 % top-1, Kinetics-400, 10 centre clips`.
        note: Why the printed numbers differ from the ones counted here, where they do.
    """

    source: str
    parameters: float | None = None
    macs: float | None = None
    accuracy: str = ""
    note: str = ""


@dataclass(frozen=True)
class InputRule:
    """Sizes that an architecture can take.

    Attributes:
        resolution_min: Smallest height and width in pixels.
        frames_min: Fewest frames per call.
        frames_step: The number of frames is a multiple of it.
    """

    resolution_min: int = 32
    frames_min: int = 1
    frames_step: int = 1

    def resolutions(self) -> str:
        """The allowed heights and widths in words."""
        return f"{self.resolution_min} or more pixels"

    def frames(self) -> str:
        """The allowed numbers of frames per call in words."""
        least = f"{self.frames_min} or more"
        return least if self.frames_step == 1 else f"multiples of {self.frames_step}, {least}"

    def takes_resolution(self, height: int, width: int) -> bool:
        """Whether a picture of this size can go in."""
        return min(height, width) >= self.resolution_min

    def takes_frames(self, frames: int) -> bool:
        """Whether a call with this number of frames can go in."""
        return frames >= self.frames_min and frames % self.frames_step == 0


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
        labels: Name of the label set, None where the published classes have no list here.
        rule: Sizes that the architecture can take.
        builds_for_frames: The factory takes `frames`, because the layers depend on the length of the clip.
        reported: What the paper prints.
        settles: Without weights, its batch norms are put in units of a seeded clip, see
            `mvtool.zoo.untrained.settle_norms`: for networks that would forget their input otherwise.
        damps: Without weights, its residual branches are made weaker, see `mvtool.zoo.untrained.damp_branches`: for
            networks that would blow up their input otherwise.
        weights: File among the package's data with trained weights, which are loaded where the user gives none.
        calibration: Generated clips like those it was trained on, see `mvtool.datasets.spec`; int8 is calibrated on them
            where the user gives none.
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
    labels: str | None = field(default="kinetics600")
    rule: InputRule = InputRule()
    builds_for_frames: bool = False
    reported: Reported | None = None
    settles: bool = False
    damps: bool = False
    weights: str | None = None
    calibration: str | None = None

    def __post_init__(self) -> None:
        """Make `arguments` read-only."""
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))

    @property
    def frames_per_call(self) -> int:
        """Frames of one call as published: a step of a stream, the clip of anything else."""
        return self.frames_per_step if self.stream else self.frames

    def build(
        self, num_classes: int | None = None, frames: int | None = None, batch_size: int = 1, **options: object
    ) -> nn.Module:
        """Build the module in evaluation mode with fresh weights.

        Args:
            num_classes: Width of the logits, `self.num_classes` if not given.
            frames: Frames per call, `self.frames_per_call` if not given.
            batch_size: N of the state of a stream; a network without state takes any N.
            options: Passed to the factory, for MoViNets `resolution`, `gate`, `head_activation`.

        Raises:
            MissingExtraError: PyTorch is not installed.
            SourceError: An option has no meaning for this model, or a size is outside `self.rule`.
        """
        frames = self.frames_per_call if frames is None else frames
        self.check(options.get("resolution", self.resolution), frames)
        classes = self.num_classes if num_classes is None else num_classes
        if classes < 1:
            raise SourceError(
                f"{self.name} cannot have {classes} classes. It takes 1 or more; published are {self.num_classes}."
            )
        require("torch", f"to build {self.name}")
        module_name, _, function = self.factory.partition(":")
        factory = getattr(importlib.import_module(module_name), function)
        arguments = {"resolution": self.resolution, **self.arguments, **options}
        if self.stream:
            arguments["batch_size"] = batch_size
        if self.builds_for_frames:
            arguments["frames"] = frames
        module: nn.Module = factory(num_classes=classes, **arguments)
        return module

    def check(self, resolution: object, frames: int) -> tuple[int, int]:
        """Hold an input size against what the architecture can take.

        Args:
            resolution: Height and width in pixels, or one number for both.
            frames: Frames per call.

        Returns:
            Height and width.

        Raises:
            SourceError: The model cannot take it; the message names what it can take.
        """
        height, width = _pair(resolution)
        if not self.rule.takes_resolution(height, width):
            raise SourceError(
                f"{self.name} cannot take pictures of {height}x{width}. Height and width can be "
                f"{self.rule.resolutions()}; published is {self.resolution}."
            )
        if not self.rule.takes_frames(frames):
            raise SourceError(
                f"{self.name} cannot take {frames} frames per call. It takes {self.rule.frames()}; "
                f"published is {self.frames_per_call}."
            )
        return height, width


def _pair(resolution: object) -> tuple[int, int]:
    values = resolution if isinstance(resolution, list | tuple) else (resolution, resolution)
    if len(values) != 2 or not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise SourceError(
            f"The resolution {resolution!r} is neither a number of pixels nor a pair of height and width."
        )
    return values[0], values[1]
