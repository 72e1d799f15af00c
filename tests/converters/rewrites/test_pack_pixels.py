"""Neighbouring pixels as channels of one: the same values, for every padding, stride and kernel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from lowered import captured, operators, roll
from torch import Tensor, nn

from mvtool.converters.lowering import lower
from mvtool.converters.recipe import Forms, TemporalForm, recipe_for, recorded_recipe
from mvtool.converters.rewrites import pack_pixels
from mvtool.errors import ManifestError, UsageError
from mvtool.ports import Precision, Runtime
from mvtool.program import StreamProgram
from mvtool.streaming.conv import StreamConv3d

TFLITE = recipe_for(Runtime.TFLITE, Precision.FP32)


class Padded(nn.Module):
    """A convolution behind a padding of its own, which may differ on every side."""

    def __init__(self, pads: tuple[int, int, int, int], convolution: nn.Conv2d, activation: nn.Module) -> None:
        super().__init__()
        self.pads, self.convolution, self.activation = pads, convolution, activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.convolution(nn.functional.pad(x, self.pads)))


def sites(program: StreamProgram) -> list[pack_pixels.Site]:
    return list(pack_pixels.sites(lower(program, TFLITE).exported))


def packed(program: StreamProgram, pixels: int) -> StreamProgram:
    (site,) = sites(program)
    assert site.fits(pixels)
    return lower(program, replace(TFLITE, forms=Forms(pixels={site.operator: pixels})))


def shapes(program: StreamProgram) -> list[tuple[int, ...]]:
    nodes = [n for n in program.exported.graph.nodes if n.target is torch.ops.aten.conv2d.default]
    return [tuple(node.args[1].meta["val"].shape) for node in nodes]


@pytest.mark.parametrize(
    ("pads", "convolution", "activation", "pixels", "weight"),
    [
        ((0, 1, 0, 1), nn.Conv2d(3, 8, 3, 2), nn.Hardswish(), 2, (16, 12, 3, 2)),
        ((0, 1, 0, 1), nn.Conv2d(3, 8, 3, 2), nn.ReLU6(), 4, (32, 24, 3, 2)),
        ((1, 1, 1, 1), nn.Conv2d(3, 8, 3, 2, bias=False), nn.Identity(), 2, (16, 12, 3, 2)),
        ((0, 0, 0, 0), nn.Conv2d(3, 8, 3, 1, padding=1), nn.ReLU(), 2, (16, 6, 3, 3)),
        ((2, 2, 0, 0), nn.Conv2d(3, 5, (1, 5)), nn.Identity(), 4, (20, 12, 1, 3)),
        ((0, 0, 0, 0), nn.Conv2d(3, 8, 1), nn.SiLU(), 4, (32, 12, 1, 1)),
        ((0, 0, 1, 2), nn.Conv2d(3, 8, (4, 1), (2, 1)), nn.Identity(), 2, (16, 6, 4, 1)),
    ],
)
def test_same_values_as_the_module(
    pads: tuple[int, int, int, int],
    convolution: nn.Conv2d,
    activation: nn.Module,
    pixels: int,
    weight: tuple[int, ...],
) -> None:
    module = Padded(pads, convolution, activation).eval()
    program = packed(captured(module, "1x3x12x16"), pixels)
    assert shapes(program) == [weight]
    x = torch.randn(1, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        np.testing.assert_allclose(roll(program, [x])[0], module(x).numpy(), atol=1e-5)


def test_activations_stay_beside_the_convolution() -> None:
    program = packed(captured(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU6()), "1x3x8x8"), 2)
    convolution = operators(program).index("aten.conv2d.default")
    assert operators(program)[convolution + 1] in ("aten.relu6.default", "aten.hardtanh.default")


def test_two_in_a_row_and_frames_of_a_clip() -> None:
    module = nn.Sequential(nn.Conv3d(3, 8, (1, 3, 3), (1, 2, 2), (0, 1, 1)), nn.ReLU(), nn.Conv3d(8, 6, 1)).eval()
    program = captured(module, "1x3x4x16x16")
    names = [site.operator for site in sites(program)]
    both = lower(program, replace(TFLITE, forms=Forms(pixels=dict.fromkeys(names, 2))))
    assert shapes(both) == [(16, 12, 3, 2), (12, 16, 1, 1)]
    assert "convolution of 2 pixels as one (2)" in both.rewrites[-1].details
    x = torch.randn(1, 3, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        np.testing.assert_allclose(roll(both, [x])[0], module(x).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 8, 3, groups=4, padding=1),
        nn.Conv2d(4, 8, 3, dilation=2, padding=2),
        nn.Conv2d(4, pack_pixels.MOST_CHANNELS + 1, 1),
        nn.Conv2d(4, 8, 8),
    ],
    ids=["groups", "dilation", "many channels", "one pixel"],
)
def test_what_cannot_be_packed_is_no_site(module: nn.Module) -> None:
    program = captured(module, "1x4x8x8")
    assert not [site for site in sites(program) if site.fits(2)]


def test_padding_with_other_numbers_stays() -> None:
    module = nn.Sequential(nn.ConstantPad2d(1, 0.5), nn.Conv2d(3, 8, 3))
    assert not [site for site in sites(captured(module, "1x3x8x8")) if site.fits(2)]


def test_an_impossible_recipe_is_refused() -> None:
    program = captured(nn.Conv2d(3, 8, 1), "1x3x6x6")
    (site,) = sites(program)
    for forms in (Forms(pixels={site.operator: 4}), Forms(pixels={"other": 2})):
        with pytest.raises(UsageError, match="same model and picture size"):
            lower(program, replace(TFLITE, forms=forms))
    with pytest.raises(UsageError, match="The recipe names other"):
        lower(program, replace(TFLITE, forms=Forms(temporal={"other": TemporalForm.TAPS})))


def test_temporal_form_of_one_operator() -> None:
    module = nn.Sequential(
        StreamConv3d(4, 4, (3, 1, 1), groups=4, causal=True, input_shape=(1, 5, 5)),
        StreamConv3d(4, 4, (3, 1, 1), groups=4, causal=True, input_shape=(1, 5, 5)),
    )
    program = captured(module, "1x4x1x5x5@tensor")
    first, second = [n.name for n in program.exported.graph.nodes if n.target is torch.ops.aten.conv3d.default]
    plain = operators(lower(program, TFLITE))
    mixed = operators(lower(program, replace(TFLITE, forms=Forms(temporal={second: TemporalForm.TAPS}))))
    assert plain.count("aten.conv2d.default") == 2
    assert mixed.count("aten.conv2d.default") == 1
    assert first != second


def test_forms_survive_the_manifest() -> None:
    recipe = replace(TFLITE, forms=Forms(pixels={"conv3d": 2}, temporal={"conv3d_1": TemporalForm.TAPS}))
    assert recorded_recipe(Runtime.TFLITE, Precision.FP32, recipe.described()) == recipe
    with pytest.raises(ManifestError, match="malformed"):
        recorded_recipe(Runtime.TFLITE, Precision.FP32, {"forms": {"pixels": {"conv3d": "many"}}})
