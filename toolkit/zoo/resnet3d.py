"""ResNet3D-50 with self-gating: a clip model, and a causal stream of four frames a step.

    stem 5x7x7 stride 2 - maximum pool 3x3x3 stride 2 - bottlenecks - mean over time and space - dense

Input (N, 3, T, H, W), float32 RGB in 0..1; output logits (N, classes).

A stream returns after every call the logits of the whole video so far. Stem and pool stride over time by two each, so a call
takes any multiple of four frames and each four frames become one frame of the blocks. The temporal kernels see the past only:

    stem     frame j reads video frames 2 j - 3 to 2 j + 1, so it ends with the second of its pair: buffer of 3 frames
    pool     frame j reads stem frames 2 j - 1 to 2 j + 1: buffer of 1 frame
    blocks   kernels of 3, stride 1: buffer of 2 frames of the convolution's input

So after a step the logits depend on all of its four frames, the newest included. Before the first frame of a video every buffer
holds zeros, as if each layer were padded with zeros in front: the first step sees its four frames and nothing before them.
Self-gating and the head take the mean over everything seen instead of the mean over the clip. Weights are the same for both forms,
but a network trained on clips looks ahead there and has to be tuned before it works as a stream.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mvtool.errors import SourceError, UsageError
from mvtool.streaming import Clock, CumulativeMean, FrameClock, StreamConv3d, StreamMaxPool3d
from mvtool.zoo.resnet3d_layers import Bottleneck, ConvNorm, Place, SelfGating, Size
from mvtool.zoo.resnet3d_table import EXPANSION, STAGES, STEM, Stage, Stem
from mvtool.zoo.video_shape import RGB, check_video

TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a unit normal cut at two standard deviations, which Keras' VarianceScaling divides by."""
GATING_STD = 0.01
"""Truncated normal of the self-gating kernel at the start of training (Model Garden)."""
DENSE_RANGE = 0.05
"""Of the uniform dense kernel at the start of training (Keras `random_uniform`, used by the Model Garden)."""


@dataclass(frozen=True)
class ResNet3DConfig:
    """Everything that determines a ResNet3D module.

    Attributes:
        causal: Keep stream state; else look at a whole clip.
        gating: Self-gating in the last block of each stage.
        num_classes: Width of the logits.
        resolution: Height and width of the input.
        batch_size: N of the stream state.
        dropout: Rate before the dense layer in training (Model Garden training files).
        stem: First convolution and pool.
        stages: The bottlenecks.
    """

    causal: bool = False
    gating: bool = True
    num_classes: int = 600
    resolution: Size = (224, 224)
    batch_size: int = 1
    dropout: float = 0.2
    stem: Stem = STEM
    stages: tuple[Stage, ...] = STAGES


class Head(nn.Module):
    """Mean over everything seen, dropout in training, dense layer.

    Args:
        channels: C.
        config: Configuration of the model.
    """

    def __init__(self, channels: int, config: ResNet3DConfig) -> None:
        super().__init__()
        self.pool = CumulativeMean(config.batch_size, channels) if config.causal else None
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(channels, config.num_classes)

    def forward(self, x: Tensor, clock: Clock | None) -> Tensor:
        """Logits (N, classes) from features (N, C, T, H, W)."""
        if self.pool is None or clock is None:
            pooled = x.mean((2, 3, 4))
        else:
            pooled = self.pool(x.mean((3, 4), keepdim=True), clock)[:, :, -1:].flatten(1)
        if self.training:
            pooled = self.dropout(pooled)
        logits: Tensor = self.classifier(pooled)
        return logits


class ResNet3D(nn.Module):
    """One ResNet3D; the blocks are children named `stage{i}_block{j}`.

    Args:
        config: Configuration; kept as `config`.
    """

    def __init__(self, config: ResNet3DConfig) -> None:
        super().__init__()
        self.config = config
        stem = config.stem
        self.step = stem.frames_per_output
        self.clock = FrameClock(self.step) if config.causal else None
        place = Place(config.causal, config.batch_size, config.resolution, 1)
        kernel = (stem.time, stem.space, stem.space)
        self.stem = ConvNorm(RGB, stem.width, kernel, place, stride=stem.stride, time_stride=stem.stride)
        place = place.behind(stem.stride, stem.stride)
        shape = (config.batch_size, stem.width, *place.size)
        self.pool = StreamMaxPool3d(
            stem.pool, stem.pool_stride, causal=config.causal, input_shape=shape, span=place.span
        )
        self.block_names: list[str] = []
        channels = self._add_blocks(place.behind(stem.pool_stride, stem.pool_stride))
        self.head = Head(channels, config)
        self._initialise()

    def forward(self, video: Tensor) -> Tensor:
        """Classify the next frames of the stream, or a clip.

        Args:
            video: (N, 3, T, H, W), float32 in 0..1; for a stream T is a multiple of `step`, 4 as published.

        Returns:
            Logits (N, classes).

        Raises:
            UsageError: The shape does not fit the configuration.
        """
        self._check(video)
        x = self.pool(self.stem(video))
        clock: Clock | None = self.clock(x.shape[2]) if self.clock is not None else None
        for block in self.blocks():
            x = block(x, clock)
        logits: Tensor = self.head(x, clock)
        return logits

    def blocks(self) -> list[Bottleneck]:
        """The bottlenecks in order."""
        return [self.get_submodule(name) for name in self.block_names]  # type: ignore[misc]

    def _add_blocks(self, place: Place) -> int:
        """Make all stages; returns the channels behind the last."""
        channels = self.config.stem.width
        for i, stage in enumerate(self.config.stages):
            for j, time in enumerate(stage.time):
                stride = stage.stride if j == 0 else 1
                gating = self.config.gating and j == len(stage.time) - 1
                name = f"stage{i}_block{j}"
                self.add_module(name, Bottleneck(channels, stage.width, time, stride, place, gating=gating))
                self.block_names.append(name)
                channels, place = EXPANSION * stage.width, place.behind(stride)
        return channels

    def _check(self, video: Tensor) -> None:
        stream = self.clock is not None
        check_video(
            "ResNet3D",
            tuple(video.shape),
            batch=self.config.batch_size if stream else None,
            size=self.config.resolution,
            remedy="Build it with another `resolution` or `batch_size`, or resize the video",
        )
        if stream and video.shape[2] % self.step:
            raise UsageError(
                f"A ResNet3D stream got {video.shape[2]} frames, expected a multiple of {self.step}: one step takes "
                f"{self.step} frames. Give whole steps."
            )

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, StreamConv3d):
                _truncated_normal(module.weight, module.weight[0].numel() ** -0.5 / TRUNCATED_STD)
            elif isinstance(module, SelfGating):
                _truncated_normal(module.transform.weight, GATING_STD)
                nn.init.zeros_(module.transform.bias)  # type: ignore[arg-type]
        nn.init.uniform_(self.head.classifier.weight, -DENSE_RANGE, DENSE_RANGE)
        nn.init.zeros_(self.head.classifier.bias)


def _truncated_normal(weight: Tensor, std: float) -> None:
    nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std)


def build(
    *,
    kind: str,
    num_classes: int = 600,
    resolution: int | Size,
    batch_size: int = 1,
    gating: bool = True,
) -> ResNet3D:
    """Build ResNet3D-50 in evaluation mode, with fresh weights and empty state.

    Args:
        kind: `clip` or `stream`.
        num_classes: Width of the logits.
        resolution: Height and width, or one number for both.
        batch_size: N of the stream state.
        gating: With self-gating; without it the model has 28,453,272 parameters for 600 classes.

    Raises:
        SourceError: There is no such kind.
    """
    if kind not in ("clip", "stream"):
        raise SourceError(f"There is no ResNet3D of kind {kind!r}; kinds are clip, stream.")
    size = (resolution, resolution) if isinstance(resolution, int) else (resolution[0], resolution[1])
    return ResNet3D(ResNet3DConfig(kind == "stream", gating, num_classes, size, batch_size)).eval()
