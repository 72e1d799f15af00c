"""ResNet-50 on the frames of a video (He et al. 2016, arXiv 1512.03385), with temporal shifts before every bottleneck.

    stem 7x7 stride 2, max pool 3x3 stride 2 - bottlenecks 3, 4, 6, 3 - mean over the picture - dense

Strides are on the 3x3 convolutions, as in torchvision. Input (N, 3, T, H, W), float32 RGB, normalised; output logits
(N, classes).
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional

from mvtool.streaming.padding import same_size
from mvtool.zoo.frame_network import ConvNorm, FrameNetwork
from mvtool.zoo.temporal_shift import Shifts, Size
from mvtool.zoo.video_shape import RGB

STEM = 64
EXPANSION = 4
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Inner width, blocks, stride of the first block."""
DROPOUT = 0.5
"""Training commands of the TSM repository."""
DENSE_STD = 0.001
"""Standard deviation of the dense layer at the start of training (TSM repository)."""


class Bottleneck(nn.Module):
    """[Shift] - 1x1 - 3x3 - 1x1, sum with the shortcut, ReLU; the shortcut is not shifted.

    Args:
        in_channels: Channels of the input.
        inner: Channels of the 3x3 convolution; the output has four times as many.
        stride: Spatial stride.
        size: (H, W) of the input.
        shifts: Temporal shifts of the network.
    """

    def __init__(self, in_channels: int, inner: int, stride: int, size: Size, shifts: Shifts | None) -> None:
        super().__init__()
        out = EXPANSION * inner
        self.shift = nn.Identity() if shifts is None else shifts.module(in_channels, size)
        self.reduce = ConvNorm(in_channels, inner, 1, activation="relu")
        self.conv = ConvNorm(inner, inner, 3, stride=stride, activation="relu")
        self.expand = ConvNorm(inner, out, 1)
        self.shortcut = nn.Identity() if in_channels == out else ConvNorm(in_channels, out, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 4 inner, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.expand(self.conv(self.reduce(self.shift(x))))
        return functional.relu(y + self.shortcut(x))


class ResNet(FrameNetwork):
    """ResNet-50; its layers are `stem`, `stages`, `classifier`.

    Args:
        num_classes: Width of the logits.
        resolution: Height and width of the frames.
        shifts: Temporal shifts; None to see every frame by itself.
    """

    def __init__(self, num_classes: int, resolution: Size, shifts: Shifts | None = None) -> None:
        super().__init__("ResNet-50", resolution, shifts)
        self.stem = ConvNorm(RGB, STEM, 7, stride=2, activation="relu")
        self.stages = nn.Sequential(*_stages(resolution, shifts))
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(EXPANSION * STAGES[-1][0], num_classes)
        self._initialise()

    def features(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 2048, ceil(H / 32), ceil(W / 32))."""
        x = functional.max_pool2d(self.stem(frames), 3, 2, 1)
        features: Tensor = self.stages(x)
        return features

    def head(self, features: Tensor) -> Tensor:
        """Logits (B, classes) of feature maps."""
        x = features.mean((2, 3))
        # In evaluation dropout would still leave a copy in the exported graph.
        logits: Tensor = self.classifier(self.dropout(x) if self.training else x)
        return logits

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, std=DENSE_STD)
        nn.init.zeros_(self.classifier.bias)


def _stages(resolution: Size, shifts: Shifts | None) -> Iterator[nn.Sequential]:
    channels = STEM
    height, width = (same_size(same_size(size, 2), 2) for size in resolution)
    for inner, count, first_stride in STAGES:
        blocks = []
        for index in range(count):
            stride = first_stride if index == 0 else 1
            blocks.append(Bottleneck(channels, inner, stride, (height, width), shifts))
            channels, height, width = EXPANSION * inner, same_size(height, stride), same_size(width, stride)
        yield nn.Sequential(*blocks)
