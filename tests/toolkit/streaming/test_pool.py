from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mvtool.streaming import CumulativeMean, FrameClock, SkipAveragePool


@torch.no_grad()
@pytest.mark.parametrize("parts", [[9], [1] * 9, [2, 1, 5, 1]])
def test_cumulative_mean(parts: list[int]) -> None:
    """Equals cumsum / (1, 2, 3, ...) for any chunking; the state is the mean, not the sum."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 1, 1)
    clock, pool = FrameClock(), CumulativeMean(2, 3)
    got = torch.cat([pool(part, clock(part.shape[2])) for part in torch.split(x, parts, dim=2)], dim=2)
    expected = torch.cumsum(x, dim=2) / torch.arange(1, 10).view(1, 1, 9, 1, 1)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pool.buffer, x.mean(2, keepdim=True), rtol=1e-5, atol=1e-6)
    assert clock.frame_count.tolist() == [9.0]


@torch.no_grad()
def test_cumulative_mean_of_a_long_stream() -> None:
    """20,000 single frames against float64; a running sum in float32 would be off by more."""
    torch.manual_seed(0)
    x = torch.rand(20_000) + 3.0
    clock, pool = FrameClock(), CumulativeMean(1, 1)
    for value in x:
        pool(value.view(1, 1, 1, 1, 1), clock(1))
    assert float(pool.buffer) == pytest.approx(float(x.double().mean()), rel=1e-6)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (8, 7), (1, 2)])
def test_skip_pool_leaves_padding_out(height: int, width: int) -> None:
    """Equals a sum over a padded picture divided by the same sum over a picture of ones."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 2, height, width)
    pool = SkipAveragePool(height, width)
    ones = torch.ones(1, 1, 1, 3, 3)
    padded, inside = (functional.pad(t, pool.padding) for t in (x, torch.ones_like(x)))
    total, cells = (
        functional.conv3d(t.flatten(0, 1).unsqueeze(1), ones, stride=(1, 2, 2)).view(2, 3, 2, -1)
        for t in (padded, inside)
    )
    got = pool(x)
    assert got.shape[3:] == (-(-height // 2), -(-width // 2))
    torch.testing.assert_close(got.flatten(3), total / cells, rtol=1e-5, atol=1e-6)


def test_skip_pool_by_hand() -> None:
    """2 x 2 with stride 2 pads (0, 1): one window over all four cells, divided by 4 and not by 9."""
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]]).view(1, 1, 1, 2, 2)
    assert SkipAveragePool(2, 2)(x).flatten().tolist() == [3.0]
