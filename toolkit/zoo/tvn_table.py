"""The Tiny Video Networks (Piergiovanni, Angelova, Ryoo 2019, arXiv 1910.06961), as found by their search.

The rows are those of the authors' `tiny_video_nets/found_tvns.py`. Its `current_size` and `output_size` are leftovers
of the search that contradict the strides, and non-local layers are switched off in every row; both are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mvtool.zoo.entry import InputRule, ModelEntry, Reported

Act = Literal["relu", "hard_swish"]
CLASSES = 339
"""Moments in Time."""
FACTORY = "mvtool.zoo.tvn:build"
VIDEO_RATE = 25.0
"""Frames per second that the frame strides are taken to count; the search goes up to 25."""


@dataclass(frozen=True)
class Block:
    """One block, the columns of the published structures.

    Attributes:
        spatial: Operator over the picture; `std` and `depth` have a 1x1x1 convolution before them.
        space_kernel: Its kernel.
        space_stride: Its stride, in the first repeat only.
        temporal: Operator over frames, in the first repeat and from then on in every second; none with kernel 1.
        time_kernel: Its kernel.
        time_stride: Its stride, in the first repeat only.
        filters: Channels that the operators work on; of an inverted block, channels of its output.
        expand: Factor to the channels of the output; of an inverted block, to those that the operators work on.
        repeats: Layers of the block.
        squeeze: Ratio of the squeeze-excite, 0 for none.
        gate: Context gate: 1 or 0.
        skip: Shortcut: 1 or 0.
        inverted: Inverted bottleneck: 1 or 0.
        spatial_act: Activation of `std` and `depth`.
        temporal_act: Activation of `1d`.
    """

    spatial: Literal["std", "depth", "maxpool", "avgpool"]
    space_kernel: int
    space_stride: int
    temporal: Literal["1d", "maxpool", "avgpool"]
    time_kernel: int
    time_stride: int
    filters: int
    expand: int
    repeats: int
    squeeze: float
    gate: int
    skip: int
    inverted: int = 0
    spatial_act: Act = "relu"
    temporal_act: Act = "relu"
    act: Act = "relu"
    """Activation of the output."""

    @property
    def wide(self) -> int:
        """Channels after the expansion."""
        return self.filters * self.expand

    @property
    def excite(self) -> int:
        """Hidden channels of the squeeze-excite."""
        return max(int(self.wide * self.squeeze), 8)


@dataclass(frozen=True)
class Architecture:
    """One network.

    Attributes:
        name: Last part of the registry name.
        frames: Frames of one call.
        resolution: Height and width in pixels.
        frame_stride: Video frames from one frame of the call to the next.
        blocks: From the input on.
    """

    name: str
    frames: int
    resolution: int
    frame_stride: int
    blocks: tuple[Block, ...]


# Columns: spatial sk ss, temporal tk ts, filters, expand, repeats, squeeze-excite, gate, skip[, inverted, activations].
ARCHITECTURES = (
    Architecture(
        "1",
        frames=2,
        resolution=224,
        frame_stride=4,
        blocks=(
            Block("std", 4, 2, "maxpool", 2, 2, 64, 4, 2, 0, 1, 0),
            Block("maxpool", 3, 2, "1d", 1, 1, 128, 4, 1, 0.9067600752736579, 0, 0),
            Block("depth", 5, 3, "avgpool", 1, 1, 128, 4, 2, 0, 1, 1),
            Block("std", 3, 2, "avgpool", 1, 1, 256, 8, 2, 0.7265534208526172, 1, 0),
        ),
    ),
    Architecture(
        "2",
        frames=2,
        resolution=256,
        frame_stride=7,
        blocks=(
            Block("depth", 5, 3, "1d", 2, 1, 64, 4, 3, 0.06667482492426025, 1, 1),
            Block("std", 4, 2, "maxpool", 2, 2, 128, 4, 5, 0.693452618624749, 1, 1),
            Block("depth", 4, 1, "1d", 1, 1, 1024, 1, 6, 0, 0, 0),
            Block("avgpool", 3, 2, "1d", 1, 1, 256, 4, 1, 0, 1, 0),
            Block("avgpool", 4, 3, "1d", 1, 1, 512, 4, 6, 0.9472192794783585, 0, 0),
            Block("depth", 3, 3, "maxpool", 1, 1, 512, 4, 4, 0, 0, 0),
            Block("maxpool", 2, 1, "maxpool", 1, 1, 348, 6, 1, 0, 1, 0),
        ),
    ),
    Architecture(
        "3",
        frames=8,
        resolution=160,
        frame_stride=2,
        blocks=(
            Block("depth", 3, 2, "1d", 5, 2, 64, 3, 2, 0.6457257964198263, 1, 0),
            Block("depth", 3, 2, "1d", 1, 1, 256, 5, 4, 0.9061418818635367, 0, 1),
            Block("depth", 5, 4, "maxpool", 3, 2, 256, 2, 4, 0, 0, 1),
            Block("std", 3, 2, "maxpool", 3, 3, 512, 5, 4, 0, 1, 0),
        ),
    ),
    Architecture(
        "4",
        frames=8,
        resolution=128,
        frame_stride=4,
        blocks=(
            Block("std", 5, 2, "1d", 3, 2, 64, 4, 5, 0.4775900391242449, 0, 1),
            Block("depth", 5, 2, "maxpool", 2, 2, 256, 6, 4, 0, 1, 0),
            Block("depth", 5, 3, "1d", 1, 1, 256, 8, 4, 0.25309102981899967, 1, 0),
        ),
    ),
    Architecture(
        "m_1",
        frames=2,
        resolution=224,
        frame_stride=1,
        blocks=(
            Block("depth", 5, 4, "1d", 2, 1, 32, 3, 4, 0.004598785768716973, 0, 0),
            Block("depth", 5, 4, "maxpool", 2, 1, 128, 6, 4, 0.8589741047143076, 0, 0, 1, "hard_swish", "hard_swish"),
        ),
    ),
    Architecture(
        "m_2",
        frames=2,
        resolution=224,
        frame_stride=1,
        blocks=(
            Block("depth", 5, 4, "1d", 2, 1, 32, 3, 4, 0.004598785768716973, 0, 0, 0, "hard_swish"),
            Block("depth", 5, 4, "maxpool", 2, 1, 128, 6, 3, 0.8589741047143076, 0, 0, 1, "hard_swish", "hard_swish"),
        ),
    ),
)


@dataclass(frozen=True)
class _Row:
    """Counts with 339 classes, and the paper's figures."""

    parameters: int
    reported_parameters: float
    gflops: float
    top1: float


_ROWS = {
    "1": _Row(26_414_721, 11.1e6, 13.0, 23.1),
    "2": _Row(109_438_487, 110e6, 17.0, 24.2),
    "3": _Row(67_709_221, 69.4e6, 69.0, 25.4),
    "4": _Row(43_669_005, 44.2e6, 106.0, 27.8),
    "m_1": _Row(7_352_607, 5.6e6, 10.0, 21.95),
    "m_2": _Row(5_528_460, 5.4e6, 10.1, 21.96),
}
_NOTE = (
    "The paper prints {gflops:g} GFLOPs, here taken as two per multiply-add, which fits TVN-M-2 to 1 % and other models "
    "not; the published structures are not exactly the measured models."
)


def _entry(architecture: Architecture) -> ModelEntry:
    row, title = _ROWS[architecture.name], architecture.name.replace("_", "-").upper()
    return ModelEntry(
        name=f"tvn_{architecture.name}",
        family="tvn",
        description=f"Tiny Video Network TVN-{title}, clips of {architecture.frames} frames",
        factory=FACTORY,
        arguments={"architecture": architecture.name},
        stream=False,
        resolution=architecture.resolution,
        # Neither a crop nor the range of the input is published: the whole height, and RGB in 0..1.
        resize_short_side=architecture.resolution,
        frames=architecture.frames,
        frame_rate=VIDEO_RATE / architecture.frame_stride,
        parameters=row.parameters,
        num_classes=CLASSES,
        labels=None,
        rule=InputRule(resolution_min=32),
        builds_for_frames=True,
        settles=True,
        reported=Reported(
            source="Tiny Video Networks (arXiv 1910.06961); parameters of TVN-2 to 4: MoViNets (arXiv 2103.11511)",
            parameters=row.reported_parameters,
            macs=row.gflops * 1e9 / 2,
            accuracy=f"{row.top1:g} % top-1, Moments in Time",
            note=_NOTE.format(gflops=row.gflops),
        ),
    )


ENTRIES = tuple(_entry(architecture) for architecture in ARCHITECTURES)
