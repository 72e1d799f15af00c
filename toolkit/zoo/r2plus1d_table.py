"""R(2+1)D-18 (Tran et al. 2018, arXiv 1711.11248), in the form and with the input of torchvision's `r2plus1d_18`.

| part | 1 x k x k | kt x 1 x 1 |
|---|---|---|
| stem | 3 -> 45, k 7, stride 2 | 45 -> 64, kt 3 |
| convolution from i to o channels | i -> m, k 3, spatial stride | m -> o, kt 3, temporal stride |

Both convolutions of a block take m from the block's own channels, so that a pair has about the weights of one 3x3x3 kernel. The first
block of each stage strides in space and time together.
"""

from __future__ import annotations

from dataclasses import dataclass

from mvtool.zoo.entry import ModelEntry, Reported

FACTORY = "mvtool.zoo.r2plus1d:build"


@dataclass(frozen=True)
class Stage:
    """Blocks of one width.

    Attributes:
        width: Channels.
        blocks: Number of blocks.
        stride: Of the first block, in space and time.
    """

    width: int
    blocks: int
    stride: int


STEM_INNER, STEM_WIDTH = 45, 64
STAGES = (Stage(64, 2, 1), Stage(128, 2, 2), Stage(256, 2, 2), Stage(512, 2, 2))


def inner_width(in_channels: int, out_channels: int) -> int:
    """Channels between the two kernels: floor(27 i o / (9 i + 3 o)), equation in section 3.5 of the paper.

    Example:
        >>> inner_width(64, 128)
        230
    """
    return 27 * in_channels * out_channels // (9 * in_channels + 3 * out_channels)


ENTRIES = (
    ModelEntry(
        name="r2plus1d_18",
        family="r2plus1d",
        description="R(2+1)D-18, whole clips, spatial and temporal kernels in turn",
        factory=FACTORY,
        arguments={},
        stream=False,
        resolution=112,
        resize_short_side=128,
        frames=16,
        frame_rate=15.0,
        parameters=31_505_325,
        num_classes=400,
        mean=(0.43216, 0.394666, 0.37645),
        std=(0.22803, 0.22145, 0.216989),
        labels="kinetics400",
        reported=Reported(
            "torchvision, R2Plus1D_18_Weights.KINETICS400_V1",
            parameters=31_505_325,
            macs=40.52e9,
            accuracy="57.5 % top-1, Kinetics-400, clips of 16 frames, torchvision 0.13",
            note="The TVN paper (arXiv 1910.06961) measures a (2+1)D ResNet-18 of its own with 38 G on 32 frames; it gives no blocks.",
        ),
    ),
)
