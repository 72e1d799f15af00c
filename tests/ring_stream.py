"""A small stream with two layers that remember several frames each, one of them from other values than zeros."""

from __future__ import annotations

from functools import cache, partial

import torch
from tiny_models import seeded
from torch import Tensor, nn

from mvtool.converters.capture import capture
from mvtool.converters.inputs import InputSpec
from mvtool.preprocessing import plain
from mvtool.program import ModelInfo, StreamProgram

SIZE = 16
MAPS = 8
FRAMES, HELD = 2, 4
"""Entries of the two queues."""


class RingStream(nn.Module):
    """`frames` keeps camera frames; `maps` keeps maps, begins as a ramp from -1 to 1, and is read in three places.

    Args:
        groups: Of one of its layers.
    """

    frames: Tensor
    maps: Tensor

    def __init__(self, groups: int = 2) -> None:
        super().__init__()
        side = SIZE // 2
        self.first = nn.Conv3d(3, MAPS, (FRAMES + 1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.second = nn.Conv3d(MAPS, MAPS, (3, 1, 1), dilation=(2, 1, 1), groups=MAPS)
        self.third = nn.Conv3d(MAPS, MAPS, (2, 3, 3), padding=(0, 1, 1), groups=groups)
        self.head = nn.Linear(MAPS, 5)
        self.register_buffer("frames", torch.zeros(1, 3, FRAMES, SIZE, SIZE))
        self.register_buffer("maps", torch.linspace(-1, 1, MAPS * HELD * side**2).reshape(1, MAPS, HELD, side, side))

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        window = torch.cat([self.frames, frame], 2)
        self.frames.copy_(window[:, :, frame.shape[2] :])
        now = torch.relu(self.first(window))
        past = torch.cat([self.maps, now], 2)
        older = self.third(self.maps[:, :, 1:3])
        found = torch.relu(self.second(past) + older + self.maps[:, :, 3:])
        self.maps.copy_(torch.cat([self.maps[:, :, now.shape[2] :], now], 2))
        return {"logits": self.head(found.mean((2, 3, 4)))}


@cache
def captured(groups: int = 2) -> StreamProgram:
    info = ModelInfo("ring_stream", preprocessing=plain(SIZE, SIZE))
    return capture(seeded(partial(RingStream, groups)), [InputSpec("frame", (1, 3, 1, SIZE, SIZE))], info)
