"""ResNet3D-50, the baseline of the MoViNet paper (arXiv 2103.11511, its table of base against stream), as a clip model and as a stream.

Blocks, kernels and strides are those of `resnet_3d` in the TensorFlow Model Garden with the temporal kernels of its Kinetics
training files; with 600 classes and 250 frames they give the paper's 34.0 M parameters and 390 G multiply-adds.

The paper classifies 250 frames of 224 pixels at 25 frames per second in one call. The clip model here is listed with 16
frames: 250 take 390 G multiply-adds and 0.4 GB for the output of the stem alone. Any other number of frames can be chosen when the
model is built. The stream keeps to the paper's frame rate and takes four frames a step.
"""

from __future__ import annotations

from dataclasses import dataclass

from mvtool.zoo.entry import InputRule, ModelEntry, Reported

FACTORY = "mvtool.zoo.resnet3d:build"
SOURCE = "MoViNet (arXiv 2103.11511), base against stream"


@dataclass(frozen=True)
class Stage:
    """Bottlenecks of one width.

    Attributes:
        width: Channels inside the bottleneck; its output has `EXPANSION` times as many.
        time: Temporal size of the first kernel of each block.
        stride: Spatial stride of the first block.
    """

    width: int
    time: tuple[int, ...]
    stride: int


@dataclass(frozen=True)
class Stem:
    """First convolution and maximum pool.

    Attributes:
        width: Channels.
        time: Frames of the kernel.
        space: Height and width of the kernel.
        stride: In all three axes.
        pool: Edge of the pooling cube.
        pool_stride: In all three axes.
    """

    width: int = 64
    time: int = 5
    space: int = 7
    stride: int = 2
    pool: int = 3
    pool_stride: int = 2

    @property
    def frames_per_output(self) -> int:
        """Video frames for one frame behind the stem."""
        return self.stride * self.pool_stride


EXPANSION = 4
STEM = Stem()
STAGES = (
    Stage(64, (3, 3, 3), 1),
    Stage(128, (3, 1, 3, 1), 2),
    Stage(256, (3, 1, 3, 1, 3, 1), 2),
    Stage(512, (1, 3, 1), 2),
)
STEP = STEM.frames_per_output


def _entry(kind: str, text: str, frames: int, rule: InputRule, reported: Reported) -> ModelEntry:
    stream = kind == "stream"
    return ModelEntry(
        name="resnet3d_50_stream" if stream else "resnet3d_50",
        family="resnet3d",
        description=f"ResNet3D-50 with self-gating, {text}",
        factory=FACTORY,
        arguments={"kind": kind},
        stream=stream,
        resolution=224,
        resize_short_side=256,
        frames=frames,
        frame_rate=25.0,
        frames_per_step=STEP if stream else 1,
        parameters=34_027_672,
        rule=rule,
        reported=reported,
    )


ENTRIES = (
    _entry(
        "clip",
        "whole clips",
        frames=16,
        rule=InputRule(),
        reported=Reported(
            SOURCE,
            parameters=34.0e6,
            accuracy="78.7 % top-1, Kinetics-600, one view of 250 frames at 25 frames per second",
            note="The paper prints 390 G multiply-adds for 250 frames; listed here are clips of 16.",
        ),
    ),
    _entry(
        "stream",
        "four frames a step",
        # As many whole steps as fit into the paper's 250 frames.
        frames=248,
        rule=InputRule(frames_min=STEP, frames_step=STEP),
        reported=Reported(
            SOURCE,
            parameters=34.0e6,
            macs=390e9 * STEP / 250,
            accuracy="76.9 % top-1, Kinetics-600, 250 frames at 25 frames per second",
            note="The multiply-adds are the printed 390 G of 250 frames over 62.5 steps. The paper does not say how its stream handled the "
            "temporal stride of 4; the alignment here is our own.",
        ),
    ),
)
