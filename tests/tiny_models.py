"""Small stream and clip models that have every kind of state, for builds that convert in seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from mvtool.streaming.activations import Activation, Gate
from mvtool.streaming.clock import FrameClock
from mvtool.streaming.conv import StreamConv3d
from mvtool.streaming.excite import ExciteType, SqueezeExcite

SIZE = 16
CLASSES = 5
Model = TypeVar("Model", bound=nn.Module)


class TinyStream(nn.Module):
    """Stem, two causal depthwise layers of one shape (so that their states can be swapped), squeeze-excite, head."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        grid = (1, SIZE // 2, SIZE // 2)
        self.clock = FrameClock()
        self.stem = StreamConv3d(3, width, (1, 3, 3), stride=2, bias=True)
        self.upper = StreamConv3d(width, width, (3, 3, 3), groups=width, bias=True, causal=True, input_shape=grid)
        self.lower = StreamConv3d(width, width, (3, 3, 3), groups=width, bias=True, causal=True, input_shape=grid)
        self.excite = SqueezeExcite(
            width, 4, ExciteType.SPACE_PLUS_SPACE_TIME, Activation.HARD_SWISH, Gate.KERAS, batch=1
        )
        self.mix = nn.Conv3d(width, width, 1)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        clock = self.clock(frame.shape[2])
        x = nn.functional.relu(self.stem(frame))
        x = x + nn.functional.hardswish(self.upper(x))
        x = x + nn.functional.hardswish(self.lower(x))
        x = nn.functional.relu(self.mix(self.excite(x, clock)))
        return {"logits": self.head(x.mean((2, 3, 4)))}


class TinyClip(nn.Module):
    """A model of whole clips of four frames."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 6, (3, 3, 3), stride=(1, 2, 2), padding=1)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(nn.functional.relu(self.conv(frame)).mean((2, 3, 4)))}


def seeded(factory: Callable[[], Model], seed: int = 3) -> Model:
    """A module in eval mode whose weights are the same in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return factory().eval()


def zoo_clip(*, num_classes: int, resolution: int) -> nn.Module:
    """A factory as an entry of the zoo names it."""
    assert (num_classes, resolution) == (CLASSES, SIZE)
    return seeded(TinyClip)
