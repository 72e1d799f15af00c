"""MoViNets made of two members whose logits are averaged.

Temporal ensemble (section 3.3 of the paper): two networks of one architecture, trained independently, each at half the
frame rate with an offset of one frame. Member k gets frames k, k + 2, k + 4, ... of the full rate. One step of the
stream is two frames, one to each member, so every step runs the same graph.

A6: A4 and A5 together, each on its own input. A6 takes 320 x 320 at 12 frames per second, which is A5's input. A4
was trained at 8 frames per second: it gets the first two of every three frames, resized to 290 x 290 (bilinear, half-pixel
centres). One step of the stream is three frames.

Every member keeps its own frame counter, because the members see different numbers of frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvtool.errors import UsageError
from mvtool.streaming import Gate
from mvtool.zoo.movinet import MoViNet
from mvtool.zoo.movinet_build import build
from mvtool.zoo.movinet_config import Size

A4_OF_A6 = 290 / 320
"""A4's training resolution over A5's."""


class MeanOfLogits(nn.Module):
    """Two or more MoViNets and the mean of their logits.

    Args:
        members: The networks.
        frames_per_step: The number of frames per call must be a multiple of this.
    """

    def __init__(self, members: Sequence[MoViNet], frames_per_step: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.frames_per_step = frames_per_step

    @property
    def gate(self) -> Gate:
        """Squeeze-excite gate of the members; assign to change it in all of them."""
        return self._members()[0].gate

    @gate.setter
    def gate(self, gate: Gate) -> None:
        for member in self._members():
            member.gate = gate

    def forward(self, video: Tensor) -> Tensor:
        """Logits (N, classes) of (N, 3, T, H, W), float32 in 0..1.

        Raises:
            UsageError: T is not a multiple of `frames_per_step`.
        """
        if video.ndim != 5 or video.shape[2] == 0 or video.shape[2] % self.frames_per_step:
            raise UsageError(
                f"{type(self).__name__} got a video of shape {tuple(video.shape)}, expected (N, 3, T, H, W) with T a "
                f"multiple of {self.frames_per_step}."
            )
        logits = [member(part) for member, part in zip(self.members, self.parts(video), strict=True)]
        total: Tensor = sum(logits[1:], start=logits[0])
        return total * (1.0 / len(logits))

    def parts(self, video: Tensor) -> list[Tensor]:
        """The input of each member."""
        raise NotImplementedError

    def _members(self) -> list[MoViNet]:
        return list(self.members)  # type: ignore[arg-type]


class TemporalEnsemble(MeanOfLogits):
    """Two networks on alternate frames.

    Args:
        members: Two networks of one architecture.
    """

    def __init__(self, members: Sequence[MoViNet]) -> None:
        super().__init__(members, frames_per_step=len(members))

    def parts(self, video: Tensor) -> list[Tensor]:
        """Member k gets frames k, k + 2, ..."""
        return [video[:, :, k :: self.frames_per_step] for k in range(self.frames_per_step)]


class MoViNetA6(MeanOfLogits):
    """A4 and A5, each at its own resolution and frame rate.

    Args:
        a4: MoViNet-A4.
        a5: MoViNet-A5.
    """

    def __init__(self, a4: MoViNet, a5: MoViNet) -> None:
        super().__init__([a4, a5], frames_per_step=3)
        self.small: Size = a4.config.resolution

    def parts(self, video: Tensor) -> list[Tensor]:
        """Two of three frames, made smaller, for A4; all for A5."""
        return [self._shrink(_two_of_three(video)), video]

    def _shrink(self, video: Tensor) -> Tensor:
        batch, channels, frames = video.shape[:3]
        images = video.transpose(1, 2).flatten(0, 1)
        images = functional.interpolate(images, self.small, mode="bilinear", align_corners=False)
        return images.view(batch, frames, channels, *self.small).transpose(1, 2)


def _two_of_three(video: Tensor) -> Tensor:
    if video.shape[2] == 3:
        return video[:, :, :2]
    return torch.stack([video[:, :, 0::3], video[:, :, 1::3]], dim=3).flatten(2, 3)


def build_temporal(*, architecture: str, kind: str, **options: object) -> TemporalEnsemble:
    """Build a temporal ensemble in evaluation mode; `options` as in `movinet_build.build`."""
    members = [build(architecture=architecture, kind=kind, **options) for _ in range(2)]  # type: ignore[arg-type]
    return TemporalEnsemble(members).eval()


def build_a6(*, kind: str, resolution: int | Size, **options: object) -> MoViNetA6:
    """Build A6 in evaluation mode.

    Args:
        kind: `base` or `stream`.
        resolution: Of the input and of A5; A4 gets 290 / 320 of it.
        options: As in `movinet_build.build`.
    """
    size = (resolution, resolution) if isinstance(resolution, int) else resolution
    small = (round(size[0] * A4_OF_A6), round(size[1] * A4_OF_A6))
    a4 = build(architecture="a4", kind=kind, resolution=small, **options)  # type: ignore[arg-type]
    a5 = build(architecture="a5", kind=kind, resolution=size, **options)  # type: ignore[arg-type]
    return MoViNetA6(a4, a5).eval()
