"""Registry entries of the MoViNet family.

Resolutions, clip lengths and frame rates: training configurations of the TensorFlow Model Garden and table 1 of the
paper; evaluation uses the training resolution. T0 has no paper row and takes A0's input. Parameters are exact for
600 classes and count the weights only, not the batch statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mvtool.zoo.entry import InputRule, ModelEntry

FACTORY = "mvtool.zoo.movinet_build:build"
ENSEMBLE_FACTORY = "mvtool.zoo.movinet_ensemble:build_temporal"
A6_FACTORY = "mvtool.zoo.movinet_ensemble:build_a6"


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


_ROWS = (
    _Row("t0", 172, 192, 50, 5.0, 1_727_414, 2_368_958),
    _Row("a0", 172, 192, 50, 5.0, 3_111_799, 3_748_031),
    _Row("a1", 172, 192, 50, 5.0, 4_690_296, 6_447_352),
    _Row("a2", 224, 256, 50, 5.0, 5_249_562, 7_326_962),
    _Row("a3", 256, 288, 120, 12.0, 7_397_545, 10_986_618),
    _Row("a4", 290, 320, 80, 8.0, 11_349_463, 18_136_182),
    _Row("a5", 320, 368, 120, 12.0, 18_650_523, 31_495_934),
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
    )


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


def _entries() -> Iterator[ModelEntry]:
    for kind, text in _KINDS:
        for row in _ROWS:
            yield _single(row, kind, text)
    for kind in ("base", "stream"):
        yield _a6(kind)
        for row in _ROWS:
            if row.name != "t0":
                yield _temporal(row, kind)


ENTRIES = tuple(_entries())
