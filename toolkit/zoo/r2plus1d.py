"""R(2+1)D-18: a ResNet whose 3D kernels are a spatial and a temporal one with a ReLU between them.

    stem 1x7x7, 3x1x1 - basic blocks - mean over time and space - dense

Input (N, 3, T, H, W), float32 RGB normalised with the entry's mean and deviation; output logits (N, classes). The clip can have
any number of frames and any size; time and space are divided by 8 and 16, rounded up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from mvtool.zoo.conv_norm import ConvNorm
from mvtool.zoo.r2plus1d_table import STAGES, STEM_INNER, STEM_WIDTH, Stage, inner_width
from mvtool.zoo.video_shape import RGB, check_video

LAST_DENSE_STD = 0.01
"""Standard deviation of the dense layer at the start of training (torchvision)."""
Size = tuple[int, int]


@dataclass(frozen=True)
class R2Plus1DConfig:
    """Everything that determines an R(2+1)D module.

    Attributes:
        num_classes: Width of the logits.
        stem: Channels inside and behind the stem.
        stages: The blocks.
    """

    num_classes: int = 400
    stem: tuple[int, int] = (STEM_INNER, STEM_WIDTH)
    stages: tuple[Stage, ...] = STAGES


class FactoredConv(nn.Module):
    """1 x k x k convolution, batch norm, ReLU, 3 x 1 x 1 convolution, batch norm.

    Args:
        in_channels: Channels of the input.
        inner: Channels in between.
        out_channels: Channels of the output.
        space: k.
        stride: Spatial stride, of the first kernel.
        time_stride: Temporal stride, of the second kernel.
    """

    def __init__(
        self, in_channels: int, inner: int, out_channels: int, *, space: int = 3, stride: int = 1, time_stride: int = 1
    ) -> None:
        super().__init__()
        self.spatial = ConvNorm(in_channels, inner, (1, space, space), stride=(1, stride, stride))
        self.temporal = ConvNorm(inner, out_channels, (3, 1, 1), stride=(time_stride, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) to (N, C', ceil(T / time_stride), ceil(H / stride), ceil(W / stride))."""
        y: Tensor = self.temporal(functional.relu(self.spatial(x)))
        return y


class BasicBlock(nn.Module):
    """Two factored convolutions, sum, ReLU.

    Args:
        in_channels: Channels of the input.
        width: Channels of the output.
        stride: In space and time.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        inner = inner_width(in_channels, width)
        self.first = FactoredConv(in_channels, inner, width, stride=stride, time_stride=stride)
        self.second = FactoredConv(width, inner, width)
        same, steps = in_channels == width and stride == 1, (stride, stride, stride)
        self.shortcut = None if same else ConvNorm(in_channels, width, (1, 1, 1), stride=steps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) to (N, width, ceil(T / stride), ceil(H / stride), ceil(W / stride))."""
        y = self.second(functional.relu(self.first(x)))
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class R2Plus1D(nn.Module):
    """One R(2+1)D; the blocks are children named `stage{i}_block{j}`, both from 0.

    Args:
        config: Configuration; kept as `config`.
    """

    def __init__(self, config: R2Plus1DConfig) -> None:
        super().__init__()
        self.config = config
        inner, channels = config.stem
        self.stem = FactoredConv(RGB, inner, channels, space=7, stride=2)
        self.block_names: list[str] = []
        for i, stage in enumerate(config.stages):
            for j in range(stage.blocks):
                name = f"stage{i}_block{j}"
                self.add_module(name, BasicBlock(channels, stage.width, stage.stride if j == 0 else 1))
                self.block_names.append(name)
                channels = stage.width
        self.classifier = nn.Linear(channels, config.num_classes)
        self._initialise()

    def forward(self, video: Tensor) -> Tensor:
        """Classify a clip.

        Args:
            video: (N, 3, T, H, W), float32, normalised.

        Returns:
            Logits (N, classes).

        Raises:
            UsageError: The shape is no clip of RGB frames.
        """
        check_video("R(2+1)D", tuple(video.shape))
        x = functional.relu(self.stem(video))
        for block in self.blocks():
            x = block(x)
        logits: Tensor = self.classifier(x.mean((2, 3, 4)))
        return logits

    def blocks(self) -> list[BasicBlock]:
        """The blocks in order."""
        return [self.get_submodule(name) for name in self.block_names]  # type: ignore[misc]

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, std=LAST_DENSE_STD)
        nn.init.zeros_(self.classifier.bias)


def build(*, num_classes: int = 400, resolution: int | Sequence[int]) -> R2Plus1D:
    """Build R(2+1)D-18 in evaluation mode, with fresh weights.

    Args:
        num_classes: Width of the logits.
        resolution: Height and width; the module takes any, so this is not kept.
    """
    del resolution
    return R2Plus1D(R2Plus1DConfig(num_classes)).eval()
