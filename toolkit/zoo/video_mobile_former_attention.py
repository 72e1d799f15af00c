"""How the tokens of Video Mobile-Former and its feature maps see each other.

There are few tokens Z (N, M, d) and many positions of a map X (N, C, T, H, W), up to 200,704. The map stays channels
last in front of a matrix product, (N, T H W, C), and no tensor is larger than the map or M values per position and head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvtool.streaming import Gate

BRIDGE_HEADS = 2
FORMER_HEADS = 4
FEED_FORWARD_RATIO = 2
REDUCTION = 4
"""Of the hidden layer that computes the slopes of `DynamicReLU`."""


def positions(x: Tensor) -> Tensor:
    """(N, C, T, H, W) to (N, T H W, C)."""
    return x.permute(0, 2, 3, 4, 1).flatten(1, 3)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention.

    The heads are part of the batch: one product for all of them, and `bmm`, because `matmul` of three axes exports with
    copies that ExecuTorch does not delegate.

    Args:
        query: (N, Q, C), heads side by side.
        key: (N, K, C).
        value: (N, K, C).
        heads: Their number.

    Returns:
        (N, Q, C).
    """
    batch, rows, channels = query.shape
    scale = (channels // heads) ** -0.5
    # The scale goes where there are fewer rows.
    query, key = (query * scale, key) if rows <= key.shape[1] else (query, key * scale)
    weights = torch.softmax(torch.bmm(_apart(query, heads), _apart(key, heads).transpose(1, 2)), -1)
    seen = torch.bmm(weights, _apart(value, heads))
    return seen.reshape(batch, heads, rows, -1).transpose(1, 2).reshape(batch, rows, channels)


def _apart(x: Tensor, heads: int) -> Tensor:
    """(N, rows, C) to (N heads, rows, C / heads)."""
    batch, rows, channels = x.shape
    parts = x.reshape(batch, rows, heads, channels // heads).transpose(1, 2)
    return parts.reshape(batch * heads, rows, channels // heads)


class LocalToGlobal(nn.Module):
    """Tokens look at all positions of a map.

    Keys and values are the map itself; the answer is scaled by a gate computed from the tokens.

    Args:
        tokens: Width d of a token.
        channels: C of the map.
    """

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(tokens, channels)
        self.gate = nn.Linear(tokens, channels)
        self.project = nn.Linear(channels, tokens)
        self.norm = nn.LayerNorm(tokens)

    def forward(self, tokens: Tensor, x: Tensor) -> Tensor:
        """New tokens (N, M, d) from `tokens` and a map `x` (N, C, T, H, W)."""
        cells = positions(x)
        seen = attend(self.query(tokens), cells, cells, BRIDGE_HEADS)
        seen = seen * (2.0 * Gate.RELU6(self.gate(tokens)))
        new: Tensor = self.norm(tokens + self.project(seen))
        return new


class Former(nn.Module):
    """Tokens look at each other, then a feed-forward layer; both residual with the norm behind.

    Keys and values are the tokens themselves.

    Args:
        tokens: Width d of a token.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.query = nn.Linear(tokens, tokens)
        self.project = nn.Linear(tokens, tokens)
        self.norm = nn.LayerNorm(tokens)
        self.widen = nn.Linear(tokens, FEED_FORWARD_RATIO * tokens)
        self.narrow = nn.Linear(FEED_FORWARD_RATIO * tokens, tokens)
        self.last_norm = nn.LayerNorm(tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        """New tokens (N, M, d)."""
        seen = attend(self.query(tokens), tokens, tokens, FORMER_HEADS)
        tokens = self.norm(tokens + self.project(seen))
        new: Tensor = self.last_norm(tokens + self.narrow(functional.gelu(self.widen(tokens))))
        return new


class GlobalToLocal(nn.Module):
    """Every position of a map looks at the tokens. Queries are the map itself, and nothing follows the attention.

    Args:
        tokens: Width d of a token.
        channels: C of the map.
    """

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.key = nn.Linear(tokens, channels)
        self.value = nn.Linear(tokens, channels)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """What is added to the map `x` (N, C, T, H, W)."""
        batch, channels, *size = x.shape
        seen = attend(positions(x), self.key(tokens), self.value(tokens), BRIDGE_HEADS)
        return seen.reshape(batch, *size, channels).permute(0, 4, 1, 2, 3)


class DynamicReLU(nn.Module):
    """max(a1 x, a2 x) with slopes per channel and frame, computed from the frame's means and the first token.

        u = concat[mean of the frame, token 0]        s = hsigmoid(W2 relu(W1 u))      a1 = 2 s1, a2 = 2 s2 - 1

    The product W1 u is written as one term per frame and one per clip.

    Args:
        channels: C of the map.
        tokens: Width d of a token.
    """

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        hidden = (channels + tokens) // REDUCTION
        self.frame = nn.Conv3d(channels, hidden, 1)
        self.token = nn.Linear(tokens, hidden, bias=False)
        self.slopes = nn.Conv3d(hidden, 2 * channels, 1)

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        """Rectify a map `x` (N, C, T, H, W), given the first token (N, d)."""
        of_clip = self.token(token).reshape(token.shape[0], -1, 1, 1, 1)
        hidden = functional.relu(self.frame(x.mean((3, 4), keepdim=True)) + of_clip)
        first, second = (2.0 * Gate.RELU6(self.slopes(hidden))).chunk(2, 1)
        return torch.maximum(x * first, x * (second - 1.0))
