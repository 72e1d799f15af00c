"""Depthwise convolution in float64, tap by tap, beside torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mvtool.runtimes.tap_sums import MOST_TAPS, convolution, suits


@pytest.mark.parametrize(
    ("per_group", "kernel", "options"),
    [
        (1, (3, 3), {"padding": (1, 1)}),
        (1, (5, 3), {"stride": (2, 1), "padding": (2, 0)}),
        (2, (3, 1), {"dilation": 2, "padding": 1}),
        (5, (1, 1), {}),
        (1, (2, 2), {"stride": [2]}),
    ],
)
@pytest.mark.parametrize("with_bias", [True, False])
def test_equals_torch(per_group: int, kernel: tuple[int, int], options: dict[str, Any], with_bias: bool) -> None:
    torch.manual_seed(0)
    value = torch.randn(2, 6 * per_group, 9, 8, dtype=torch.float64)
    weight = torch.randn(6, per_group, *kernel, dtype=torch.float64)
    bias = torch.randn(6, dtype=torch.float64) if with_bias else None
    assert suits(tuple(weight.shape), 6)
    found = convolution(value, weight, bias, groups=6, **options)
    torch.testing.assert_close(found, F.conv2d(value, weight, bias, groups=6, **options), rtol=1e-13, atol=1e-13)


def test_the_result_is_not_the_bias() -> None:
    bias = torch.zeros(3, dtype=torch.float64)
    convolution(torch.ones(1, 3, 2, 2).double(), torch.ones(3, 1, 1, 1).double(), bias, groups=3)
    assert not bias.any()


@pytest.mark.parametrize(("weight", "groups"), [((6, 6, 3, 3), 1), ((12, 1, 3, 3), 6), ((2, MOST_TAPS + 1, 1, 1), 2)])
def test_other_layers_are_left_to_torch(weight: tuple[int, ...], groups: int) -> None:
    assert not suits(weight, groups)
    value = torch.randn(1, weight[1] * groups, 4, 4)
    kernel = torch.randn(weight)
    torch.testing.assert_close(convolution(value, kernel, groups=groups), F.conv2d(value, kernel, groups=groups))
