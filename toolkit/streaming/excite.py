"""Squeeze-excite: scale channels by a gate computed from their pooled values.

| type | pooled input of the gate | width |
|---|---|---|
| 3d, clip | one mean over T, H, W | C |
| 3d, causal | g_t, the mean of all frames up to t | C |
| 2plus3d, causal | concat[g_t, s_t]: that mean, then the mean of frame t alone | 2 C |
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor, nn

from mvtool.streaming.activations import Activation, Gate
from mvtool.streaming.clock import Clock
from mvtool.streaming.pool import CumulativeMean


class ExciteType(StrEnum):
    """What a squeeze-excite pools over; see the module docstring."""

    SPACE_TIME = "3d"
    SPACE_PLUS_SPACE_TIME = "2plus3d"

    @property
    def pools(self) -> int:
        """Number of pooled vectors put side by side."""
        return 2 if self is ExciteType.SPACE_PLUS_SPACE_TIME else 1


class SqueezeExcite(nn.Module):
    """Squeeze-excite of all three types.

    Args:
        channels: C.
        hidden: Channels between the two 1x1x1 convolutions.
        kind: What is pooled.
        activation: Between the two convolutions.
        gate: Squashing function.
        batch: N, the batch size of the running mean; None for a clip model without state.
        positional: Add a learned multiple of the positional encoding to the pooled values.

    Raises:
        ValueError: 2plus3d without state.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        kind: ExciteType,
        activation: Activation,
        gate: Gate,
        *,
        batch: int | None,
        positional: bool = False,
    ) -> None:
        super().__init__()
        if batch is None and kind is not ExciteType.SPACE_TIME:
            raise ValueError("2plus3d squeeze-excite is defined here for causal models only.")
        self.kind, self.activation, self.gate = kind, activation, gate
        self.width = channels * kind.pools
        self.pool = CumulativeMean(batch, channels) if batch is not None else None
        self.reduce = nn.Conv3d(self.width, hidden, 1)
        self.expand = nn.Conv3d(hidden, channels, 1)
        self.position_scale = nn.Parameter(torch.zeros(())) if positional else None

    def forward(self, x: Tensor, clock: Clock | None = None, position: Tensor | None = None) -> Tensor:
        """Scale the channels of `x`.

        Args:
            x: (N, C, T, H, W).
            clock: Times of the frames; needed by causal models.
            position: Encoding (1, `width`, T, 1, 1); needed if `positional`.

        Returns:
            Same shape as `x`.

        Raises:
            ValueError: `clock` or `position` is missing.
        """
        pooled = self._pool(x, clock)
        if self.position_scale is not None:
            if position is None:
                raise ValueError("This squeeze-excite adds a positional encoding; pass it as `position`.")
            pooled = pooled + position * self.position_scale
        return x * self.gate(self.expand(self.activation(self.reduce(pooled))))

    def _pool(self, x: Tensor, clock: Clock | None) -> Tensor:
        if self.pool is None:
            return x.mean((2, 3, 4), keepdim=True)
        if clock is None:
            raise ValueError("This squeeze-excite keeps a running mean; pass the clock of the frames.")
        frame = x.mean((3, 4), keepdim=True)
        mean: Tensor = self.pool(frame, clock)
        return mean if self.kind is ExciteType.SPACE_TIME else torch.cat([mean, frame], dim=1)
