"""What distinguishes the MobileNets of the zoo. Imports no framework."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One inverted bottleneck.

    Attributes:
        kernel: Height and width of the depthwise kernel.
        expand: Channels of the depthwise convolution; the 1x1 convolution before it is left out where this is the input's.
        out: Output channels.
        excite: Has a squeeze-excite.
        activation: `relu`, `relu6` or `hard_swish`, after the expansion and the depthwise convolution.
        stride: Spatial stride.
    """

    kernel: int
    expand: int
    out: int
    excite: bool
    activation: str
    stride: int


@dataclass(frozen=True)
class Architecture:
    """One MobileNet.

    Attributes:
        title: Name for messages.
        stem: Channels of the first convolution, 3x3 with stride 2.
        rows: The bottlenecks.
        last: Channels of the last 1x1 convolution.
        hidden: Width of the hidden dense layer; None for a single dense layer.
        activation: After stem, last convolution and hidden layer.
        dropout: Rate before the last dense layer in training.
        eps: Of the batch norms.
        momentum: Of the batch norms.
    """

    title: str
    stem: int
    rows: tuple[Row, ...]
    last: int
    hidden: int | None
    activation: str
    dropout: float
    eps: float
    momentum: float
