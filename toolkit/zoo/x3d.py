"""X3D (Feichtenhofer 2020, arXiv 2004.04730): expanded networks for clips.

    stem 1x3x3 stride 2, depthwise 5x1x1 - four stages of bottlenecks - 1x1x1 - mean - dense - ReLU - dense

Input (N, 3, T, H, W), float32 RGB, normalised; output logits (N, classes). Nothing is strided in time. The paper's
tables print a stem kernel of 3 frames; its numbers of multiply-adds and both released codes have 5.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvtool.errors import SourceError, UsageError
from mvtool.streaming import Activation, ExciteType, Gate, SqueezeExcite
from mvtool.zoo.conv_norm import ConvNorm
from mvtool.zoo.video_shape import RGB, check_video
from mvtool.zoo.x3d_config import HeadPool, Stage, X3DConfig, X3DGammas, expanded

STEM_FRAMES = 5
HEAD_WIDTH = 2048
EXCITE_EVERY = 2
"""Blocks 0, 2, 4, ... of each stage have a squeeze-excite."""
LAST_DENSE_STD = 0.01
"""Standard deviation of the last dense layer at the start of training (SlowFast)."""


class Stem(nn.Module):
    """Convolution in space, then in time, with neither norm nor activation between the two.

    Args:
        width: Output channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.space = nn.Conv3d(RGB, width, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)
        self.time = ConvNorm(width, width, (STEM_FRAMES, 1, 1), groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, T, H, W) to (N, C, T, ceil(H / 2), ceil(W / 2))."""
        return torch.relu(self.time(self.space(x)))


class Shortcut(nn.Module):
    """Strided 1x1x1 convolution, with or without batch norm.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        norm: Put a batch norm behind it.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 1, (1, 2, 2), bias=False)
        self.norm = nn.BatchNorm3d(out_channels) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) to (N, C', T, ceil(H / 2), ceil(W / 2))."""
        y: Tensor = self.norm(self.conv(x))
        return y


class Block(nn.Module):
    """Bottleneck: 1x1x1, ReLU, depthwise 3x3x3, squeeze-excite, swish, 1x1x1, sum with the shortcut, ReLU.

    Args:
        in_channels: Channels of the input.
        stage: Widths.
        index: Position in the stage; the first block has stride 2.
        shortcut_norm: Batch norm on the shortcut of a first block.
    """

    def __init__(self, in_channels: int, stage: Stage, index: int, *, shortcut_norm: bool) -> None:
        super().__init__()
        stride = (1, 2, 2) if index == 0 else (1, 1, 1)
        self.shortcut = Shortcut(in_channels, stage.width, norm=shortcut_norm) if index == 0 else nn.Identity()
        self.expand = ConvNorm(in_channels, stage.inner, (1, 1, 1))
        self.depthwise = ConvNorm(stage.inner, stage.inner, (3, 3, 3), stride=stride, groups=stage.inner)
        self.excite = _excite(stage) if index % EXCITE_EVERY == 0 else nn.Identity()
        self.project = ConvNorm(stage.inner, stage.width, (1, 1, 1))

    @property
    def branch_norm(self) -> nn.Module | None:
        """The norm whose result is added to the identity, None where a convolution stands in for it."""
        return self.project.norm if isinstance(self.shortcut, nn.Identity) else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) to (N, width, T, ceil(H / stride), ceil(W / stride))."""
        y = self.depthwise(torch.relu(self.expand(x)))
        y = self.project(functional.silu(self.excite(y)))
        return torch.relu(self.shortcut(x) + y)


def _excite(stage: Stage) -> SqueezeExcite:
    return SqueezeExcite(
        stage.inner, stage.hidden, ExciteType.SPACE_TIME, Activation.RELU, Gate.SIGMOID, batch=None, positional=False
    )


class Head(nn.Module):
    """1x1x1, ReLU, mean, two dense layers without a norm between.

    Args:
        config: Configuration of the model.
    """

    def __init__(self, config: X3DConfig) -> None:
        super().__init__()
        last = config.stages[-1]
        self.config = config
        self.project = ConvNorm(last.width, last.inner, (1, 1, 1))
        self.dense = nn.Linear(last.inner, HEAD_WIDTH, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(HEAD_WIDTH, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) from features (N, C, T, H, W)."""
        x = torch.relu(self.project(x))
        if self.config.head_pool is HeadPool.GLOBAL:
            return self._classify(x.mean((2, 3, 4)))
        positions = functional.avg_pool3d(x, self.config.pool_size, stride=1).flatten(2).transpose(1, 2)
        return self._classify(positions).mean(1)

    def _classify(self, pooled: Tensor) -> Tensor:
        """(..., C) to (..., classes)."""
        hidden = torch.relu(self.dense(pooled))
        if self.training:
            hidden = self.dropout(hidden)
        logits: Tensor = self.classifier(hidden)
        return logits


class X3D(nn.Module):
    """One X3D.

    Args:
        config: Configuration; kept as `config`.
    """

    def __init__(self, config: X3DConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(config.stem)
        widths = [config.stem, *(stage.width for stage in config.stages)]
        norms = [config.res2_shortcut_norm or a != b for a, b in pairwise(widths)]
        self.stages = nn.Sequential(*map(_blocks, widths, config.stages, norms))
        self.head = Head(config)
        self._initialise()

    def forward(self, video: Tensor) -> Tensor:
        """Classify clips.

        Args:
            video: (N, 3, T, H, W), float32, normalised.

        Returns:
            Logits (N, classes).

        Raises:
            UsageError: The shape is no clip, or smaller than the positions of the head.
        """
        self._check(tuple(video.shape))
        logits: Tensor = self.head(self.stages(self.stem(video)))
        return logits

    def _check(self, shape: tuple[int, ...]) -> None:
        check_video("X3D", shape)
        smallest = (self.config.frames, self.config.resolution, self.config.resolution)
        if self.config.head_pool is HeadPool.POSITIONS and any(a < b for a, b in zip(shape[2:], smallest, strict=True)):
            raise UsageError(
                f"X3D got a video of shape {shape}, and the positions of its head span {smallest} (T, H, W). "
                f"Give it more, or build it with head_pool={HeadPool.GLOBAL.value!r}."
            )

    def _initialise(self) -> None:
        """As SlowFast starts training: every branch begins as nothing, because its last norm has weight 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, Block):
                nn.init.zeros_(module.project.norm.weight)
        nn.init.normal_(self.head.classifier.weight, std=LAST_DENSE_STD)


def _blocks(in_channels: int, stage: Stage, shortcut_norm: bool) -> nn.Sequential:
    """One stage."""
    first = Block(in_channels, stage, 0, shortcut_norm=shortcut_norm)
    return nn.Sequential(first, *(Block(stage.width, stage, i, shortcut_norm=False) for i in range(1, stage.blocks)))


def build_expanded(
    *,
    gamma_tau: float = 1.0,
    gamma_t: int = 1,
    gamma_s: float = 1.0,
    gamma_w: float = 2.0,
    gamma_b: float = 1.0,
    gamma_d: float = 1.0,
    num_classes: int = 400,
    resolution: int | tuple[int, int] | None = None,
    res2_shortcut_norm: bool = True,
    head_pool: str = HeadPool.GLOBAL.value,
) -> X3D:
    """Build the X3D with these expansion factors, in evaluation mode with fresh weights.

    Own factors from the command line, here X3D-S with twice the depth:

        mvtool convert mvtool.zoo.x3d:build_expanded --input 1x3x13x160x160 \\
            --kwargs '{"gamma_t": 13, "gamma_s": 1.43, "gamma_b": 2.25, "gamma_d": 4.4}'

    Args:
        gamma_tau: Frame stride. It says how to sample the video and changes no layer.
        gamma_t: Number of frames.
        gamma_s: Height and width over 112.
        gamma_w: Widths over 12, 12, 24, 48, 96; X2D has 2.
        gamma_b: Bottleneck over stage width.
        gamma_d: Depths over 1, 2, 5, 3.
        num_classes: Width of the logits.
        resolution: Height and width of the pictures, or one number for both; that of `gamma_s` if not given.
            No layer depends on it.
        res2_shortcut_norm: False for PyTorchVideo's form.
        head_pool: `global` or `positions`, see `HeadPool`.

    Raises:
        SourceError: An argument has no meaning.
    """
    gammas = X3DGammas(gamma_tau, gamma_t, gamma_s, gamma_w, gamma_b, gamma_d)
    _check_gammas(gammas)
    if head_pool not in tuple(HeadPool):
        raise SourceError(f"{head_pool!r} is no pooling of the head; known are {', '.join(HeadPool)}.")
    config = replace(
        expanded(gammas),
        num_classes=num_classes,
        res2_shortcut_norm=res2_shortcut_norm,
        head_pool=HeadPool(head_pool),
    )
    size = resolution if isinstance(resolution, int) else min(resolution or (config.resolution,))
    if config.head_pool is HeadPool.POSITIONS and size < config.resolution:
        raise SourceError(
            f"head_pool={head_pool!r} needs pictures of at least the training crop, {config.resolution} pixels, got "
            f"{resolution}. Use larger pictures or head_pool={HeadPool.GLOBAL.value!r}."
        )
    return X3D(config).eval()


def _check_gammas(gammas: X3DGammas) -> None:
    for axis, value in vars(gammas).items():
        # The narrowest stage has 8 channels, and its bottleneck at least one.
        if value <= 0 or (axis == "b" and value < 1 / 8):
            least = "at least 0.125" if axis == "b" else "above 0"
            raise SourceError(
                f"gamma_{axis} is {value}, expected a number {least}; X2D has {getattr(X3DGammas(), axis)}."
            )
