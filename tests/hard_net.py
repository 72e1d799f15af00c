"""A stream that one feature map makes hard for int8, and videos that it answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mvtool.converters.inputs import parse_input

INPUT = parse_input("frame=1x3x16x16")
CLASSES = ("north", "east", "south", "west")
OUTLIER = 150.0


class HardNet(nn.Module):
    """One channel between `wide` and `narrow` is a hundred times as large as the others, and `narrow` does not listen to it: with one
    scale for the whole map nothing is left of the others."""

    memory: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(8, 8, 1)
        self.narrow = nn.Conv2d(8, 8, 1)
        self.blend = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, len(CLASSES))
        self.register_buffer("memory", torch.zeros(1, 8, 8, 8))

    def forward(self, frame: Tensor) -> Tensor:
        seen = self.stem(frame).relu()
        mixed = 0.5 * seen + 0.5 * self.memory
        self.memory.copy_(mixed)
        blended = self.blend(self.narrow(self.wide(mixed).relu()).relu()).relu()
        scores: Tensor = self.head(blended.mean((2, 3)))
        return scores


def hard_net() -> HardNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = HardNet().eval()
        with torch.no_grad():
            for conv in (net.wide, net.narrow):
                conv.weight.normal_(0, 0.5)
            net.wide.weight[0] = OUTLIER * net.wide.weight[0].abs()
            net.narrow.weight[:, 0] = 0
            net.head.weight.normal_()
            # No class is favoured: the scores are centred on what noise gives.
            scores = torch.cat([net(torch.rand(1, 3, 16, 16)) for _ in range(50)])
            net.head.bias.sub_(scores.mean(0))
            net.memory.zero_()
    return net


def answered_videos(folder: Path, answer: Callable[[list[Tensor]], Tensor], count: int = 40, frames: int = 3) -> str:
    """Coloured noise, in the folder of the class that a float model itself says: it is always right.

    Args:
        folder: To be made.
        answer: Scores at the end of a clip of frames (1, 3, 16, 16) in 0..1.
        count: Number of clips.
        frames: Of each.
    """
    generator = np.random.default_rng(5)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for number in range(count):
        tint = generator.random(3) * 160
        video = (tint + generator.random((frames, 16, 16, 3)) * 95).astype(np.uint8)
        with torch.no_grad():
            scores = answer([torch.from_numpy(frame / np.float32(255)).permute(2, 0, 1)[None] for frame in video])
        np.save(folder / CLASSES[int(scores.argmax())] / f"{number}.npy", video)
    return str(folder)


def hard_answer(frames: list[Tensor]) -> Tensor:
    """What the hard net says at the end of a clip."""
    net = hard_net()
    scores: list[Tensor] = [net(frame) for frame in frames]
    return scores[-1]
