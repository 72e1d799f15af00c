"""Configuration of a MoViNet: the architecture table, the variant and the input size.

Everything is frozen and free of PyTorch modules, so a small network for a test is a few rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from mvtool.streaming.activations import Activation, Gate
from mvtool.streaming.excite import ExciteType
from mvtool.streaming.padding import same_size

Size = tuple[int, int]


@dataclass(frozen=True)
class Layer:
    """One inverted bottleneck.

    Attributes:
        time: Temporal size of the depthwise kernel.
        space: Spatial size of the depthwise kernel.
        expand: Channels of the depthwise convolution.
    """

    time: int
    space: int
    expand: int


@dataclass(frozen=True)
class Block:
    """Layers of one output width.

    Attributes:
        base: Output channels.
        stride: Spatial stride of the first layer.
        layers: The layers.
    """

    base: int
    stride: int
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Architecture:
    """A row of the MoViNet family.

    Attributes:
        name: Short name such as `a0`.
        stem: Channels of the first convolution.
        head: Channels of the last 1x1x1 convolution.
        blocks: Stages between stem and head.
        dense: Width of the hidden dense layer.
        dropout: Rate before the last dense layer in training (Model Garden training configurations).
    """

    name: str
    stem: int
    head: int
    blocks: tuple[Block, ...]
    dense: int = 2048
    dropout: float = 0.2

    @property
    def depth(self) -> int:
        """Number of layers in all blocks."""
        return sum(len(block.layers) for block in self.blocks)

    def layers(self) -> Iterator[tuple[int, int, Block, Layer]]:
        """All layers with block number, number within the block, and block."""
        for i, block in enumerate(self.blocks):
            for j, layer in enumerate(block.layers):
                yield i, j, block, layer


class ConvType(StrEnum):
    """Form of the depthwise convolutions."""

    SPACE_TIME = "3d"
    FACTORED = "2plus1d"


@dataclass(frozen=True)
class Variant:
    """What distinguishes base, stream and the older causal models.

    Attributes:
        causal: Keep stream state; else look at a whole clip.
        conv: Form of the depthwise convolutions.
        excite: Form of the squeeze-excite.
        activation: After every batch norm, and inside the squeeze-excite.
        gate: Squashing function of the squeeze-excite.
        positional: Add the positional encoding to the squeeze-excite (A3, A4 and A5 streams).
        head_activation: After the hidden dense layer. Swish in the Model Garden's classifier and export tool;
            its training files set hard swish for A1 and A4.
    """

    causal: bool
    conv: ConvType
    excite: ExciteType
    activation: Activation
    gate: Gate
    positional: bool = False
    head_activation: Activation = Activation.SWISH


BASE = Variant(False, ConvType.SPACE_TIME, ExciteType.SPACE_TIME, Activation.SWISH, Gate.SIGMOID)
STREAM = Variant(True, ConvType.FACTORED, ExciteType.SPACE_PLUS_SPACE_TIME, Activation.HARD_SWISH, Gate.KERAS)
STREAM_3D = Variant(True, ConvType.SPACE_TIME, ExciteType.SPACE_TIME, Activation.SWISH, Gate.SIGMOID)
"""Streams published before July 2021: causal 3D kernels and 3D squeeze-excite."""


@dataclass(frozen=True)
class MoViNetConfig:
    """Everything that determines a MoViNet module.

    Attributes:
        architecture: The layer table.
        variant: Base, stream or older stream.
        num_classes: Width of the logits.
        resolution: Height and width of the input.
        batch_size: N; fixed, because the state has this size.
        stochastic_depth: Largest drop rate of a layer's branch in training; layer k of K gets k / K of it.
        rezero: First value of every ReZero scalar; 1 starts a short training with all branches at work.
    """

    architecture: Architecture
    variant: Variant
    num_classes: int = 600
    resolution: Size = (172, 172)
    batch_size: int = 1
    stochastic_depth: float = 0.2
    rezero: float = 0.0

    def sizes(self) -> list[Size]:
        """Input size of every layer in order, then that of the head; SAME padding rounds up."""
        height, width = (same_size(n, 2) for n in self.resolution)
        sizes = [(height, width)]
        for _, j, block, _ in self.architecture.layers():
            stride = block.stride if j == 0 else 1
            height, width = same_size(height, stride), same_size(width, stride)
            sizes.append((height, width))
        return sizes
