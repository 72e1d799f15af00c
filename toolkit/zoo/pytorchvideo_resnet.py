"""Video ResNets as PyTorchVideo builds them: Slow-R50 and R(2+1)D-R50.

    stem 1x7x7 stride 2, [max pool 1x3x3 stride 2] - four stages of bottlenecks - mean - dense

Input (N, 3, T, H, W), float32 RGB, normalised; output logits (N, classes). Slow (Feichtenhofer et al. 2019, arXiv
1812.03982) has temporal kernels in the first 1x1x1 of the last two stages and keeps all frames; R(2+1)D (Tran et al.
2018, arXiv 1711.11248) has them in every bottleneck, before the spatial kernel, and halves the frames twice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvtool.errors import SourceError
from mvtool.zoo.conv_norm import ConvNorm
from mvtool.zoo.pytorchvideo_resnet_table import ROWS, Row, Stage
from mvtool.zoo.video_shape import RGB, check_video

STEM_WIDTH = 64
EXPANSION = 4
"""Output of a bottleneck over its inner width."""
DROPOUT = 0.5
LAST_DENSE_STD = 0.01
"""Standard deviation of the last dense layer at the start of training."""


class Stem(nn.Module):
    """Convolution, batch norm, ReLU, and for some networks a max pool.

    Args:
        pool: Have the max pool.
    """

    def __init__(self, *, pool: bool) -> None:
        super().__init__()
        self.conv = ConvNorm(RGB, STEM_WIDTH, (1, 7, 7), stride=(1, 2, 2))
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, T, H, W) to (N, 64, T, H / 2, W / 2), with the pool H / 4, rounded up."""
        y: Tensor = self.pool(torch.relu(self.conv(x)))
        return y


class Bottleneck(nn.Module):
    """kt x1x1, ReLU, [3x1x1, ReLU,] 1x3x3, ReLU, 1x1x1, sum with the shortcut, ReLU; batch norm behind all of them.

    Args:
        in_channels: Channels of the input.
        stage: Widths, kernels and strides.
        index: Position in the stage; the first block has the strides, and a convolution as shortcut.
    """

    def __init__(self, in_channels: int, stage: Stage, index: int) -> None:
        super().__init__()
        inner, out = stage.inner, EXPANSION * stage.inner
        time, space = (stage.stride_time, stage.stride_space) if index == 0 else (1, 1)
        strides = (time, space, space)
        self.shortcut = ConvNorm(in_channels, out, (1, 1, 1), stride=strides) if index == 0 else nn.Identity()
        self.expand = ConvNorm(in_channels, inner, (stage.kernel_first, 1, 1))
        self.temporal: ConvNorm | None = None
        if stage.kernel_middle > 1:
            self.temporal = ConvNorm(inner, inner, (stage.kernel_middle, 1, 1), stride=(time, 1, 1))
        self.spatial = ConvNorm(inner, inner, (1, 3, 3), stride=(1, space, space))
        self.project = ConvNorm(inner, out, (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) to (N, 4 inner, T / stride, H / stride, W / stride), rounded up."""
        y = torch.relu(self.expand(x))
        if self.temporal is not None:
            y = torch.relu(self.temporal(y))
        y = self.project(torch.relu(self.spatial(y)))
        return torch.relu(self.shortcut(x) + y)


class PyTorchVideoResNet(nn.Module):
    """One of these ResNets.

    Args:
        row: Its layers.
        num_classes: Width of the logits.
    """

    def __init__(self, row: Row, num_classes: int) -> None:
        super().__init__()
        self.name = row.name
        self.stem = Stem(pool=row.max_pool)
        widths = [STEM_WIDTH, *(EXPANSION * stage.inner for stage in row.stages)]
        self.stages = nn.Sequential(*map(_blocks, widths, row.stages))
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(widths[-1], num_classes)
        self._initialise()

    def forward(self, video: Tensor) -> Tensor:
        """Classify clips.

        Args:
            video: (N, 3, T, H, W), float32, normalised.

        Returns:
            Logits (N, classes).

        Raises:
            UsageError: The shape is no clip.
        """
        check_video(self.name, tuple(video.shape))
        pooled = self.stages(self.stem(video)).mean((2, 3, 4))
        if self.training:
            pooled = self.dropout(pooled)
        logits: Tensor = self.classifier(pooled)
        return logits

    def _initialise(self) -> None:
        """As PyTorchVideo starts training: every branch begins as nothing, because its last norm has weight 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.project.norm.weight)
        nn.init.normal_(self.classifier.weight, std=LAST_DENSE_STD)
        nn.init.zeros_(self.classifier.bias)


def _blocks(in_channels: int, stage: Stage) -> nn.Sequential:
    """One stage."""
    inside = EXPANSION * stage.inner
    return nn.Sequential(*(Bottleneck(inside if i else in_channels, stage, i) for i in range(stage.blocks)))


def build(*, architecture: str, num_classes: int = 400, resolution: int | tuple[int, int] = 224) -> PyTorchVideoResNet:
    """Build one of these ResNets in evaluation mode, with fresh weights.

    Args:
        architecture: `slow_r50` or `r2plus1d_50`.
        num_classes: Width of the logits.
        resolution: Height and width of the pictures, or one number for both; no layer depends on it.

    Raises:
        SourceError: There is no such architecture.
    """
    rows = {row.name: row for row in ROWS}
    if architecture not in rows:
        raise SourceError(f"There is no ResNet {architecture!r} of PyTorchVideo here; known are {', '.join(rows)}.")
    return PyTorchVideoResNet(rows[architecture], num_classes).eval()
