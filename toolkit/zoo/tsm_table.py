"""Registry entries of TSM.

Inputs: the published clips of Kinetics-400 are dense, 8 frames out of 64 consecutive ones (`ops/dataset.py` of the
repository), which at 30 frames per second are 3.75; the online demo takes every other picture of a camera and was trained on
Jester's 27 gestures. The MobileNetV3 streams are the MoViNet paper's baseline on Kinetics-600 at 5 frames per second; the
MobileNetV3 clips are the same networks in TSM's clip form, published nowhere. Parameters are exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from mvtool.zoo.entry import InputRule, ModelEntry, Reported
from mvtool.zoo.mobilenet_v3_table import IMAGENET_MEAN, IMAGENET_STD, PAPER_FRAMES, SIZES

CLIP_FRAMES = 8
KINETICS_RATE = 3.75
CAMERA_RATE = 15.0
_CLIPS = "Kinetics-400, 10 clips of 8 frames, full resolution"


@dataclass(frozen=True)
class _Row:
    """One network: what its clip and its stream are for."""

    network: str
    title: str
    classes: int
    labels: str | None
    frame_rate: float
    parameters: int
    reported: Reported | None


def _published(parameters: float | None, accuracy: float) -> Reported:
    return Reported(
        "TSM repository, Kinetics-400 with dense sampling", parameters, accuracy=f"{accuracy} % top-1, {_CLIPS}"
    )


_CLIP_ROWS = (
    _Row("resnet50", "ResNet-50", 400, "kinetics400", KINETICS_RATE, 24_327_632, _published(None, 74.1)),
    _Row("mobilenet_v2", "MobileNetV2", 400, "kinetics400", KINETICS_RATE, 2_736_272, _published(None, 69.5)),
    _Row("mobilenet_v3_small", "MobileNetV3-Small", 600, "kinetics600", 5.0, 2_132_856, None),
    _Row("mobilenet_v3_large", "MobileNetV3-Large", 600, "kinetics600", 5.0, 4_970_632, None),
)
_STREAM_ROWS = (
    _Row("resnet50", "ResNet-50", 400, "kinetics400", KINETICS_RATE, 24_327_632, None),
    _Row("mobilenet_v2", "MobileNetV2", 27, None, CAMERA_RATE, 2_258_459, None),
    *(replace(row, reported=size.reported(size.accuracy_tsm)) for row, size in zip(_CLIP_ROWS[2:], SIZES, strict=True)),
)


def _entry(row: _Row, stream: bool) -> ModelEntry:
    form = "frame by frame" if stream else f"clips of {CLIP_FRAMES} frames"
    return ModelEntry(
        name=f"tsm_{row.network}_stream" if stream else f"tsm_{row.network}",
        family="tsm",
        description=f"{row.title} with {'one' if stream else 'two'}-sided temporal shifts, {form}",
        factory=f"mvtool.zoo.tsm:build_{'stream' if stream else 'clip'}",
        arguments={"network": row.network},
        stream=stream,
        resolution=224,
        resize_short_side=256,
        frames=PAPER_FRAMES if stream else CLIP_FRAMES,
        frame_rate=row.frame_rate,
        parameters=row.parameters,
        num_classes=row.classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        labels=row.labels,
        # The two-sided shift needs a neighbour.
        rule=InputRule() if stream else InputRule(frames_min=2),
        builds_for_frames=not stream,
        settles=row.network.startswith("mobilenet_v3"),
        reported=row.reported,
    )


def _entries() -> Iterator[ModelEntry]:
    for row in _STREAM_ROWS:
        yield _entry(row, stream=True)
    for row in _CLIP_ROWS:
        yield _entry(row, stream=False)


ENTRIES = tuple(_entries())
