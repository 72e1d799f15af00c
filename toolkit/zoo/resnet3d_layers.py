"""The bottleneck of ResNet3D and its parts.

    kt x 1 x 1, ReLU - 1 x 3 x 3, ReLU - 1 x 1 x 1 - self-gating - sum - ReLU

Every convolution but that of the self-gating is followed by a batch norm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvtool.streaming import Clock, CumulativeMean, StreamConv3d
from mvtool.streaming.padding import same_size
from mvtool.zoo.resnet3d_table import EXPANSION

BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.01
"""TensorFlow's momentum 0.99 counts the other way round."""
Size = tuple[int, int]


@dataclass(frozen=True)
class Place:
    """Where in the network a layer stands: what it needs to make its buffer.

    Attributes:
        causal: Keep stream state.
        batch: N.
        size: (H, W) of the input.
        span: Video frames for one frame of the input.
    """

    causal: bool
    batch: int
    size: Size
    span: int

    def behind(self, stride: int, time_stride: int = 1) -> Place:
        """The place behind a layer with this stride."""
        height, width = self.size
        size = (same_size(height, stride), same_size(width, stride))
        return Place(self.causal, self.batch, size, self.span * time_stride)


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: (kt, kh, kw).
        place: Of the layer.
        stride: Spatial stride.
        time_stride: Temporal stride.
        activation: End with a ReLU.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int],
        place: Place,
        *,
        stride: int = 1,
        time_stride: int = 1,
        activation: bool = True,
    ) -> None:
        super().__init__()
        self.conv = StreamConv3d(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            time_stride=time_stride,
            causal=place.causal,
            input_shape=(place.batch, *place.size),
            span=place.span,
        )
        self.norm = nn.BatchNorm3d(out_channels, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) to (N, C', ceil(T / time_stride), ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.norm(self.conv(x))
        return functional.relu(y) if self.activation else y


class SelfGating(nn.Module):
    """Scale the channels by sigmoid(W mean + b), the mean over the clip or over everything seen.

    Args:
        channels: C.
        place: Of the layer.
    """

    def __init__(self, channels: int, place: Place) -> None:
        super().__init__()
        self.pool = CumulativeMean(place.batch, channels) if place.causal else None
        self.transform = nn.Conv3d(channels, channels, 1)

    def forward(self, x: Tensor, clock: Clock | None) -> Tensor:
        """(N, C, T, H, W) to the same shape."""
        if self.pool is None or clock is None:
            mean = x.mean((2, 3, 4), keepdim=True)
        else:
            mean = self.pool(x.mean((3, 4), keepdim=True), clock)
        return x * torch.sigmoid(self.transform(mean))


class Bottleneck(nn.Module):
    """kt x 1 x 1 to `width` channels, 1 x 3 x 3, 1 x 1 x 1 to four times as many, self-gating, sum, ReLU.

    Args:
        in_channels: Channels of the input.
        width: Channels inside.
        time: kt.
        stride: Spatial stride, of the second convolution and of the shortcut.
        place: Of the block.
        gating: With self-gating.
    """

    def __init__(self, in_channels: int, width: int, time: int, stride: int, place: Place, *, gating: bool) -> None:
        super().__init__()
        channels, behind = EXPANSION * width, place.behind(stride)
        self.temporal = ConvNorm(in_channels, width, (time, 1, 1), place)
        self.spatial = ConvNorm(width, width, (1, 3, 3), place, stride=stride)
        self.expand = ConvNorm(width, channels, (1, 1, 1), behind, activation=False)
        self.gating = SelfGating(channels, behind) if gating else None
        unit = (1, 1, 1)
        same = in_channels == channels and stride == 1
        self.shortcut = None if same else ConvNorm(in_channels, channels, unit, place, stride=stride, activation=False)

    def forward(self, x: Tensor, clock: Clock | None) -> Tensor:
        """(N, C, T, H, W) to (N, 4 width, T, ceil(H / stride), ceil(W / stride)); `clock` only for streams."""
        y = self.expand(self.spatial(self.temporal(x)))
        if self.gating is not None:
            y = self.gating(y, clock)
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)))
