"""A small stream of any number of videos with everything that folds into weights: batch norms, a factor, a skip, a gate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvtool.streaming.activations import Activation, Gate
from mvtool.streaming.clock import FrameClock
from mvtool.streaming.conv import StreamConv3d
from mvtool.streaming.excite import ExciteType, SqueezeExcite
from mvtool.streaming.pool import CumulativeMean

SIZE, WIDTH, CLASSES = 12, 8, 4


class NormedStream(nn.Module):
    def __init__(self, videos: int = 1) -> None:
        super().__init__()
        self.clock = FrameClock()
        self.stem = StreamConv3d(3, WIDTH, (1, 3, 3), stride=2)
        self.stem_norm = nn.BatchNorm3d(WIDTH)
        self.temporal = StreamConv3d(
            WIDTH, WIDTH, (3, 1, 1), groups=WIDTH, causal=True, input_shape=(videos, SIZE // 2, SIZE // 2)
        )
        self.temporal_norm = nn.BatchNorm3d(WIDTH)
        self.excite = SqueezeExcite(
            WIDTH, 4, ExciteType.SPACE_PLUS_SPACE_TIME, Activation.HARD_SWISH, Gate.KERAS, batch=videos
        )
        self.project = StreamConv3d(WIDTH, WIDTH, (1, 1, 1))
        self.project_norm = nn.BatchNorm3d(WIDTH)
        self.rezero = nn.Parameter(torch.tensor(0.7))
        self.pool = CumulativeMean(videos, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, clips: Tensor) -> Tensor:
        clock = self.clock(clips.shape[2])
        x = nn.functional.hardswish(self.stem_norm(self.stem(clips)))
        y = nn.functional.hardswish(self.temporal_norm(self.temporal(x)))
        x = self.project_norm(self.project(self.excite(y, clock))) * self.rezero + x
        logits: Tensor = self.head(self.pool(x.mean((3, 4), keepdim=True), clock)[:, :, -1:].flatten(1))
        return logits


def normed_stream(videos: int = 1, seed: int = 0) -> NormedStream:
    """In eval mode, with statistics of its norms that are neither 0 nor 1."""
    torch.manual_seed(seed)
    module = NormedStream(videos)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm3d):
            assert child.running_mean is not None
            assert child.running_var is not None
            child.running_mean.normal_(std=0.2)
            child.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.normal_(child.bias, std=0.2)
    return module.eval()
