"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), table 2, at width 1; in the zoo with temporal shifts only."""

from __future__ import annotations

from collections.abc import Iterator

from mvtool.zoo.mobilenet_config import Architecture, Row

STEM = 32
_STAGES = (
    # expansion factor t, output channels c, repeats n, stride s of the first
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _rows() -> Iterator[Row]:
    channels = STEM
    for factor, out, repeats, stride in _STAGES:
        for repeat in range(repeats):
            yield Row(3, factor * channels, out, False, "relu6", stride if repeat == 0 else 1)
            channels = out


V2 = Architecture(
    title="MobileNetV2",
    stem=STEM,
    rows=tuple(_rows()),
    last=1280,
    hidden=None,
    activation="relu6",
    # Training commands of the TSM repository.
    dropout=0.5,
    eps=1e-5,
    momentum=0.1,
)
