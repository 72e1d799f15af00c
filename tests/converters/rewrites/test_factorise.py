from __future__ import annotations

import pytest
import torch
from torch import nn

from mvtool.converters.rewrites.factorise import Layer, Rank, factor, factorise
from mvtool.errors import UsageError
from mvtool.streaming import StreamConv3d, reset
from mvtool.zoo import registry

DEPTHWISE = (6, 1, 3, 3, 3)
DENSE = (5, 4, 3, 3, 3)


@pytest.mark.parametrize("shape", [DEPTHWISE, (6, 1, 5, 3, 3), (6, 1, 3, 1, 5), DENSE])
def test_all_pairs_are_the_kernel(shape: tuple[int, ...]) -> None:
    kernel = torch.randn(shape)
    pairs = factor(kernel, shape[1] == 1, Rank())
    torch.testing.assert_close(pairs.kernel(), kernel)
    assert pairs.energy == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [DEPTHWISE, DENSE])
def test_fewer_pairs_are_the_best_approximation(shape: tuple[int, ...]) -> None:
    kernel = torch.randn(shape)
    last = 0.0
    for count in (1, 2, 3):
        pairs = factor(kernel, shape[1] == 1, Rank(pairs=count))
        left = float((pairs.kernel() - kernel).square().sum() / kernel.square().sum())
        assert pairs.energy == pytest.approx(1 - left, abs=1e-5)
        assert pairs.energy > last
        last = pairs.energy


def test_a_kernel_of_rank_one_needs_one_pair() -> None:
    kernel = torch.randn(6, 1, 3, 1, 1) * torch.randn(6, 1, 1, 3, 3)
    pairs = factor(kernel, True, Rank(energy=0.999999))
    assert len(pairs.space) == 1
    torch.testing.assert_close(pairs.kernel(), kernel)


@pytest.mark.parametrize(
    ("text", "rank"), [("full", Rank()), ("2", Rank(pairs=2)), ("0.9", Rank(energy=0.9)), ("100", Rank(pairs=100))]
)
def test_words_for_ranks(text: str, rank: Rank) -> None:
    assert Rank.parse(text) == rank


@pytest.mark.parametrize("text", ["0", "-1", "1.0", "1.5", "many", "nan", ""])
def test_words_that_are_no_rank(text: str) -> None:
    with pytest.raises(UsageError, match="expected full, a whole number, or an energy"):
        Rank.parse(text)


def test_energy_chooses_the_fewest_pairs() -> None:
    energies = torch.tensor([8.0, 1.0, 1.0])
    assert [Rank(energy=e).of(energies) for e in (0.5, 0.8, 0.85, 0.95)] == [1, 1, 2, 3]


def stream(
    stride: int = 1, kernel: tuple[int, int, int] = (3, 3, 3), groups: int = 6, time_stride: int = 1
) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        StreamConv3d(
            6,
            6,
            kernel,
            stride=stride,
            time_stride=time_stride,
            groups=groups,
            bias=True,
            causal=True,
            input_shape=(1, 9, 8),
        )
    ).eval()


def rolled(module: nn.Module, x: torch.Tensor, step: int) -> torch.Tensor:
    reset(module)
    with torch.no_grad():
        return torch.cat([module(part) for part in torch.split(x, step, dim=2)], dim=2)


@pytest.mark.parametrize("groups", [6, 1])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (5, 3, 3), (3, 5, 5)])
def test_a_stream_of_full_rank_computes_the_same(groups: int, stride: int, kernel: tuple[int, int, int]) -> None:
    module, x = stream(stride, kernel, groups), torch.randn(1, 6, 7, 9, 8)
    expected = rolled(module, x, 1)
    report, (layer,) = factorise(module, Rank())
    assert report.changed == 1
    assert layer.rank == layer.full
    for step in (1, 2, 7):
        torch.testing.assert_close(rolled(module, x, step), expected, rtol=1e-4, atol=1e-4)


def test_a_stride_in_time() -> None:
    module, x = stream(2, (4, 3, 3), 6, time_stride=2), torch.randn(1, 6, 8, 9, 8)
    expected = rolled(module, x, 2)
    factorise(module, Rank())
    torch.testing.assert_close(rolled(module, x, 4), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("time_stride", [1, 2])
def test_clips_with_padding_in_time(stride: int, time_stride: int) -> None:
    torch.manual_seed(0)
    conv = StreamConv3d(6, 6, (3, 3, 3), stride=stride, time_stride=time_stride, groups=6)
    plain = nn.Conv3d(6, 6, (3, 3, 3), (time_stride, stride, stride), (1, 0, 1), groups=6)
    for made in (nn.Sequential(conv), nn.Sequential(plain)):
        x = torch.randn(1, 6, 6, 9, 8)
        with torch.no_grad():
            expected = made(x)
            factorise(made, Rank())
            torch.testing.assert_close(made(x), expected, rtol=1e-4, atol=1e-4)


def layers(module: nn.Module, rank: Rank) -> tuple[Layer, ...]:
    return factorise(module, rank)[1]


def test_the_state_moves_to_the_cheaper_side() -> None:
    # A stride of 2 leaves 5 x 4 of 9 x 8 positions: cheaper with one pair and with two, not with all.
    (one,), (two,), (three,) = (layers(stream(2), Rank(pairs=n)) for n in (1, 2, 3))
    assert (one.time_first, one.state) == (False, (6 * 2 * 72, 6 * 2 * 20))
    assert (two.time_first, two.state) == (False, (6 * 2 * 72, 6 * 2 * 40))
    assert (three.time_first, three.state) == (False, (6 * 2 * 72, 6 * 2 * 60))
    # Without a stride two pairs would remember twice as much.
    (same,) = layers(stream(1), Rank(pairs=2))
    assert (same.time_first, same.state) == (True, (6 * 2 * 72, 6 * 2 * 72))
    (dense,) = layers(stream(1, groups=1), Rank(pairs=2))
    assert dense.state == (6 * 2 * 72, 2 * 2 * 72)


def test_multiply_adds() -> None:
    (one,) = layers(stream(2), Rank(pairs=1))
    assert one.macs == (6 * 27, 6 * 12)
    (dense,) = layers(stream(1, groups=1), Rank(pairs=4))
    assert dense.macs == (6 * 6 * 27, 4 * (6 * 9 + 6 * 3))


def test_what_cannot_be_factored_is_left_and_told() -> None:
    module = nn.Sequential(nn.Conv3d(4, 8, 3, groups=2), nn.Conv3d(8, 8, 3, dilation=2), nn.Conv3d(8, 8, 3, groups=8))
    report, _ = factorise(module, Rank())
    assert report.changed == 1
    assert report.left_alone == ("0: 2 groups of several channels", "1: dilation")
    with pytest.raises(UsageError, match="no convolution over space and time"):
        factorise(nn.Sequential(nn.Conv3d(2, 2, (1, 3, 3)), nn.Conv3d(2, 2, (3, 1, 1)), nn.Conv2d(2, 2, 3)), Rank())


def test_a_whole_movinet() -> None:
    torch.manual_seed(0)
    module = registry.get("movinet_nano_stream_3d").build(num_classes=12, resolution=32, rezero=1.0)
    video = torch.rand(1, 3, 6, 32, 32)
    with torch.no_grad():
        expected = module(video)
        report, found = factorise(module, Rank())
        reset(module)
        torch.testing.assert_close(module(video), expected, rtol=1e-4, atol=1e-5)
    assert report.changed == len(found) == 8
    # It can be trained on.
    module.train()
    reset(module)
    module(video).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_a_model_that_is_one_convolution_is_told() -> None:
    with pytest.raises(UsageError, match=r"Conv3d: it is the whole model; wrap it in a module"):
        factorise(nn.Conv3d(2, 2, 3), Rank())
