from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch

from mvtool.converters import source
from mvtool.errors import SourceError, UsageError
from mvtool.zoo import registry
from mvtool.zoo.macs import count_macs, count_parameters
from mvtool.zoo.untrained import deterministic_weights
from mvtool.zoo.x3d import X3D, Block, build_expanded
from mvtool.zoo.x3d_config import X3DGammas, expanded

STEM_AND_WIDTHS = {
    "x3d_m": (24, (24, 48, 96, 192), (54, 108, 216, 432), (3, 5, 11, 7), (8, 8, 16, 32)),
    "x3d_l": (24, (24, 48, 96, 192), (54, 108, 216, 432), (5, 10, 25, 15), (8, 8, 16, 32)),
    "x3d_xl": (32, (32, 72, 136, 280), (72, 162, 306, 630), (5, 10, 25, 15), (8, 16, 24, 40)),
    "x3d_xxl": (32, (32, 72, 136, 280), (72, 162, 306, 630), (11, 21, 51, 31), (8, 16, 24, 40)),
}
PARAMETERS = {
    # Name: SlowFast form, PyTorchVideo form.
    "x3d_xs": (3_794_322, 3_794_274),
    "x3d_s": (3_794_322, 3_794_274),
    "x3d_m": (3_794_322, 3_794_274),
    "x3d_l": (6_153_432, 6_153_384),
    "x3d_xl": (11_095_904, 11_095_840),
    "x3d_xxl": (20_474_404, 20_474_340),
}
MACS = {
    # Name: at the crop, in 1e9.
    "x2d": 0.02066,
    "x3d_xs": 0.605,
    "x3d_s": 1.963,
    "x3d_m": 4.732,
    "x3d_l": 18.368,
    "x3d_xl": 35.838,
    "x3d_xxl": 143.54,
}
MACS_LARGE = {"x3d_m": 6.181, "x3d_l": 24.764, "x3d_xl": 48.407, "x3d_xxl": 194.06}
CLASSES_600 = {"x3d_xs": 4_204_122, "x3d_l": 6_563_232, "x3d_xl": 11_505_704}
# A tenth of the blocks and pixels of the named models, with every kind of layer.
TINY: dict[str, Any] = {"gamma_t": 3, "gamma_s": 0.58, "gamma_w": 1.0, "gamma_b": 1.5}


def on_meta(name: str, **options: Any) -> torch.nn.Module:
    with torch.device("meta"):
        return registry.get(name).build(**options)


@pytest.mark.parametrize("name", STEM_AND_WIDTHS)
def test_factors_give_the_published_widths_and_depths(name: str) -> None:
    model = on_meta(name)
    assert isinstance(model, X3D)
    config = model.config
    stem, widths, inner, blocks, hidden = STEM_AND_WIDTHS[name]
    assert config.stem == stem
    assert tuple(stage.width for stage in config.stages) == widths
    assert tuple(stage.inner for stage in config.stages) == inner
    assert tuple(stage.blocks for stage in config.stages) == blocks
    assert tuple(stage.hidden for stage in config.stages) == hidden


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    """Exact counts of both released codes."""
    counts = (count_parameters(on_meta(name)), count_parameters(on_meta(name, res2_shortcut_norm=False)))
    assert counts == PARAMETERS[name]
    assert registry.get(name).parameters == counts[0]


@pytest.mark.parametrize("name", CLASSES_600)
def test_parameters_with_600_classes(name: str) -> None:
    assert count_parameters(on_meta(name, num_classes=600)) == CLASSES_600[name]


def test_parameters_of_x2d() -> None:
    """No code was released; the entry says what is built."""
    assert count_parameters(on_meta("x2d")) == registry.get("x2d").parameters


@pytest.mark.parametrize(("name", "wanted"), MACS.items())
def test_macs(name: str, wanted: float) -> None:
    """At the crop of the entry; the digits given here are all checked, the paper's to 1 %."""
    entry = registry.get(name)
    macs = count_macs(on_meta(name), (1, 3, entry.frames, entry.resolution, entry.resolution))
    assert macs / 1e9 == pytest.approx(wanted, rel=5e-4)
    assert entry.reported is not None
    assert entry.reported.macs == pytest.approx(macs, rel=1e-2)


@pytest.mark.parametrize(("name", "wanted"), MACS_LARGE.items())
def test_macs_at_the_larger_crop(name: str, wanted: float) -> None:
    """Uncropped width and height, as in the paper's 30-view evaluation."""
    entry = registry.get(name)
    size = entry.resize_short_side
    macs = count_macs(on_meta(name, resolution=size), (1, 3, entry.frames, size, size))
    assert macs / 1e9 == pytest.approx(wanted, rel=5e-4)


def test_entries_say_how_to_sample_the_video() -> None:
    """Frames and frame stride at 30 frames per second, crop, shorter side before it."""
    rows = {
        entry.name: (entry.frames, 30 / entry.frame_rate, entry.resolution, entry.resize_short_side)
        for entry in registry.entries()
        if entry.family == "x3d"
    }
    assert rows == {
        "x2d": (1, 1, 112, 128),
        "x3d_xs": (4, 12, 160, 182),
        "x3d_s": (13, 6, 160, 182),
        "x3d_m": (16, 5, 224, 256),
        "x3d_l": (16, 5, 312, 356),
        "x3d_xl": (16, 5, 312, 356),
        "x3d_xxl": (32, 2.5, 312, 356),
    }


def test_own_factors_from_the_command_line() -> None:
    """The example of the factory's docstring."""
    text = re.search(r"--kwargs '(.*)'", build_expanded.__doc__ or "")
    assert text is not None
    model = source.load("mvtool.zoo.x3d:build_expanded", arguments=json.loads(text[1])).module
    assert isinstance(model, X3D)
    assert (model.config.frames, model.config.resolution) == (13, 160)
    assert [stage.blocks for stage in model.config.stages] == [5, 9, 22, 14]


@torch.no_grad()
def test_sizes_of_the_stages() -> None:
    """80, 40, 20, 10, 5 pixels; no stride in time."""
    model = on_meta("x3d_s")
    assert isinstance(model, X3D)
    x = model.stem(torch.empty(1, 3, 13, 160, 160, device="meta"))
    sizes = [tuple(x.shape[2:])]
    for stage in model.stages:
        x = stage(x)
        sizes.append(tuple(x.shape[2:]))
    assert sizes == [(13, n, n) for n in (80, 40, 20, 10, 5)]


def test_square_root_of_two_gives_the_published_crop() -> None:
    assert [expanded(X3DGammas(s=2**power)).resolution for power in (0, 0.5, 1)] == [112, 160, 224]


@torch.no_grad()
def test_head_pools_agree_at_the_training_crop_only() -> None:
    """64 pixels give one position of 2x2, 96 give 2x2 positions."""
    pools = [deterministic_weights(build_expanded(**TINY, head_pool=pool)) for pool in ("global", "positions")]
    clip = torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    one, other = (model(clip) for model in pools)
    torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)
    large = torch.rand(2, 3, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    one, other = (model(large) for model in pools)
    assert float((other - one).abs().max()) > 1e-4 * float(one.abs().max())


@torch.no_grad()
def test_starts_training_as_published() -> None:
    """Every branch starts as nothing, so the depthwise kernels do not matter yet."""
    model = build_expanded(**TINY)
    clip = torch.rand(1, 3, 3, 64, 64)
    before = model(clip)
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for block in blocks:
        block.depthwise.conv.weight.add_(1.0)
    assert len(blocks) == 11
    assert torch.equal(model(clip), before)
    assert float(before.abs().max()) > 0.0


def test_trains() -> None:
    """Every parameter of a filled model gets a gradient, dropout included."""
    model = deterministic_weights(build_expanded(**TINY, num_classes=5)).train()
    model(torch.rand(2, 3, 3, 64, 64)).logsumexp(1).sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0.0 for p in model.parameters())


@pytest.mark.parametrize("shape", [(1, 4, 3, 64, 64), (3, 3, 64, 64)])
def test_refuses_what_is_no_clip(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"X3D got a video of shape .*, expected .* = \(any, 3, any, any, any\)"):
        build_expanded(**TINY)(torch.zeros(shape))


def test_refuses_pictures_below_the_positions() -> None:
    with pytest.raises(SourceError, match="at least the training crop, 64 pixels, got 48"):
        build_expanded(**TINY, head_pool="positions", resolution=48)
    with pytest.raises(UsageError, match=r"positions of its head span \(3, 64, 64\)"):
        build_expanded(**TINY, head_pool="positions")(torch.zeros(1, 3, 2, 64, 64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_pool": "median"}, "'median' is no pooling of the head; known are global, positions"),
        ({"gamma_d": 0.0}, "gamma_d is 0.0"),
        ({"gamma_b": 0.01}, "gamma_b is 0.01"),
    ],
)
def test_refuses_arguments_without_meaning(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        build_expanded(**options)


@pytest.mark.parametrize(
    ("options", "message"), [({"resolution": 16}, "32 or more pixels"), ({"frames": 0}, "takes 1 or more")]
)
def test_refuses_sizes_outside_the_rule(options: dict[str, Any], message: str) -> None:
    entry = registry.get("x3d_xs")
    with pytest.raises(SourceError, match=message):
        entry.check(options.get("resolution", entry.resolution), options.get("frames", entry.frames))
