from __future__ import annotations

import pytest
import torch

from mvtool.streaming import Activation, ExciteType, FrameClock, Gate, SqueezeExcite


def excite(kind: ExciteType, batch: int | None = 1, positional: bool = False) -> SqueezeExcite:
    torch.manual_seed(0)
    return SqueezeExcite(6, 8, kind, Activation.HARD_SWISH, Gate.KERAS, batch=batch, positional=positional)


def gated(module: SqueezeExcite, pooled: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    hidden = torch.einsum("oc,nct->not", module.reduce.weight.flatten(1), pooled)
    hidden = torch.nn.functional.hardswish(hidden + module.reduce.bias.view(1, -1, 1))  # type: ignore[union-attr]
    gate = torch.einsum("oc,nct->not", module.expand.weight.flatten(1), hidden)
    gate = (0.2 * (gate + module.expand.bias.view(1, -1, 1)) + 0.5).clamp(0, 1)  # type: ignore[union-attr]
    return x * gate[..., None, None]


@torch.no_grad()
@pytest.mark.parametrize("parts", [[6], [1] * 6, [2, 3, 1]])
@pytest.mark.parametrize("kind", list(ExciteType))
def test_causal(kind: ExciteType, parts: list[int]) -> None:
    """The running mean stands before the frame's own mean in the 2plus3d form."""
    module, clock = excite(kind), FrameClock()
    x = torch.randn(1, 6, 6, 4, 4)
    frame = x.mean((3, 4))
    mean = torch.cumsum(frame, dim=2) / torch.arange(1, 7)
    pooled = mean if kind is ExciteType.SPACE_TIME else torch.cat([mean, frame], dim=1)
    got = torch.cat([module(part, clock(part.shape[2])) for part in torch.split(x, parts, dim=2)], dim=2)
    torch.testing.assert_close(got, gated(module, pooled, x), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_clip_pools_over_time() -> None:
    module = excite(ExciteType.SPACE_TIME, batch=None)
    x = torch.randn(2, 6, 5, 4, 4)
    torch.testing.assert_close(module(x), gated(module, x.mean((2, 3, 4))[:, :, None], x), rtol=1e-5, atol=1e-6)


def test_missing_inputs_are_refused() -> None:
    x = torch.randn(1, 6, 1, 4, 4)
    with pytest.raises(ValueError, match="pass the clock"):
        excite(ExciteType.SPACE_TIME)(x)
    with pytest.raises(ValueError, match="pass it as `position`"):
        excite(ExciteType.SPACE_TIME, positional=True)(x, FrameClock()(1))
    with pytest.raises(ValueError, match="causal models only"):
        excite(ExciteType.SPACE_PLUS_SPACE_TIME, batch=None)
