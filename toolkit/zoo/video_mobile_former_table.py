"""Video Mobile-Former by name: table 1 of the paper (Wang et al. 2022, arXiv 2208.12257) and its registry entries.

No code and no weights are public. The paper leaves widths, some layers and the counting of operations open; what is
chosen here was fitted to its printed numbers of 560M, 1G and 5G, and its series over depth and tokens then agree
unfitted. Parameters are exact for 400 classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from mvtool.zoo.entry import InputRule, ModelEntry, Reported

FACTORY = "mvtool.zoo.video_mobile_former:build"
SOURCE = "Video Mobile-Former (arXiv 2208.12257), tables 1 and 2"
CLIP_SECONDS = 10.0
"""One clip of `FRAMES` frames covers a whole video of Kinetics."""
FRAMES = 64
MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: Last part of the registry name.
        blocks: Blocks per stage; stage i is `width` * 2^i wide and halves height and width.
        width: Channels of the stem and the first stage.
        expansion: Channels inside a block over those of its output. The paper prints 2.25 for 2G too, with which
            neither its operations nor its parameters come out; with 3 both do to 4 %.
        resolution: Height and width in pixels.
        time_stride: Temporal stride of the stem.
        tokens: Global tokens; 0 for Mobile3D, the same network without them.
    """

    name: str
    blocks: tuple[int, ...]
    width: int
    expansion: float
    resolution: int
    time_stride: int
    tokens: int = 6


VARIANTS = (
    Variant("560m", (1, 2, 3, 2), 16, 2.25, 172, 8),
    Variant("1g", (1, 2, 3, 2), 16, 2.25, 224, 4),
    Variant("2g", (1, 2, 4, 2), 20, 3.0, 224, 4),
    Variant("5g", (1, 2, 12, 4), 24, 3.0, 224, 4),
)


@dataclass(frozen=True)
class _Row:
    """Exact counts, and the paper's figures: operations as printed, accuracy on Kinetics-400 with one clip.

    The paper's operations are multiply-adds, two per value of a batch norm and one per value of a pool.
    """

    parameters: int
    baseline_parameters: int
    paper_parameters: float
    operations: float
    baseline_operations: float | None
    top1: float
    top5: float


_ROWS = {
    "560m": _Row(4_702_918, 2_575_916, 4.7e6, 0.56e9, None, 62.6, 83.7),
    "1g": _Row(4_702_918, 2_575_916, 4.7e6, 1.43e9, 1.26e9, 67.4, 87.4),
    "2g": _Row(6_643_626, 3_275_860, 6.9e6, 2.61e9, 2.33e9, 71.1, 89.3),
    "5g": _Row(13_682_572, 4_910_920, 13.8e6, 5.61e9, 5.21e9, 72.9, 90.0),
}
_COUNTING = "The printed operations contain two per value of a batch norm and one per value of a pool, about 5 %."
_FITTED = (
    " The paper leaves widths, head and the dynamic ReLU's layers open; they were chosen so that its numbers come out."
)
_EXPANSION = " An expansion of 3 in place of the printed 2.25, with which the printed numbers do not come out."


def _entry(variant: Variant, baseline: bool) -> ModelEntry:
    row = _ROWS[variant.name]
    note = (
        (_COUNTING if row.baseline_operations or not baseline else "")
        + _FITTED
        + (_EXPANSION if variant.name == "2g" else "")
    )
    printed = Reported(
        source=SOURCE,
        parameters=None if baseline else row.paper_parameters,
        macs=row.baseline_operations if baseline else row.operations,
        accuracy="" if baseline else f"{row.top1} % top-1, {row.top5} % top-5, Kinetics-400, one clip of 64 frames",
        note=note.strip(),
    )
    title = f"{'Mobile3D' if baseline else 'Video Mobile-Former'}-{variant.name.upper()}"
    return ModelEntry(
        name=f"{'mobile3d' if baseline else 'video_mobile_former'}_{variant.name}",
        family="video_mobile_former",
        description=f"{title}, the same without tokens" if baseline else f"{title}, convolutions and 6 global tokens",
        factory=FACTORY,
        arguments={"variant": variant.name, **({"tokens": 0} if baseline else {})},
        stream=False,
        resolution=variant.resolution,
        # The size before the crop is not published; the ratio is the usual 256 to 224.
        resize_short_side=round(variant.resolution * 256 / 224),
        frames=FRAMES,
        frame_rate=FRAMES / CLIP_SECONDS,
        parameters=row.baseline_parameters if baseline else row.parameters,
        num_classes=400,
        mean=MEAN,
        std=STD,
        labels="kinetics400",
        rule=InputRule(resolution_min=32, frames_min=variant.time_stride, frames_step=variant.time_stride),
        reported=printed,
        damps=variant.name == "5g" and not baseline,
    )


ENTRIES = tuple(_entry(variant, baseline) for baseline in (False, True) for variant in VARIANTS)
