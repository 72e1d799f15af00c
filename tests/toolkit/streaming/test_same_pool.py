from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from mvtool.streaming import SameAveragePool, SameMaxPool

Sizes = tuple[int, ...]
WINDOWS = [
    ((8, 8), (3, 3), (2, 2)),
    ((7, 9), (3, 3), (2, 2)),
    ((1, 2), (3, 3), (2, 2)),
    ((6, 5), (4, 4), (1, 1)),
    ((22, 7), (4, 4), (3, 3)),
    ((7, 8), (2, 2), (3, 3)),
    ((2, 4, 5), (2, 1, 1), (1, 1, 1)),
    ((4, 3, 3), (3, 1, 1), (2, 1, 1)),
    ((5, 6, 7), (4, 3, 2), (2, 3, 1)),
]


def tf_windows(size: int, kernel: int, stride: int) -> list[slice]:
    """Cells of the input in each window, as TensorFlow documents SAME padding."""
    count = math.ceil(size / stride)
    before = max((count - 1) * stride + kernel - size, 0) // 2
    return [slice(max(i * stride - before, 0), i * stride - before + kernel) for i in range(count)]


def cut(x: torch.Tensor, window: tuple[slice, ...]) -> torch.Tensor:
    for axis, cells in enumerate(window, x.dim() - len(window)):
        x = x.narrow(axis, cells.start, min(cells.stop, x.shape[axis]) - cells.start)
    return x


def by_windows(
    x: torch.Tensor, size: Sizes, kernel: Sizes, stride: Sizes, what: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """`what` of every window of the last axes of `x` (N, C, ...), window by window."""
    axes = [tf_windows(*axis) for axis in zip(size, kernel, stride, strict=True)]
    cells = [what(cut(x, window).flatten(x.dim() - len(size))) for window in itertools.product(*axes)]
    return torch.stack(cells, -1).reshape(*x.shape[: -len(size)], *(len(axis) for axis in axes))


@pytest.mark.parametrize(("size", "kernel", "stride"), WINDOWS)
def test_same_pools(size: Sizes, kernel: Sizes, stride: Sizes) -> None:
    """Padding counts neither in an average nor in a maximum of negative values."""
    torch.manual_seed(0)
    shape = (2, 3, 2, *size) if len(size) == 2 else (2, 3, *size)
    x = torch.randn(shape) - 3.0
    mean = by_windows(x, size, kernel, stride, lambda cells: cells.mean(-1))
    torch.testing.assert_close(SameAveragePool(size, kernel, stride)(x), mean, rtol=1e-5, atol=1e-6)
    largest = by_windows(x, size, kernel, stride, lambda cells: cells.amax(-1))
    assert torch.equal(SameMaxPool(kernel, stride)(x), largest)


def test_same_average_pool_by_hand() -> None:
    """2 x 2 with stride 2 pads (0, 1): one window over all four cells, divided by 4 and not by 9."""
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]]).view(1, 1, 1, 2, 2)
    assert SameAveragePool((2, 2), (3, 3), (2, 2))(x).flatten().tolist() == [3.0]


def test_same_max_pool_by_hand() -> None:
    """A zero beside -2 would be larger."""
    x = torch.tensor([-1.0, -3.0, -2.0]).view(1, 1, 3, 1, 1)
    assert SameMaxPool((2, 1, 1), (1, 1, 1))(x).flatten().tolist() == [-1.0, -2.0, -2.0]
