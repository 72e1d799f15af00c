from __future__ import annotations

import pytest
import torch

from mvtool.streaming import CumulativeMean, FrameClock


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


def test_at_the_limit_of_the_counter_the_mean_becomes_an_exponential_one() -> None:
    """float32 holds every whole number up to 2**24: 2**24 + 1 is 2**24 again, and the weight of a frame stays at 2**-24."""
    limit = 2.0**24
    clock, pool = FrameClock(), CumulativeMean(1, 1)
    clock.frame_count.fill_(limit - 2)
    pool.buffer.fill_(1.0)
    counts, means = [], []
    for _ in range(5):
        now = clock(1)
        counts.append(float(now.seen))
        means.append(float(pool(torch.full((1, 1, 1, 1, 1), 2.0**20 + 1.0), now)))
    assert counts == [limit - 1, limit, limit, limit, limit]
    # 2**20 of difference at a weight of 2**-24 moves the mean by a sixteenth, frame after frame.
    assert means == pytest.approx([1.0 + step / 16 for step in range(1, 6)], rel=1e-6)
