"""Layers and registry entries of PyTorchVideo's Slow-R50 and R(2+1)D-R50.

Layers: builders of github.com/facebookresearch/pytorchvideo. Input: its training crop of 224 pixels from a shorter side
of 256, where its head, whose mean spans the training crop, equals the global mean that is built here. Parameters are
exact for 400 classes and count the weights only, not the batch statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

from mvtool.zoo.entry import InputRule, ModelEntry, Reported

FACTORY = "mvtool.zoo.pytorchvideo_resnet:build"
VIDEO_RATE = 30.0
"""Frames per second of the videos that the frame strides refer to."""
MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)


@dataclass(frozen=True)
class Stage:
    """Bottlenecks of one width; the strides are those of the first one.

    Attributes:
        blocks: Number of bottlenecks.
        inner: Channels inside; outside there are 4 times as many.
        kernel_first: Temporal size of the first convolution.
        kernel_middle: Temporal size of a convolution before the spatial one; 1 for none.
        stride_time: Temporal stride, of the convolution before the spatial one.
        stride_space: Spatial stride.
    """

    blocks: int
    inner: int
    kernel_first: int
    kernel_middle: int
    stride_time: int
    stride_space: int


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        name: Registry name.
        title: For listings.
        max_pool: There is a max pool behind the stem.
        stages: The four stages.
        frames: Length of a clip.
        frame_stride: Distance of its frames in frames of the video.
        parameters: Exact count.
        published: Parameters, multiply-adds at 256 pixels, and top-1 in per cent with 10 clips of 3 crops.
    """

    name: str
    title: str
    max_pool: bool
    stages: tuple[Stage, ...]
    frames: int
    frame_stride: int
    parameters: int
    published: tuple[float, float, float]


ROWS = (
    Row(
        "slow_r50",
        "Slow-R50",
        True,
        (
            #     blocks inner first middle time space
            Stage(3, 64, 1, 1, 1, 1),
            Stage(4, 128, 1, 1, 1, 2),
            Stage(6, 256, 3, 1, 1, 2),
            Stage(3, 512, 3, 1, 1, 2),
        ),
        frames=8,
        frame_stride=8,
        parameters=32_454_096,
        published=(32.45e6, 54.52e9, 74.58),
    ),
    Row(
        "r2plus1d_50",
        "R(2+1)D-R50",
        False,
        (
            Stage(3, 64, 1, 3, 1, 2),
            Stage(4, 128, 1, 3, 1, 2),
            Stage(6, 256, 1, 3, 2, 2),
            Stage(3, 512, 1, 3, 2, 2),
        ),
        frames=16,
        frame_stride=4,
        parameters=28_107_600,
        published=(28.11e6, 76.45e9, 76.01),
    ),
)


def _entry(row: Row) -> ModelEntry:
    parameters, macs, top1 = row.published
    return ModelEntry(
        name=row.name,
        family="pytorchvideo_resnet",
        description=f"{row.title} of PyTorchVideo, whole clips",
        factory=FACTORY,
        arguments={"architecture": row.name},
        stream=False,
        resolution=224,
        resize_short_side=256,
        frames=row.frames,
        frame_rate=VIDEO_RATE / row.frame_stride,
        parameters=row.parameters,
        num_classes=400,
        mean=MEAN,
        std=STD,
        labels="kinetics400",
        rule=InputRule(),
        reported=Reported(
            source="model zoo of github.com/facebookresearch/pytorchvideo",
            parameters=parameters,
            accuracy=f"{top1} % top-1, Kinetics-400, 10 clips of 3 crops",
            note=f"Published are {macs / 1e9:g} G multiply-adds, for crops of 256 pixels.",
        ),
    )


ENTRIES = tuple(_entry(row) for row in ROWS)
