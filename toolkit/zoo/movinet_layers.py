"""The inverted bottleneck of MoViNet and its parts.

    expansion 1x1x1 - depthwise - squeeze-excite - projection 1x1x1 - ReZero - stochastic depth - add skip

Every convolution but those of the squeeze-excite is followed by a batch norm; the projection and the skip have no
activation. There is no activation after the sum.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mvtool.streaming import Activation, Clock, SameAveragePool, SqueezeExcite, StreamConv3d
from mvtool.streaming.padding import same_size
from mvtool.zoo.movinet_config import Block, ConvType, Layer, MoViNetConfig, Size
from mvtool.zoo.widths import make_divisible

BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.01
"""TensorFlow's momentum 0.99 counts the other way round."""
EXCITE_RATIO = 0.25
SKIP_KERNEL = (3, 3)
"""Of the average pool in strided skips."""


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, activation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: (kt, kh, kw).
        stride: Spatial stride.
        groups: As in `nn.Conv3d`.
        activation: None for a linear layer.
        causal: Keep the last kt - 1 frames instead of padding in time.
        input_shape: (N, H, W), for the buffer of a causal kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int],
        *,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = None,
        causal: bool = False,
        input_shape: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.conv = StreamConv3d(
            in_channels, out_channels, kernel, stride=stride, groups=groups, causal=causal, input_shape=input_shape
        )
        self.norm = nn.BatchNorm3d(out_channels, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) to (N, C', T, ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.norm(self.conv(x))
        return y if self.activation is None else self.activation(y)


class Skip(nn.Module):
    """Shortcut of a layer that changes size or width: average pool if strided, 1x1x1, batch norm.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Spatial stride.
        size: (H, W) of the input.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, size: Size) -> None:
        super().__init__()
        self.pool = SameAveragePool(size, SKIP_KERNEL, (stride, stride)) if stride > 1 else nn.Identity()
        self.project = ConvNorm(in_channels, out_channels, (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) to the shape of the layer's branch."""
        y: Tensor = self.project(self.pool(x))
        return y


class InvertedBottleneck(nn.Module):
    """One layer.

    Args:
        config: Configuration of the model.
        block: Block of the layer.
        layer: Its row.
        in_channels: Channels of the input.
        stride: Spatial stride.
        size: (H, W) of the input.
        drop_rate: Stochastic depth in training.
    """

    def __init__(
        self,
        config: MoViNetConfig,
        block: Block,
        layer: Layer,
        *,
        in_channels: int,
        stride: int,
        size: Size,
        drop_rate: float,
    ) -> None:
        super().__init__()
        variant = config.variant
        self.drop_rate = drop_rate
        self.expand = ConvNorm(in_channels, layer.expand, (1, 1, 1), activation=variant.activation)
        self.depthwise, self.temporal = _feature(config, layer, stride, size)
        hidden = make_divisible(EXCITE_RATIO * layer.expand * variant.excite.pools)
        self.excite = SqueezeExcite(
            layer.expand,
            hidden,
            variant.excite,
            variant.activation,
            variant.gate,
            batch=config.batch_size if variant.causal else None,
            positional=variant.positional,
        )
        self.project = ConvNorm(layer.expand, block.base, (1, 1, 1))
        self.rezero = nn.Parameter(torch.tensor(config.rezero))
        same = stride == 1 and in_channels == block.base
        self.skip = None if same else Skip(in_channels, block.base, stride, size)

    def forward(self, x: Tensor, clock: Clock | None, position: Tensor | None) -> Tensor:
        """Apply the layer.

        Args:
            x: (N, C, T, H, W).
            clock: Times of the frames, for streams.
            position: Encoding of the squeeze-excite's width, where used.

        Returns:
            (N, base, T, ceil(H / stride), ceil(W / stride)).
        """
        y = self.depthwise(self.expand(x))
        if self.temporal is not None:
            y = self.temporal(y)
        y = self.project(self.excite(y, clock, position)) * self.rezero
        shortcut: Tensor = x if self.skip is None else self.skip(x)
        return self._drop(y) + shortcut

    def _drop(self, y: Tensor) -> Tensor:
        """Stochastic depth: in training, drop the branch of whole samples and scale up the others."""
        if not self.training or self.drop_rate == 0.0:
            return y
        keep = torch.empty((y.shape[0], 1, 1, 1, 1), device=y.device).bernoulli_(1.0 - self.drop_rate)
        return y * keep / (1.0 - self.drop_rate)


def _feature(config: MoViNetConfig, layer: Layer, stride: int, size: Size) -> tuple[ConvNorm, ConvNorm | None]:
    """The depthwise convolution, and the temporal one of the factored form where the kernel spans time."""
    variant = config.variant
    factored = variant.conv is ConvType.FACTORED

    def convolution(kernel: tuple[int, int, int], stride: int, size: Size) -> ConvNorm:
        return ConvNorm(
            layer.expand,
            layer.expand,
            kernel,
            stride=stride,
            groups=layer.expand,
            activation=variant.activation,
            causal=variant.causal,
            input_shape=(config.batch_size, *size),
        )

    depthwise = convolution((1 if factored else layer.time, layer.space, layer.space), stride, size)
    if not factored or layer.time == 1:
        return depthwise, None
    # The buffer holds the tensor after the spatial stride, a quarter of what a 3D kernel has to keep.
    return depthwise, convolution((layer.time, 1, 1), 1, (same_size(size[0], stride), same_size(size[1], stride)))


def bottlenecks(config: MoViNetConfig) -> Iterator[tuple[str, InvertedBottleneck]]:
    """All layers of a model with their names, `block{i}_layer{j}`."""
    architecture = config.architecture
    channels = architecture.stem
    for k, ((i, j, block, layer), size) in enumerate(zip(architecture.layers(), config.sizes(), strict=False), start=1):
        yield (
            f"block{i}_layer{j}",
            InvertedBottleneck(
                config,
                block,
                layer,
                in_channels=channels,
                stride=block.stride if j == 0 else 1,
                size=size,
                drop_rate=config.stochastic_depth * k / architecture.depth,
            ),
        )
        channels = block.base
