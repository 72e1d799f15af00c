"""Video Mobile-Former (Wang et al. 2022, arXiv 2208.12257), and Mobile3D, the same network without tokens.

    stem - blocks - tokens look at the last map - 1x1x1 - mean over time and space - dense - dense

In a block the tokens look at its input and at each other; three convolutions follow, whose activations depend on the
first token; then every position looks at the tokens. All time is strided away in the stem. Input (N, 3, T, H, W),
normalised float32 RGB; output logits (N, classes). The tokens see the whole clip, so there is no stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvtool.zoo.conv_norm import ConvNorm
from mvtool.zoo.video_mobile_former_attention import DynamicReLU, Former, GlobalToLocal, LocalToGlobal
from mvtool.zoo.video_mobile_former_table import VARIANTS, Variant
from mvtool.zoo.video_shape import RGB, check_video

TOKEN_WIDTH = 128
STEM_FRAMES = 5
"""Kernel of the stem's temporal convolution."""
HEAD_RATIO = 6
"""Width of the pooled features over that of the last stage."""
HIDDEN = 1920
"""Width of the first dense layer."""
DROPOUT = 0.2


class Stem(nn.Module):
    """1x3x3 convolution with stride 2 on all frames, then a strided depthwise one over time.

    Args:
        channels: Channels of the output.
        time_stride: Temporal stride.
    """

    def __init__(self, channels: int, time_stride: int) -> None:
        super().__init__()
        self.space = nn.Conv3d(RGB, channels, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)
        self.time = ConvNorm(channels, channels, (STEM_FRAMES, 1, 1), stride=(time_stride, 1, 1), groups=channels)

    def forward(self, video: Tensor) -> Tensor:
        """(N, 3, T, H, W) to (N, C, ceil(T / time_stride), ceil(H / 2), ceil(W / 2))."""
        return functional.relu(self.time(self.space(video)))


class Mobile(nn.Module):
    """The convolutions of a block: 1x1x1, depthwise 3x3x3, 1x1x1 without activation, and the identity if it fits.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        hidden: Channels between the 1x1x1 convolutions.
        stride: Spatial stride.
        dynamic: Activations that depend on the first token; else ReLU.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden: int, stride: int, dynamic: bool) -> None:
        super().__init__()
        self.expand = ConvNorm(in_channels, hidden, (1, 1, 1))
        self.first = DynamicReLU(hidden, TOKEN_WIDTH) if dynamic else None
        self.depthwise = ConvNorm(hidden, hidden, (3, 3, 3), stride=(1, stride, stride), groups=hidden)
        self.second = DynamicReLU(hidden, TOKEN_WIDTH) if dynamic else None
        self.project = ConvNorm(hidden, out_channels, (1, 1, 1))
        self.skip = stride == 1 and in_channels == out_channels

    @property
    def branch_norm(self) -> nn.Module | None:
        """The norm whose result is added to the identity, None where there is no identity."""
        return self.project.norm if self.skip else None

    def forward(self, x: Tensor, token: Tensor | None) -> Tensor:
        """(N, C, T, H, W) to (N, C', T, ceil(H / stride), ceil(W / stride)), given the first token (N, d)."""
        wide = _rectified(self.expand(x), self.first, token)
        y: Tensor = self.project(_rectified(self.depthwise(wide), self.second, token))
        return y + x if self.skip else y


def _rectified(x: Tensor, dynamic: DynamicReLU | None, token: Tensor | None) -> Tensor:
    if dynamic is None or token is None:
        return functional.relu(x)
    y: Tensor = dynamic(x, token)
    return y


class Block(nn.Module):
    """One block: bridge to the tokens, the tokens' own layer, convolutions, bridge back.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        hidden: Channels between the 1x1x1 convolutions.
        stride: Spatial stride.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden: int, stride: int) -> None:
        super().__init__()
        self.to_tokens = LocalToGlobal(TOKEN_WIDTH, in_channels)
        self.former = Former(TOKEN_WIDTH)
        self.mobile = Mobile(in_channels, out_channels, hidden, stride, dynamic=True)
        self.to_map = GlobalToLocal(TOKEN_WIDTH, out_channels)

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """New map (N, C', T, H', W') and new tokens (N, M, d)."""
        tokens = self.former(self.to_tokens(tokens, x))
        y = self.mobile(x, tokens[:, 0])
        return y + self.to_map(y, tokens), tokens


class Head(nn.Module):
    """1x1x1 convolution, mean over time and space beside the first token, two dense layers.

    Args:
        channels: Channels of the last map.
        token: Width of the token, 0 for none.
        num_classes: Width of the logits.
    """

    def __init__(self, channels: int, token: int, num_classes: int) -> None:
        super().__init__()
        self.project = ConvNorm(channels, HEAD_RATIO * channels, (1, 1, 1))
        self.dense = nn.Linear(HEAD_RATIO * channels + token, HIDDEN)
        self.norm = nn.BatchNorm1d(HIDDEN)
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(HIDDEN, num_classes)

    def forward(self, x: Tensor, token: Tensor | None) -> Tensor:
        """Logits (N, classes) from features (N, C, T, H, W) and a token (N, d)."""
        pooled = functional.hardswish(functional.relu(self.project(x)).mean((2, 3, 4)))
        if token is not None:
            pooled = torch.cat([pooled, token], 1)
        hidden = functional.hardswish(self.norm(self.dense(pooled)))
        logits: Tensor = self.classifier(self.dropout(hidden))
        return logits


def _plan(variant: Variant) -> Iterator[tuple[int, int, int, int]]:
    """Channels in, channels out, hidden channels and stride of every block."""
    channels = variant.width
    for stage, count in enumerate(variant.blocks):
        width = variant.width * 2**stage
        for index in range(count):
            yield channels, width, round(variant.expansion * width), 2 if index == 0 else 1
            channels = width


class Mobile3D(nn.Module):
    """The network without tokens.

    Args:
        variant: Row of the table.
        num_classes: Width of the logits.
    """

    def __init__(self, variant: Variant, num_classes: int) -> None:
        super().__init__()
        self.stem = Stem(variant.width, variant.time_stride)
        self.blocks = nn.ModuleList(Mobile(*plan, dynamic=False) for plan in _plan(variant))
        self.head = Head(_last(variant), 0, num_classes)
        _initialise(self)

    def forward(self, video: Tensor) -> Tensor:
        """Logits (N, classes) of a clip (N, 3, T, H, W).

        Raises:
            UsageError: Not a video.
        """
        check_video("Mobile3D", tuple(video.shape))
        x = self.stem(video)
        for block in self.blocks:
            x = block(x, None)
        logits: Tensor = self.head(x, None)
        return logits


class VideoMobileFormer(nn.Module):
    """The network with tokens.

    Args:
        variant: Row of the table.
        num_classes: Width of the logits.
    """

    def __init__(self, variant: Variant, num_classes: int) -> None:
        super().__init__()
        self.stem = Stem(variant.width, variant.time_stride)
        self.tokens = nn.Parameter(torch.empty(variant.tokens, TOKEN_WIDTH))
        self.blocks = nn.ModuleList(Block(*plan) for plan in _plan(variant))
        self.to_tokens = LocalToGlobal(TOKEN_WIDTH, _last(variant))
        self.head = Head(_last(variant), TOKEN_WIDTH, num_classes)
        _initialise(self)
        nn.init.normal_(self.tokens)

    def forward(self, video: Tensor) -> Tensor:
        """Logits (N, classes) of a clip (N, 3, T, H, W).

        Raises:
            UsageError: Not a video.
        """
        check_video("Video Mobile-Former", tuple(video.shape))
        x = self.stem(video)
        tokens = self.tokens.unsqueeze(0).expand(video.shape[0], -1, -1)
        for block in self.blocks:
            x, tokens = block(x, tokens)
        logits: Tensor = self.head(x, self.to_tokens(tokens, x)[:, 0])
        return logits


def _last(variant: Variant) -> int:
    return int(variant.width * 2 ** (len(variant.blocks) - 1))


def _initialise(module: nn.Module) -> None:
    """The paper says nothing; convolutions as in its image model, so that each keeps the variance."""
    for part in module.modules():
        if isinstance(part, nn.Conv3d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def build(
    *,
    variant: str,
    num_classes: int = 400,
    resolution: int | tuple[int, int] | None = None,
    tokens: int | None = None,
    expansion: float | None = None,
) -> VideoMobileFormer | Mobile3D:
    """Build one Video Mobile-Former or Mobile3D in evaluation mode.

    Args:
        variant: `560m`, `1g`, `2g` or `5g`.
        num_classes: Width of the logits.
        resolution: Has no effect; the layers take any size.
        tokens: Number of tokens, 6 if not given; 0 for Mobile3D.
        expansion: Channels inside a block over those of its output, the table's if not given; 2.25 gives 2G as
            the paper prints it.
    """
    row = next(row for row in VARIANTS if row.name == variant)
    row = replace(row, tokens=row.tokens if tokens is None else tokens, expansion=expansion or row.expansion)
    model = VideoMobileFormer(row, num_classes) if row.tokens else Mobile3D(row, num_classes)
    return model.eval()
