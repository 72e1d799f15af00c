"""From expansion factors to the layer widths and depths of an X3D. Imports no framework.

The family is one tiny 2D network, X2D, whose axes are scaled: X2D has one frame of 112 pixels, stages of 1, 2, 5 and 3
blocks, and no bottleneck expansion. The paper (arXiv 2004.04730) writes the factors as gamma with the axis as index.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from mvtool.zoo.widths import make_divisible

BASE_RESOLUTION = 112
BASE_DEPTHS = (1, 2, 5, 3)
BASE_WIDTHS = (12, 24, 48, 96)
RESOLUTION_STEP = 8
"""Rounding of the scaled resolution: 112 times the square root of 2 is published as 160."""
EXCITE_RATIO = 1 / 16


@dataclass(frozen=True)
class X3DGammas:
    """Expansion factors; the defaults are X2D.

    Attributes:
        tau: Frame stride: distance of the sampled frames in frames of the video.
        t: Number of frames.
        s: Height and width over 112.
        w: Widths of stem and stages over 12, 12, 24, 48, 96. The paper's table 1 counts it from 24 (X2D is 1 there),
            but its XL and both released codes count from 12, and so is done here.
        b: Width of the bottleneck over that of its stage.
        d: Numbers of blocks over 1, 2, 5, 3, rounded up.
    """

    tau: float = 1.0
    t: int = 1
    s: float = 1.0
    w: float = 2.0
    b: float = 1.0
    d: float = 1.0


class HeadPool(StrEnum):
    """What the head does with a picture that is larger than the training crop.

    GLOBAL takes one mean over everything. POSITIONS slides the mean of the training crop's size over the picture,
    classifies every position and averages the logits, as the published evaluation of larger pictures does. The two
    agree at the training crop.
    """

    GLOBAL = "global"
    POSITIONS = "positions"


@dataclass(frozen=True)
class Stage:
    """Blocks of one output width; the first one has spatial stride 2.

    Attributes:
        blocks: Number of blocks.
        width: Channels between the blocks.
        inner: Channels of the depthwise convolution.
        hidden: Channels between the two convolutions of the squeeze-excite.
    """

    blocks: int
    width: int
    inner: int
    hidden: int


@dataclass(frozen=True)
class X3DConfig:
    """Everything that determines an X3D module.

    Attributes:
        stem: Channels of the stem.
        stages: The four stages, res2 to res5.
        frames: Length of the training clips.
        resolution: Height and width of the training crop.
        num_classes: Width of the logits.
        res2_shortcut_norm: Batch norm on the strided shortcut of the first stage, where the width stays the same.
            SlowFast has it, PyTorchVideo does not.
        head_pool: How the head pools.
        dropout: Rate before the last dense layer in training.
    """

    stem: int
    stages: tuple[Stage, ...]
    frames: int
    resolution: int
    num_classes: int = 400
    res2_shortcut_norm: bool = True
    head_pool: HeadPool = HeadPool.GLOBAL
    dropout: float = 0.5

    @property
    def pool_size(self) -> tuple[int, int, int]:
        """(T, H, W) of the head's input at the training crop: five strides of 2 in space, none in time."""
        side = math.ceil(self.resolution / 32)
        return self.frames, side, side


def expanded(gammas: X3DGammas) -> X3DConfig:
    """The X3D with these expansion factors, in SlowFast's form with 400 classes.

    Widths are rounded to multiples of 8 by MobileNet's rule, bottlenecks down, depths up.
    """
    stages = []
    for width, depth in zip(BASE_WIDTHS, BASE_DEPTHS, strict=True):
        outer = make_divisible(width * gammas.w)
        inner = int(outer * gammas.b)
        stages.append(Stage(math.ceil(depth * gammas.d), outer, inner, make_divisible(inner * EXCITE_RATIO)))
    return X3DConfig(
        stem=make_divisible(BASE_WIDTHS[0] * gammas.w),
        stages=tuple(stages),
        frames=gammas.t,
        resolution=round(BASE_RESOLUTION * gammas.s / RESOLUTION_STEP) * RESOLUTION_STEP,
    )
