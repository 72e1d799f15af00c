"""MobileNetV3 (Howard et al. 2019, arXiv 1905.02244): the tables, and the models that classify frame by frame.

Rows as in tables 1 and 2 of the paper; batch norm constants and dropout as in torchvision, whose weights load. The MoViNet
paper uses both networks as baselines on Kinetics-600: every frame by itself, logits averaged over 50 frames.
"""

from __future__ import annotations

from dataclasses import dataclass

from mvtool.zoo.entry import ModelEntry, Reported
from mvtool.zoo.mobilenet_config import Architecture, Row

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PAPER = "MoViNet (arXiv 2103.11511), MobileNetV3 on Kinetics-600"
PAPER_FRAMES = 50
"""Frames of a video that the MoViNet paper averages over, at 5 per second."""
_SE, _NO = True, False
_R, _H = "relu", "hard_swish"

LARGE = Architecture(
    title="MobileNetV3-Large",
    stem=16,
    rows=(
        Row(3, 16, 16, _NO, _R, 1),
        Row(3, 64, 24, _NO, _R, 2),
        Row(3, 72, 24, _NO, _R, 1),
        Row(5, 72, 40, _SE, _R, 2),
        Row(5, 120, 40, _SE, _R, 1),
        Row(5, 120, 40, _SE, _R, 1),
        Row(3, 240, 80, _NO, _H, 2),
        Row(3, 200, 80, _NO, _H, 1),
        Row(3, 184, 80, _NO, _H, 1),
        Row(3, 184, 80, _NO, _H, 1),
        Row(3, 480, 112, _SE, _H, 1),
        Row(3, 672, 112, _SE, _H, 1),
        Row(5, 672, 160, _SE, _H, 2),
        Row(5, 960, 160, _SE, _H, 1),
        Row(5, 960, 160, _SE, _H, 1),
    ),
    last=960,
    hidden=1280,
    activation=_H,
    dropout=0.2,
    eps=1e-3,
    momentum=0.01,
)
SMALL = Architecture(
    title="MobileNetV3-Small",
    stem=16,
    rows=(
        Row(3, 16, 16, _SE, _R, 2),
        Row(3, 72, 24, _NO, _R, 2),
        Row(3, 88, 24, _NO, _R, 1),
        Row(5, 96, 40, _SE, _H, 2),
        Row(5, 240, 40, _SE, _H, 1),
        Row(5, 240, 40, _SE, _H, 1),
        Row(5, 120, 48, _SE, _H, 1),
        Row(5, 144, 48, _SE, _H, 1),
        Row(5, 288, 96, _SE, _H, 2),
        Row(5, 576, 96, _SE, _H, 1),
        Row(5, 576, 96, _SE, _H, 1),
    ),
    last=576,
    hidden=1024,
    activation=_H,
    dropout=0.2,
    eps=1e-3,
    momentum=0.01,
)
ARCHITECTURES = {"small": SMALL, "large": LARGE}


@dataclass(frozen=True)
class Size:
    """Counts of one size.

    Attributes:
        name: Key of `ARCHITECTURES`.
        parameters: Exact with 600 classes.
        printed_parameters: In the MoViNet paper.
        printed_macs: There, for 50 frames.
        accuracy: There, top-1 of Kinetics-600 in percent, every frame by itself.
        accuracy_tsm: There, with TSM.
    """

    name: str
    parameters: int
    printed_parameters: float
    printed_macs: float
    accuracy: float
    accuracy_tsm: float

    def reported(self, accuracy: float) -> Reported:
        """The paper's figures with this accuracy."""
        return Reported(
            source=PAPER,
            parameters=self.printed_parameters,
            macs=self.printed_macs / PAPER_FRAMES,
            accuracy=f"{accuracy} % top-1, Kinetics-600, logits averaged over {PAPER_FRAMES} frames",
            note=(
                f"The paper prints {self.printed_macs / 1e9:g} G for {PAPER_FRAMES} frames, one of which is a call here, "
                "and the parameters of the ImageNet model with 1000 classes."
            ),
        )


SIZES = (
    Size("small", 2_132_856, 2.5e6, 2.80e9, 61.3, 65.5),
    Size("large", 4_970_632, 5.4e6, 11.0e9, 68.1, 71.4),
)


def _entry(size: Size) -> ModelEntry:
    return ModelEntry(
        name=f"mobilenet_v3_{size.name}",
        family="mobilenet_v3",
        description=f"{ARCHITECTURES[size.name].title}, every frame by itself, logits averaged",
        factory="mvtool.zoo.mobilenet:build",
        arguments={"architecture": size.name},
        stream=False,
        resolution=224,
        resize_short_side=256,
        frames=1,
        frame_rate=5.0,
        parameters=size.parameters,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        settles=True,
        reported=size.reported(size.accuracy),
    )


ENTRIES = tuple(_entry(size) for size in SIZES)
