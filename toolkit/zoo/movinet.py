"""MoViNet A0 to A5 and T0 (Kondratyuk et al. 2021, arXiv 2103.11511): base and stream.

    stem 1x3x3 stride 2 - inverted bottlenecks - 1x1x1 - mean over time and space - dense - act - dense

Input (N, 3, T, H, W), float32 RGB in 0..1; output logits (N, classes). A stream returns after every call the
logits of the whole video so far; one call may hold any number of frames.
"""

from __future__ import annotations

from torch import Tensor, nn

from mvtool.streaming import Clock, CumulativeMean, FrameClock, Gate, PositionalEncoding, SqueezeExcite
from mvtool.zoo.movinet_config import MoViNetConfig
from mvtool.zoo.movinet_layers import ConvNorm, InvertedBottleneck, bottlenecks
from mvtool.zoo.video_shape import RGB, check_video

LAST_DENSE_STD = 0.01
"""Standard deviation of the last dense layer at the start of training (Model Garden)."""


class Head(nn.Module):
    """1x1x1 convolution, mean over everything seen, two dense layers.

    Args:
        config: Configuration of the model.
    """

    def __init__(self, config: MoViNetConfig) -> None:
        super().__init__()
        architecture, variant = config.architecture, config.variant
        last = architecture.blocks[-1].base
        self.project = ConvNorm(last, architecture.head, (1, 1, 1), activation=variant.activation)
        self.pool = CumulativeMean(config.batch_size, architecture.head) if variant.causal else None
        self.dense = nn.Linear(architecture.head, architecture.dense)
        self.activation = variant.head_activation
        self.dropout = nn.Dropout(architecture.dropout)
        self.classifier = nn.Linear(architecture.dense, config.num_classes)

    def forward(self, x: Tensor, clock: Clock | None) -> Tensor:
        """Logits (N, classes) from features (N, C, T, H, W)."""
        x = self.project(x)
        if self.pool is None or clock is None:
            pooled = x.mean((2, 3, 4))
        else:
            pooled = self.pool(x.mean((3, 4), keepdim=True), clock)[:, :, -1:].flatten(1)
        hidden = self.activation(self.dense(pooled))
        if self.training:
            hidden = self.dropout(hidden)
        logits: Tensor = self.classifier(hidden)
        return logits


class MoViNet(nn.Module):
    """One MoViNet.

    The layers are children named `block{i}_layer{j}`, as in the published state names; a stream's buffers
    are `block{i}_layer{j}.*.stream.buffer`, `block{i}_layer{j}.excite.pool.buffer`, `head.pool.buffer` and
    one `clock.frame_count`.

    Args:
        config: Configuration; kept as `config`.
    """

    def __init__(self, config: MoViNetConfig) -> None:
        super().__init__()
        self.config = config
        architecture, variant = config.architecture, config.variant
        self.clock = FrameClock() if variant.causal else None
        self.stem = ConvNorm(RGB, architecture.stem, (1, 3, 3), stride=2, activation=variant.activation)
        self.layer_names: list[str] = []
        for name, layer in bottlenecks(config):
            self.add_module(name, layer)
            self.layer_names.append(name)
        self.head = Head(config)
        excites = [m for m in self.modules() if isinstance(m, SqueezeExcite)]
        self.positions = PositionalEncoding([m.width for m in excites]) if variant.positional else None
        self._initialise()

    @property
    def gate(self) -> Gate:
        """Squashing function of every squeeze-excite; assign to change it."""
        return self._excites()[0].gate

    @gate.setter
    def gate(self, gate: Gate) -> None:
        for excite in self._excites():
            excite.gate = gate

    def forward(self, video: Tensor) -> Tensor:
        """Classify the next frames of the stream, or a clip.

        Args:
            video: (N, 3, T, H, W), float32 in 0..1.

        Returns:
            Logits (N, classes).

        Raises:
            UsageError: The shape does not fit the configuration.
        """
        self._check(video)
        clock: Clock | None = self.clock(video.shape[2]) if self.clock is not None else None
        positions: dict[int, Tensor] = {}
        if self.positions is not None and clock is not None:
            positions = self.positions(clock.seen)
        x = self.stem(video)
        for layer in self.layers():
            x = layer(x, clock, positions.get(layer.excite.width))
        logits: Tensor = self.head(x, clock)
        return logits

    def layers(self) -> list[InvertedBottleneck]:
        """The bottlenecks in order."""
        return [self.get_submodule(name) for name in self.layer_names]  # type: ignore[misc]

    def _excites(self) -> list[SqueezeExcite]:
        return [layer.excite for layer in self.layers()]

    def _check(self, video: Tensor) -> None:
        batch = self.config.batch_size if self.clock is not None else None
        remedy = "Build it with another `resolution` or `batch_size`, or resize the video"
        name = f"MoViNet {self.config.architecture.name}"
        check_video(name, tuple(video.shape), batch=batch, size=self.config.resolution, remedy=remedy)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.head.classifier.weight, std=LAST_DENSE_STD)


def movinet(config: MoViNetConfig) -> MoViNet:
    """Build a MoViNet in evaluation mode, with fresh weights and empty state."""
    return MoViNet(config).eval()
