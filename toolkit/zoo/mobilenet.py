"""MobileNet V2 and V3 on the frames of a video.

    stem 3x3 stride 2 - inverted bottlenecks - 1x1 - mean over the picture - [dense - hard swish] - dense

Input (N, 3, T, H, W), float32 RGB, normalised; output logits (N, classes). With temporal shifts (TSM) the bottlenecks that
have a residual and an expansion take some channels from another frame; see `temporal_shift`.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional

from mvtool.errors import SourceError
from mvtool.streaming import Gate
from mvtool.streaming.padding import same_size
from mvtool.zoo.frame_network import ACTIVATIONS, ConvNorm, FrameNetwork, Norm
from mvtool.zoo.mobilenet_config import Architecture, Row
from mvtool.zoo.mobilenet_v3_table import ARCHITECTURES
from mvtool.zoo.temporal_shift import Shifts, Size
from mvtool.zoo.video_shape import RGB
from mvtool.zoo.widths import make_divisible

EXCITE_RATIO = 4
"""The hidden layer of a squeeze-excite has this part of the channels (MobileNetV3, section 5.3)."""
DENSE_STD = 0.01
"""Standard deviation of the dense layers at the start of training (torchvision)."""


class Excite(nn.Module):
    """Squeeze-excite of one picture: mean, 1x1, ReLU, 1x1, relu6(x + 3) / 6, multiply.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = make_divisible(channels // EXCITE_RATIO)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of (B, C, H, W)."""
        pooled = x.mean((2, 3), keepdim=True)
        return x * Gate.RELU6(self.expand(functional.relu(self.reduce(pooled))))


class InvertedBottleneck(nn.Module):
    """One row: [shift] - [1x1] - depthwise - [squeeze-excite] - 1x1 - [add input].

    Args:
        in_channels: Channels of the input.
        row: Its numbers.
        size: (H, W) of the input.
        norm: Constants of the batch norms.
        shifts: Temporal shifts of the network.
    """

    def __init__(self, in_channels: int, row: Row, size: Size, norm: Norm, shifts: Shifts | None) -> None:
        super().__init__()
        self.residual = row.stride == 1 and in_channels == row.out
        expands = row.expand != in_channels
        shifted = shifts is not None and self.residual and expands
        self.shift = shifts.module(in_channels, size) if shifts is not None and shifted else nn.Identity()
        self.expand = (
            ConvNorm(in_channels, row.expand, 1, activation=row.activation, norm=norm) if expands else nn.Identity()
        )
        self.depthwise = ConvNorm(
            row.expand,
            row.expand,
            row.kernel,
            stride=row.stride,
            groups=row.expand,
            activation=row.activation,
            norm=norm,
        )
        self.excite = Excite(row.expand) if row.excite else nn.Identity()
        self.project = ConvNorm(row.expand, row.out, 1, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.project(self.excite(self.depthwise(self.expand(self.shift(x)))))
        return x + y if self.residual else y


class MobileNet(FrameNetwork):
    """One MobileNet; its layers are `stem`, `layers`, `last`, `hidden` (V3 only) and `classifier`.

    Args:
        architecture: The table.
        num_classes: Width of the logits.
        resolution: Height and width of the frames.
        shifts: Temporal shifts; None to see every frame by itself.
    """

    def __init__(
        self, architecture: Architecture, num_classes: int, resolution: Size, shifts: Shifts | None = None
    ) -> None:
        super().__init__(architecture.title, resolution, shifts)
        self.architecture = architecture
        norm = Norm(architecture.eps, architecture.momentum)
        width, act = architecture.rows[-1].out, architecture.activation
        self.stem = ConvNorm(RGB, architecture.stem, 3, stride=2, activation=act, norm=norm)
        self.layers = nn.Sequential(*_bottlenecks(architecture, resolution, norm, shifts))
        self.last = ConvNorm(width, architecture.last, 1, activation=act, norm=norm)
        self.hidden = None if architecture.hidden is None else nn.Linear(architecture.last, architecture.hidden)
        self.dropout = nn.Dropout(architecture.dropout)
        self.classifier = nn.Linear(architecture.hidden or architecture.last, num_classes)
        self._initialise()

    def features(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, last, ceil(H / 32), ceil(W / 32))."""
        features: Tensor = self.last(self.layers(self.stem(frames)))
        return features

    def head(self, features: Tensor) -> Tensor:
        """Logits (B, classes) of feature maps."""
        x = features.mean((2, 3))
        if self.hidden is not None:
            x = ACTIVATIONS[self.architecture.activation](self.hidden(x))
        # In evaluation it would still leave a copy in the exported graph.
        logits: Tensor = self.classifier(self.dropout(x) if self.training else x)
        return logits

    def _initialise(self) -> None:
        """As torchvision starts training."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=DENSE_STD)
                nn.init.zeros_(module.bias)


def _bottlenecks(
    architecture: Architecture, resolution: Size, norm: Norm, shifts: Shifts | None
) -> Iterator[InvertedBottleneck]:
    channels = architecture.stem
    height, width = (same_size(size, 2) for size in resolution)
    for row in architecture.rows:
        yield InvertedBottleneck(channels, row, (height, width), norm, shifts)
        channels, height, width = row.out, same_size(height, row.stride), same_size(width, row.stride)


def build(*, architecture: str, num_classes: int = 600, resolution: int | Size = 224) -> MobileNet:
    """Build a MobileNetV3 that sees every frame by itself, in evaluation mode with fresh weights.

    Args:
        architecture: `small` or `large`.
        num_classes: Width of the logits.
        resolution: Height and width, or one number for both.

    Raises:
        SourceError: There is no such architecture.
    """
    if architecture not in ARCHITECTURES:
        raise SourceError(f"There is no MobileNetV3 {architecture!r}; there are {', '.join(ARCHITECTURES)}.")
    size = (resolution, resolution) if isinstance(resolution, int) else (resolution[0], resolution[1])
    return MobileNet(ARCHITECTURES[architecture], num_classes, size).eval()
