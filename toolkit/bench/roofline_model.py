"""The matrix product of `mvtool.bench.roofline` as a PyTorch module."""

from __future__ import annotations

import torch
from torch import nn

from mvtool.bench.roofline import CHANNELS, LAYERS


def make() -> nn.Module:
    """1x1 convolutions over `(N, 512, H, W)`, seeded."""
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Conv2d(CHANNELS, CHANNELS, 1) for _ in range(LAYERS))).eval()
