"""Small modules whose operators the rewrites must lower."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Apply(nn.Module):
    """A function of one video tensor."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Fifo(nn.Module):
    """Hard-swish into a stream buffer, a temporal convolution, and a pooled head."""

    buffer: Tensor

    def __init__(self, kernel: tuple[int, int, int] = (3, 1, 1), groups: int = 8, dilation: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False)
        self.norm = nn.BatchNorm3d(8)
        spatial = (kernel[1] // 2, kernel[2] // 2)
        self.temporal = nn.Conv3d(
            8, 8, kernel, padding=(0, *spatial), groups=groups, dilation=(dilation, 1, 1), bias=False
        )
        self.after = nn.BatchNorm3d(8)
        self.head = nn.Linear(8, 5)
        self.alpha = nn.Parameter(torch.tensor(0.7))
        self.past = (kernel[0] - 1) * dilation
        self.register_buffer("buffer", torch.zeros(1, 8, self.past, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        h = F.hardswish(self.norm(self.stem(x)))
        window = torch.cat([self.buffer, h], dim=2)
        self.buffer.copy_(window[:, :, -self.past :])
        y = F.hardswish(self.after(self.temporal(window))) * self.alpha
        return self.head(y.mean((2, 3, 4)))


class Gated(nn.Module):
    """A unit clamp as a hard sigmoid between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Conv3d(4, 4, 1)
        self.project = nn.Conv3d(4, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.clamp(0.2 * self.reduce(x.mean((3, 4), keepdim=True)) + 0.5, 0.0, 1.0)
        return self.project(x * gate)


def randomise(module: nn.Module) -> nn.Module:
    """Give batch norms statistics that matter."""
    torch.manual_seed(7)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm3d):
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.uniform_(child.bias, -0.5, 0.5)
            assert child.running_mean is not None
            assert child.running_var is not None
            child.running_mean.uniform_(-0.5, 0.5)
            child.running_var.uniform_(0.5, 1.5)
    return module.eval()
