"""Tiny Video Networks (Piergiovanni, Angelova, Ryoo 2019, arXiv 1910.06961).

    blocks - mean over time and space - dropout - dense

One repeat of a block, where every convolution has a batch norm behind it and no bias:

    spatial operator - temporal operator - 1x1x1 to filters * expand - squeeze-excite - context gate - add skip - act

An inverted block widens before the spatial operator and narrows after the gates. All padding is TensorFlow's SAME.
Input (N, 3, T, H, W), float32 RGB in 0..1; output logits (N, classes). Follows the authors' public code
(google-research, folder tiny_video_nets), which folds the frames into the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvtool.errors import SourceError
from mvtool.streaming import Activation, ExciteType, Gate, SameAveragePool, SameMaxPool, SqueezeExcite
from mvtool.streaming.padding import pad_same, same_size
from mvtool.zoo.tvn_table import ARCHITECTURES, CLASSES, Act, Block
from mvtool.zoo.video_shape import RGB, check_video

Triple = tuple[int, int, int]
DROPOUT = 0.5
CLASSIFIER_STD = 0.01
"""Standard deviation of the dense layer at the start of training."""


class TemporalPool(StrEnum):
    """How the frames of a clip become one answer.

    MEAN: mean of the features over time and space.
    SOFTMAX: logits x of every frame, then the sum of x softmax(x / sqrt(T)) over time, for long videos in which
        the action takes a part of the time (Charades).
    """

    MEAN = "mean"
    SOFTMAX = "softmax"


class SameConv3d(nn.Conv3d):
    """Convolution without bias and with SAME padding over time and space."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, T, H, W) to (N, C', ceil(T / st), ceil(H / sh), ceil(W / sw))."""
        x, padding = pad_same(input, self.kernel_size, self.stride)
        return functional.conv3d(x, self.weight, None, self.stride, padding, 1, self.groups)


class ConvNorm(nn.Module):
    """Convolution with SAME padding and without bias, batch norm, activation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: (kt, kh, kw).
        stride: (st, sh, sw).
        groups: As in `nn.Conv3d`.
        activation: None for a linear layer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Triple = (1, 1, 1),
        *,
        stride: Triple = (1, 1, 1),
        groups: int = 1,
        activation: Activation | None = None,
    ) -> None:
        super().__init__()
        self.conv = SameConv3d(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm3d(out_channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) to (N, C', ceil(T / st), ceil(H / sh), ceil(W / sw))."""
        y: Tensor = self.norm(self.conv(x))
        return y if self.activation is None else self.activation(y)


class ContextGate(nn.Module):
    """Scale channels by the sigmoid of a linear function of their means over time and space.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense = nn.Conv3d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) to the same shape."""
        return x * torch.sigmoid(self.dense(x.mean((2, 3, 4), keepdim=True)))


class Repeat(nn.Module):
    """One repeat of a block.

    Args:
        block: Row of the block.
        in_channels: Channels of the input.
        size: (T, H, W) of the input.
        index: 0 for the first repeat, which alone has strides; odd ones have no temporal operator.

    Attributes:
        channels: Channels of the output.
        size: (T, H, W) of the output.
    """

    def __init__(self, block: Block, in_channels: int, size: Triple, index: int) -> None:
        super().__init__()
        self.channels = block.filters if block.inverted else block.wide
        in_time = index % 2 == 0 and size[0] > 1 and block.time_kernel > 1
        space = block.space_stride if index == 0 else 1
        time = block.time_stride if index == 0 else 1
        after = _picture(size, space) if block.space_kernel > 1 else size
        self.size = (same_size(after[0], time), *after[1:]) if in_time else after
        self.path = nn.Sequential()
        width = block.wide if block.inverted else in_channels
        if block.inverted:
            # ReLU whatever the block's own activations are.
            self.path.add_module("widen", ConvNorm(in_channels, width, activation=Activation.RELU))
        inner = block.wide if block.inverted else block.filters
        if block.space_kernel > 1:
            width = _append(self.path, _spatial(block, width, inner, size, space), width)
        if in_time:
            width = _append(self.path, _temporal(block, width, inner, after, time), width)
        _append(self.path, _tail(block, width), width)
        self.residual = self._residual(block, in_channels, size, space)
        self.activation = Activation(block.act)

    def _residual(self, block: Block, in_channels: int, size: Triple, space: int) -> ConvNorm | None:
        """A convolution also where shapes agree; none where the number of frames changes."""
        if not block.skip or self.size[0] != size[0]:
            return None
        stride = 1 if self.size[2] == size[2] else space
        return ConvNorm(in_channels, self.channels, stride=(1, stride, stride))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) to (N, `channels`, *`size`)."""
        y: Tensor = self.path(x)
        if self.residual is not None:
            y = y + self.residual(x)
        return self.activation(y)


Named = Iterator[tuple[str, nn.Module]]


def _append(path: nn.Sequential, layers: Named, width: int) -> int:
    """Append layers; returns the channels after them."""
    for name, layer in layers:
        path.add_module(name, layer)
        width = layer.conv.out_channels if isinstance(layer, ConvNorm) else width
    return width


def _picture(size: Triple, stride: int) -> Triple:
    return size[0], same_size(size[1], stride), same_size(size[2], stride)


def _spatial(block: Block, channels: int, inner: int, size: Triple, stride: int) -> Named:
    k, act = block.space_kernel, Activation(block.spatial_act)
    if block.spatial == "maxpool":
        yield "spatial", SameMaxPool((k, k), (stride, stride))
    elif block.spatial == "avgpool":
        yield "spatial", SameAveragePool(size[1:], (k, k), (stride, stride))
    else:
        groups = inner if block.spatial == "depth" else 1
        yield "reduce", ConvNorm(channels, inner, activation=act)
        steps = (1, stride, stride)
        yield "spatial", ConvNorm(inner, inner, (1, k, k), stride=steps, groups=groups, activation=act)


def _temporal(block: Block, channels: int, inner: int, size: Triple, stride: int) -> Named:
    kernel, steps = (block.time_kernel, 1, 1), (stride, 1, 1)
    if block.temporal == "maxpool":
        yield "temporal", SameMaxPool(kernel, steps)
    elif block.temporal == "avgpool":
        yield "temporal", SameAveragePool(size, kernel, steps)
    else:
        act = Activation(block.temporal_act)
        yield "temporal", ConvNorm(channels, inner, kernel, stride=steps, activation=act)


def _tail(block: Block, channels: int) -> Named:
    """What follows the operators: expansion, gates, and the projection of an inverted block."""
    if not block.inverted:
        yield "expand", ConvNorm(channels, block.wide)
    if block.squeeze:
        kind, act = ExciteType.SPACE_TIME, Activation.RELU
        yield "excite", SqueezeExcite(block.wide, block.excite, kind, act, Gate.SIGMOID, batch=None)
    if block.gate:
        yield "gate", ContextGate(block.wide)
    if block.inverted:
        yield "project", ConvNorm(channels, block.filters)


class TinyVideoNet(nn.Module):
    """One network, built for one clip length and picture size.

    Args:
        blocks: Rows of the table.
        num_classes: Width of the logits.
        size: (T, H, W) of the input.
        pool: How frames become one answer.

    Attributes:
        blocks: One `nn.Sequential` of repeats per row.
    """

    def __init__(self, blocks: tuple[Block, ...], num_classes: int, size: Triple, pool: TemporalPool) -> None:
        super().__init__()
        self.input_size, self.pool = size, pool
        self.blocks = nn.Sequential()
        channels = RGB
        for block in blocks:
            repeats = nn.Sequential()
            for index in range(block.repeats):
                repeat = Repeat(block, channels, size, index)
                channels, size = repeat.channels, repeat.size
                repeats.append(repeat)
            self.blocks.append(repeats)
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(channels, num_classes)
        self._initialise()

    def forward(self, video: Tensor) -> Tensor:
        """Logits (N, classes) of a clip (N, 3, T, H, W), float32 in 0..1.

        Raises:
            UsageError: The shape is not the one this network was built for.
        """
        self._check(video)
        x: Tensor = self.blocks(video)
        if self.pool is TemporalPool.SOFTMAX:
            return self._over_time(x.mean((3, 4)))
        logits: Tensor = self.classifier(self.dropout(x.mean((2, 3, 4))))
        return logits

    def _over_time(self, features: Tensor) -> Tensor:
        """Logits (N, classes) from features of every frame (N, C, T)."""
        logits: Tensor = self.classifier(self.dropout(features.transpose(1, 2)))
        share = torch.softmax(logits * logits.shape[1] ** -0.5, dim=1)
        return (logits * share).sum(1)

    def _check(self, video: Tensor) -> None:
        frames, height, width = self.input_size
        remedy = "Build it with other `frames` or `resolution`, or resize the video"
        check_video("This Tiny Video Network", tuple(video.shape), frames=frames, size=(height, width), remedy=remedy)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.classifier.weight, std=CLASSIFIER_STD)
        nn.init.zeros_(self.classifier.bias)


def build(
    *,
    architecture: str,
    num_classes: int = CLASSES,
    resolution: int | tuple[int, int],
    frames: int,
    activation: str | None = None,
    temporal_pool: str = TemporalPool.MEAN,
) -> TinyVideoNet:
    """Build one Tiny Video Network in evaluation mode.

    Args:
        architecture: `1` to `4`, `m_1` or `m_2`.
        num_classes: Width of the logits.
        resolution: Height and width, or one number for both.
        frames: Frames per call.
        activation: `relu` or `hard_swish` in every block; the published ones if not given. The paper's
            "TVN-1 + swish" is `1` with `hard_swish`.
        temporal_pool: A `TemporalPool` value.

    Raises:
        SourceError: An argument has no meaning.
    """
    blocks = next(a.blocks for a in ARCHITECTURES if a.name == architecture)
    if activation is not None:
        blocks = tuple(_activated(block, activation) for block in blocks)
    if temporal_pool not in list(TemporalPool):
        raise SourceError(f"{temporal_pool!r} is no temporal pool; known are {', '.join(TemporalPool)}.")
    height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
    return TinyVideoNet(blocks, num_classes, (frames, height, width), TemporalPool(temporal_pool)).eval()


def _activated(block: Block, activation: str) -> Block:
    """The block with one activation everywhere."""
    known = get_args(Act)
    if activation not in known:
        raise SourceError(f"{activation!r} is no activation of a Tiny Video Network; known are {', '.join(known)}.")
    return replace(block, spatial_act=activation, temporal_act=activation, act=activation)  # type: ignore[arg-type]
