"""Streaming models that are not ours, written the way their users write them: no building block of mvtool in them.

`FOREIGN_MODELS` goes through capture and later through all runtimes. Import it in any test module with
`import foreign_models`; tests/conftest.py puts this folder on the path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvtool.converters.inputs import InputSpec


class GRULoop(nn.Module):
    """A GRU cell over feature vectors; the hidden state is a buffer."""

    h: Tensor

    def __init__(self, features: int = 12, hidden: int = 16, classes: int = 5) -> None:
        super().__init__()
        self.cell = nn.GRUCell(features, hidden)
        self.head = nn.Linear(hidden, classes)
        self.register_buffer("h", torch.zeros(1, hidden))

    def forward(self, x: Tensor) -> Tensor:
        self.h = self.cell(x, self.h)
        return self.head(self.h)


class GRUExplicit(nn.Module):
    """The same network for callers who carry the hidden state themselves."""

    def __init__(self, features: int = 12, hidden: int = 16, classes: int = 5) -> None:
        super().__init__()
        self.cell = nn.GRUCell(features, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(x, h)
        return self.head(h), h


class CausalConv1d(nn.Module):
    """A dilated 1D convolution that remembers its receptive field."""

    past: Tensor

    def __init__(self, channels_in: int, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels_in, channels, kernel, dilation=dilation)
        self.register_buffer("past", torch.zeros(1, channels_in, (kernel - 1) * dilation), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.past, x], dim=2)
        self.past.copy_(x[:, :, -self.past.shape[2] :])
        return self.conv(x)


class CausalTCN(nn.Module):
    """Residual temporal convolution network, dilations 1, 2, 4 (Bai et al. 2018), one time step per call."""

    def __init__(self, features: int = 6, channels: int = 8, classes: int = 4) -> None:
        super().__init__()
        self.enter = nn.Conv1d(features, channels, 1)
        self.blocks = nn.ModuleList(CausalConv1d(channels, channels, 3, 2**level) for level in range(3))
        self.leave = nn.Conv1d(channels, classes, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.enter(x)
        for block in self.blocks:
            x = x + F.relu(block(x))
        return {"scores": self.leave(x)}


class ConvLSTMCell(nn.Module):
    """Convolutional LSTM cell (Shi et al. 2015) with its two states in buffers."""

    h: Tensor
    c: Tensor

    def __init__(self, channels_in: int, hidden: int, size: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(channels_in + hidden, 4 * hidden, 3, padding=1)
        self.register_buffer("h", torch.zeros(1, hidden, size, size))
        self.register_buffer("c", torch.zeros(1, hidden, size, size))

    def forward(self, x: Tensor) -> Tensor:
        i, f, o, g = torch.chunk(self.gates(torch.cat([x, self.h], dim=1)), 4, dim=1)
        c = torch.sigmoid(f) * self.c + torch.sigmoid(i) * torch.tanh(g)
        self.c.copy_(c)
        self.h.copy_(torch.sigmoid(o) * torch.tanh(c))
        return self.h


class ConvLSTM(nn.Module):
    """Two ConvLSTM layers over small frames, then a classifier."""

    def __init__(self, size: int = 12, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.layers = nn.ModuleList([ConvLSTMCell(6, 4, size // 2), ConvLSTMCell(4, 4, size // 2)])
        self.head = nn.Linear(4, classes)

    def forward(self, frame: Tensor) -> Tensor:
        x = F.leaky_relu(self.stem(frame), 0.1)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(dim=(2, 3)))


class ConvLSTMExplicit(nn.Module):
    """A ConvLSTM layer that takes and returns `(h, c)` as a tuple, the common signature on GitHub."""

    def __init__(self, hidden: int = 4, classes: int = 5) -> None:
        super().__init__()
        self.gates = nn.Conv2d(3 + hidden, 4 * hidden, 3, padding=1)
        self.head = nn.Linear(hidden, classes)

    def forward(self, frame: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, c = state
        i, f, o, g = torch.chunk(self.gates(torch.cat([frame, h], dim=1)), 4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return self.head(h.mean(dim=(2, 3))), (h, c)


class ShiftBlock(nn.Module):
    """Inverted residual block with an online temporal shift: an eighth of the channels comes from the last frame."""

    shifted: Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.fold = channels // 8
        self.register_buffer("shifted", torch.zeros(1, self.fold, size, size))
        self.conv = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU6(),
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU6(),
            nn.Conv2d(2 * channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        shifted = torch.cat([self.shifted, x[:, self.fold :]], dim=1)
        self.shifted.copy_(x[:, : self.fold])
        return x + self.conv(shifted)


class ShiftNet(nn.Module):
    """Online TSM (Lin et al. 2019) on a small 2D backbone."""

    def __init__(self, size: int = 24, classes: int = 7) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.blocks = nn.ModuleList([ShiftBlock(16, size // 2), ShiftBlock(16, size // 4)])
        self.head = nn.Linear(16, classes)

    def forward(self, frame: Tensor) -> Tensor:
        x = self.stem(frame)
        x = F.max_pool2d(self.blocks[0](x), 2)
        x = self.blocks[1](x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Background(nn.Module):
    """Motion from a running background that starts as a grey ramp, not as zero; one state is a mean, one the last frame."""

    background: Tensor
    previous: Tensor

    def __init__(self, size: int = 10, classes: int = 3) -> None:
        super().__init__()
        ramp = torch.linspace(0.25, 0.75, size)
        self.register_buffer("background", ramp.expand(1, 3, size, size).clone())
        self.register_buffer("previous", torch.full((1, 3, size, size), 0.5))
        self.rate = nn.Parameter(torch.tensor(0.2))
        self.conv = nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Linear(8, classes)

    def forward(self, frame: Tensor) -> Tensor:
        motion = torch.cat([frame - self.background, frame - self.previous], dim=1)
        self.background.add_(self.rate * (frame - self.background))
        self.previous = frame
        return self.head(F.silu(self.conv(motion)).amax(dim=(2, 3)))


class CountedMean(nn.Module):
    """The mean over all steps so far; the number of steps is a buffer without axes, `torch.tensor(0.0)`."""

    n: Tensor
    mean: Tensor

    def __init__(self, features: int = 12, classes: int = 5) -> None:
        super().__init__()
        self.enter = nn.Linear(features, 8)
        self.head = nn.Linear(8, classes)
        self.register_buffer("n", torch.tensor(0.0))
        self.register_buffer("mean", torch.zeros(1, 8))

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        self.mean += (F.relu(self.enter(x)) - self.mean) / self.n
        return self.head(self.mean)


class SwitchedMean(nn.Module):
    """A running mean that a boolean input starts anew; an int64 buffer counts the steps since."""

    age: Tensor
    mean: Tensor

    def __init__(self, features: int = 12, classes: int = 5) -> None:
        super().__init__()
        self.enter = nn.Linear(features, 8)
        self.head = nn.Linear(8, classes)
        self.register_buffer("age", torch.tensor(0))
        self.register_buffer("mean", torch.zeros(1, 8))

    def forward(self, x: Tensor, again: Tensor) -> Tensor:
        age = torch.where(again, torch.zeros_like(self.age), self.age).reshape(()) + 1
        self.age.copy_(age)
        self.mean += (F.relu(self.enter(x)) - self.mean) / age.float()
        return self.head(self.mean)


class TokenMemory(nn.Module):
    """Attention from the newest frame's positions to one token per remembered frame, with layer norms."""

    tokens: Tensor

    def __init__(self, width: int = 16, remembered: int = 4, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.key, self.value, self.query = (nn.Linear(width, width) for _ in range(3))
        self.norm, self.last_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, classes)
        self.register_buffer("tokens", torch.zeros(1, remembered, width))

    def forward(self, frame: Tensor) -> Tensor:
        seen = F.relu(self.stem(frame))
        newest = self.norm(seen.mean((2, 3))).unsqueeze(1)
        self.tokens.copy_(torch.cat([self.tokens[:, 1:], newest], 1))
        cells = seen.flatten(2).transpose(1, 2)
        scores = self.query(cells) @ self.key(self.tokens).transpose(1, 2) * cells.shape[-1] ** -0.5
        cells = self.last_norm(cells + scores.softmax(-1) @ self.value(self.tokens))
        mixed = F.relu(self.mix(cells.transpose(1, 2).reshape(seen.shape)))
        return self.head(mixed.mean((2, 3)))


class WindowTransformer(nn.Module):
    """A causal transformer over the newest frames: PyTorch's own encoder layer, then heads on a fourth axis."""

    window: Tensor

    def __init__(self, width: int = 16, remembered: int = 4, heads: int = 2, classes: int = 5) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width // 2, 3, stride=2, padding=1), nn.GroupNorm(2, width // 2)
        self.embed = nn.Linear(width, width)
        self.encoder = nn.TransformerEncoderLayer(width, heads, 2 * width, batch_first=True, activation="gelu")
        self.packed, self.heads = nn.Linear(width, 3 * width), heads
        self.head = nn.Linear(width, classes)
        self.register_buffer("window", torch.zeros(1, remembered, width))

    def forward(self, frame: Tensor) -> Tensor:
        seen = F.relu(self.norm(self.stem(frame)))
        newest = self.embed(torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1)).unsqueeze(1)
        self.window.copy_(torch.cat([self.window[:, 1:], newest], 1))
        hidden = nn.Transformer.generate_square_subsequent_mask(self.window.shape[1])
        rows = self.encoder(self.window, src_mask=hidden)
        _, count, width = rows.shape
        packed = self.packed(rows).reshape(1, count, 3, self.heads, width // self.heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        weights = scores.masked_fill(hidden < 0, -torch.inf).softmax(-1)
        rows = rows + (weights @ value).transpose(1, 2).reshape(rows.shape)
        return self.head(rows.mean(1))


class ChannelNorms(nn.Module):
    """Clips of four frames through a block of depthwise convolution, layer norm of the channels, and dense layers of them."""

    def __init__(self, width: int = 12, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, width, (1, 4, 4), stride=(1, 4, 4))
        self.depthwise = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, clip: Tensor) -> Tensor:
        seen = self.stem(clip)
        inner = self.norm(self.depthwise(seen).permute(0, 2, 3, 4, 1))
        seen = seen + self.narrow(F.gelu(self.widen(inner))).permute(0, 4, 1, 2, 3)
        return self.head(seen.mean((2, 3, 4)))


@dataclass(frozen=True)
class ForeignModel:
    """A model with what a user would tell `mvtool convert` about it.

    Attributes:
        name: Name for test ids and manifests.
        factory: Builds the module; use `build`.
        inputs: Specs, paired states included.
        states: Names of the states that capture must find, in order.
        state_pairs: Of `--state`.
    """

    name: str
    factory: Callable[[], nn.Module]
    inputs: tuple[InputSpec, ...]
    states: tuple[str, ...]
    state_pairs: tuple[tuple[str, str], ...] = ()

    def build(self, seed: int = 7) -> nn.Module:
        """The module in eval mode with seeded weights and batch statistics that are not the identity."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.factory()
            for child in module.modules():
                if isinstance(child, nn.BatchNorm2d):
                    assert child.running_mean is not None
                    assert child.running_var is not None
                    child.running_mean.uniform_(-0.2, 0.2)
                    child.running_var.uniform_(0.5, 1.5)
        return module.eval()


FOREIGN_MODELS: tuple[ForeignModel, ...] = (
    ForeignModel("gru_loop", GRULoop, (InputSpec(None, (1, 12)),), ("h",)),
    ForeignModel(
        "gru_explicit", GRUExplicit, (InputSpec("x", (1, 12)), InputSpec("h", (1, 16))), ("h",), (("h", "output1"),)
    ),
    ForeignModel(
        "causal_tcn", CausalTCN, (InputSpec(None, (1, 6, 1)),), ("blocks_0_past", "blocks_1_past", "blocks_2_past")
    ),
    ForeignModel(
        "conv_lstm",
        ConvLSTM,
        (InputSpec(None, (1, 3, 12, 12)),),
        ("layers_0_h", "layers_0_c", "layers_1_h", "layers_1_c"),
    ),
    ForeignModel(
        "conv_lstm_explicit",
        ConvLSTMExplicit,
        (
            InputSpec("frame", (1, 3, 8, 8)),
            InputSpec("state.0", (1, 4, 8, 8)),
            InputSpec("state.1", (1, 4, 8, 8)),
        ),
        ("state_0", "state_1"),
        (("state.0", "output_1_0"), ("state.1", "output_1_1")),
    ),
    ForeignModel("shift_net", ShiftNet, (InputSpec(None, (1, 3, 24, 24)),), ("blocks_0_shifted", "blocks_1_shifted")),
    ForeignModel("counted_mean", CountedMean, (InputSpec(None, (1, 12)),), ("n", "mean")),
    ForeignModel(
        "switched_mean", SwitchedMean, (InputSpec("x", (1, 12)), InputSpec("again", (1,), "bool")), ("age", "mean")
    ),
    ForeignModel("token_memory", TokenMemory, (InputSpec(None, (1, 3, 16, 16)),), ("tokens",)),
    ForeignModel("window_transformer", WindowTransformer, (InputSpec(None, (1, 3, 16, 16)),), ("window",)),
    ForeignModel("channel_norms", ChannelNorms, (InputSpec(None, (1, 3, 4, 16, 16)),), ()),
    ForeignModel("background", Background, (InputSpec(None, (1, 3, 10, 10)),), ("background", "previous")),
)
