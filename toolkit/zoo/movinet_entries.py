"""Registry entries of the MoViNet family.

Resolutions, clip lengths and frame rates: training configurations of the TensorFlow Model Garden and table 1 of the
paper; evaluation uses the training resolution. T0 has no paper row and takes A0's input; nano is ours. Parameters are exact for
600 classes and count the weights only, not the batch statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mvtool.zoo.entry import InputRule, ModelEntry, Reported

FACTORY = "mvtool.zoo.movinet_build:build"
ENSEMBLE_FACTORY = "mvtool.zoo.movinet_ensemble:build_temporal"
A6_FACTORY = "mvtool.zoo.movinet_ensemble:build_a6"


SOURCE = "MoViNets (arXiv 2103.11511); streams: top-1 of the released weights (TensorFlow Model Garden)"
OTHER_WIDTHS = (
    "the paper's parameters of A2 to A5, and its A2, do not follow from the released architecture, which this is"
)


@dataclass(frozen=True)
class _Paper:
    """Printed figures: parameters in millions, multiply-adds of a clip in 1e9, top-1 in percent."""

    parameters: float
    base_macs: float
    stream_macs: float
    base_top1: float
    stream_3d_top1: float
    released_stream_top1: float


@dataclass(frozen=True)
class _Row:
    """One architecture: input and number of parameters per kind."""

    name: str
    resolution: int
    resize: int
    frames: int
    frame_rate: float
    base: int
    stream: int
    paper: _Paper | None = None


_ROWS = (
    _Row("nano", 64, 64, 16, 25.0, 391_824, 489_856),
    _Row("t0", 172, 192, 50, 5.0, 1_727_414, 2_368_958),
    _Row("a0", 172, 192, 50, 5.0, 3_111_799, 3_748_031, _Paper(3.1, 2.71, 2.73, 71.5, 70.3, 72.05)),
    _Row("a1", 172, 192, 50, 5.0, 4_690_296, 6_447_352, _Paper(4.6, 6.02, 6.06, 76.0, 75.6, 76.45)),
    _Row("a2", 224, 256, 50, 5.0, 5_249_562, 7_326_962, _Paper(4.8, 10.3, 10.4, 77.5, 76.5, 78.4)),
    _Row("a3", 256, 288, 120, 12.0, 7_397_545, 10_986_618, _Paper(5.3, 56.9, 57.1, 80.8, 79.6, 80.09)),
    _Row("a4", 290, 320, 80, 8.0, 11_349_463, 18_136_182, _Paper(4.9, 105, 106, 81.2, 80.5, 81.49)),
    _Row("a5", 320, 368, 120, 12.0, 18_650_523, 31_495_934, _Paper(15.7, 281, 282, 82.7, 82.0, 82.37)),
)
_KINDS = (
    ("base", "whole clips, 3D convolutions"),
    ("stream", "frame by frame, (2+1)D convolutions"),
    ("stream_3d", "frame by frame, causal 3D convolutions (older checkpoints)"),
)


def _single(row: _Row, kind: str, text: str) -> ModelEntry:
    return ModelEntry(
        name=f"movinet_{row.name}_{kind}",
        family="movinet",
        description=f"MoViNet-{row.name.upper()}, {text}",
        factory=FACTORY,
        arguments={"architecture": row.name, "kind": kind},
        stream=kind != "base",
        resolution=row.resolution,
        resize_short_side=row.resize,
        frames=row.frames,
        frame_rate=row.frame_rate,
        # The older streams have the layers of the base model, only shifted in time.
        parameters=row.stream if kind == "stream" else row.base,
        reported=None if row.paper is None else _reported(row, row.paper, kind),
    )


def _reported(row: _Row, paper: _Paper, kind: str) -> Reported:
    note = OTHER_WIDTHS if row.name in ("a2", "a3", "a4", "a5") else ""
    if kind == "stream":
        # The paper's streams are causal 3D; the (2+1)D ones were released later.
        return Reported(SOURCE, accuracy=f"{paper.released_stream_top1} % top-1, Kinetics-600, released weights")
    macs = paper.base_macs if kind == "base" else paper.stream_macs / row.frames
    top1 = paper.base_top1 if kind == "base" else paper.stream_3d_top1
    return Reported(SOURCE, paper.parameters * 1e6, macs * 1e9, f"{top1} % top-1, Kinetics-600", note)


def _temporal(row: _Row, kind: str) -> ModelEntry:
    return ModelEntry(
        name=f"movinet_{row.name}_{kind}_ensemble",
        family="movinet",
        description=f"Two MoViNet-{row.name.upper()} {kind}s on alternate frames, logits averaged",
        factory=ENSEMBLE_FACTORY,
        arguments={"architecture": row.name, "kind": kind},
        stream=kind == "stream",
        resolution=row.resolution,
        resize_short_side=row.resize,
        frames=row.frames,
        frame_rate=row.frame_rate,
        frames_per_step=2,
        rule=InputRule(frames_min=2, frames_step=2),
        parameters=2 * (row.stream if kind == "stream" else row.base),
    )


def _a6(kind: str) -> ModelEntry:
    rows = [row for row in _ROWS if row.name in ("a4", "a5")]
    return ModelEntry(
        name=f"movinet_a6_{kind}",
        family="movinet",
        description=f"MoViNet-A4 and A5 {kind}s, logits averaged",
        factory=A6_FACTORY,
        arguments={"kind": kind},
        stream=kind == "stream",
        resolution=320,
        resize_short_side=368,
        frames=120,
        frame_rate=12.0,
        frames_per_step=3,
        rule=InputRule(frames_min=3, frames_step=3),
        parameters=sum(row.stream if kind == "stream" else row.base for row in rows),
    )


def _motion() -> ModelEntry:
    """The one model that comes with trained weights: it names what an object does in generated clips."""
    return ModelEntry(
        name="movinet_nano_motion",
        family="movinet",
        description="MoViNet-NANO stream, trained on generated motions of 12 kinds; weights included",
        factory=FACTORY,
        arguments={"architecture": "nano", "kind": "stream"},
        stream=True,
        resolution=64,
        resize_short_side=64,
        frames=16,
        frame_rate=25.0,
        num_classes=12,
        parameters=338_740,
        labels="motion",
        weights="movinet_nano_motion.safetensors",
        calibration="motion:split=train,frames=64,clips=24",
    )


def _entries() -> Iterator[ModelEntry]:
    for kind, text in _KINDS:
        for row in _ROWS:
            yield _single(row, kind, text)
    yield _motion()
    for kind in ("base", "stream"):
        yield _a6(kind)
        for row in _ROWS:
            if row.name not in ("nano", "t0"):
                yield _temporal(row, kind)


ENTRIES = tuple(_entries())
