"""A small stream whose states begin with other values than zeros, and which has two outputs."""

from __future__ import annotations

from functools import cache

import torch
from tiny_models import seeded
from torch import Tensor, nn

from mvtool.converters.capture import capture
from mvtool.converters.inputs import InputSpec
from mvtool.program import ModelInfo, StreamProgram

SIZE = 16
MAPS = 4
CLASSES = 5


class RampStream(nn.Module):
    """`before` begins as a ramp from -1 to 1, `mean` as 0.25 everywhere."""

    before: Tensor
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        side = SIZE // 2
        self.stem = nn.Conv2d(3, MAPS, 3, stride=2, padding=1)
        self.mix = nn.Conv2d(2 * MAPS, MAPS, 1)
        self.head = nn.Linear(MAPS, CLASSES)
        self.register_buffer("before", torch.linspace(-1, 1, MAPS * side * side).reshape(1, MAPS, side, side))
        self.register_buffer("mean", torch.full((1, MAPS), 0.25))

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        now = torch.relu(self.stem(frame))
        mixed = torch.relu(self.mix(torch.cat([now, self.before], 1)))
        self.before.copy_(now)
        self.mean.copy_(0.75 * self.mean + 0.25 * mixed.mean((2, 3)))
        return {"logits": self.head(self.mean), "map": mixed}


@cache
def captured() -> StreamProgram:
    return capture(seeded(RampStream), [InputSpec("frame", (1, 3, SIZE, SIZE))], ModelInfo("ramp"))


class RunningSum(nn.Module):
    """A cumulative sum, which XNNPACK does not have, between operators that it has."""

    before: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, MAPS, 3, stride=2, padding=1)
        self.register_buffer("before", torch.zeros(1, MAPS))

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        now = torch.relu(self.stem(frame)).mean((2, 3))
        sums = torch.cumsum(now + self.before, 1)
        self.before.copy_(now)
        return {"sums": torch.relu(2 * sums)}


@cache
def captured_sum() -> StreamProgram:
    return capture(seeded(RunningSum), [InputSpec("frame", (1, 3, SIZE, SIZE))], ModelInfo("sums"))
