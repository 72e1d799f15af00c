"""Networks of 2D convolutions on the frames of a video, and what they say about a video.

The frames go through the network as a batch (T N, C, H, W), frame by frame. Without shifts and with two-sided ones the logits
are averaged over the frames; a stream (one-sided shifts) says what the newest frame looks like, given the ones before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from mvtool.zoo.temporal_shift import ShiftKind, Shifts, Size
from mvtool.zoo.video_shape import check_video

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "hard_swish": functional.hardswish,
}


@dataclass(frozen=True)
class Norm:
    """Constants of the batch norms.

    Attributes:
        eps: Added to the variance.
        momentum: Share of the new batch in the running statistics.
    """

    eps: float = 1e-5
    momentum: float = 0.1


class ConvNorm(nn.Module):
    """2D convolution without bias, batch norm, activation; zero padding of (kernel - 1) / 2 on both sides.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Height and width of the kernel, odd.
        stride: Spatial stride.
        groups: As in `nn.Conv2d`.
        activation: Key of `ACTIVATIONS`; None for a linear layer.
        norm: Constants of the batch norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: str | None = None,
        norm: Norm = Norm(),
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, norm.eps, norm.momentum)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.norm(self.conv(x))
        return y if self.activation is None else ACTIVATIONS[self.activation](y)


class FrameNetwork(nn.Module):
    """Base of the 2D networks: from a video to logits.

    Args:
        title: Name for messages.
        resolution: Height and width of the frames.
        shifts: Temporal shifts, None for a network that sees every frame by itself.
    """

    def __init__(self, title: str, resolution: Size, shifts: Shifts | None) -> None:
        super().__init__()
        self.title = title
        self.resolution = resolution
        self.shifts = shifts

    @property
    def trained_as(self) -> str | None:
        """Kind of the shift, which weights have to be trained with; None for a network without."""
        return None if self.shifts is None else self.shifts.kind.value

    def features(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) to the last feature maps (B, C, H', W')."""
        raise NotImplementedError

    def head(self, features: Tensor) -> Tensor:
        """Logits (B, classes) of feature maps (B, C, H', W')."""
        raise NotImplementedError

    def forward(self, video: Tensor) -> Tensor:
        """Classify clips, or the newest frame of a stream.

        Args:
            video: (N, 3, T, H, W), float32, normalised.

        Returns:
            Logits (N, classes): the mean over the frames, of a stream those of the newest frame. Users of streams
            average them over as many frames as they like; `frame_logits` has those of all frames, for training.

        Raises:
            UsageError: The shape does not fit.
        """
        self._check(tuple(video.shape))
        clips, frames = video.shape[0], video.shape[2]
        features = self.features(_frames_first(video))
        if self._is_stream and frames > 1:
            features = features[-clips:]
        logits = self.head(features)
        if self._is_stream or frames == 1:
            return logits
        if clips == 1:
            # Two axes are a vector per frame, which int8 keeps in float; three would be a sequence.
            return logits.mean(0, keepdim=True)
        return logits.reshape(frames, clips, -1).mean(0)

    def frame_logits(self, video: Tensor) -> Tensor:
        """Logits of every frame, (N, T, classes); arguments and errors as for `forward`."""
        self._check(tuple(video.shape))
        logits = self.head(self.features(_frames_first(video)))
        return logits.reshape(video.shape[2], video.shape[0], -1).transpose(0, 1)

    @property
    def _is_stream(self) -> bool:
        return self.shifts is not None and self.shifts.kind is ShiftKind.ONE_SIDED

    def _check(self, shape: tuple[int, ...]) -> None:
        count, kind = (None, None) if self.shifts is None else (self.shifts.count, self.shifts.kind)
        clips = count if kind is ShiftKind.ONE_SIDED else None
        frames = count if kind is ShiftKind.TWO_SIDED else None
        remedy = (
            "Build it with another `resolution`, `batch_size` (streams) or number of frames (clips with a two-sided "
            "shift), or resize the video"
        )
        check_video(self.title, shape, batch=clips, frames=frames, size=self.resolution, remedy=remedy)


def _frames_first(video: Tensor) -> Tensor:
    """(N, C, T, H, W) to (T N, C, H, W)."""
    return video.permute(2, 0, 1, 3, 4).flatten(0, 1)
