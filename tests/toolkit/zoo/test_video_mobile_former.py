from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mvtool.errors import SourceError, UsageError
from mvtool.zoo import registry
from mvtool.zoo.macs import count_macs, count_parameters
from mvtool.zoo.untrained import deterministic_weights
from mvtool.zoo.video_mobile_former import Block, Head, Mobile3D, Stem, VideoMobileFormer, _plan
from mvtool.zoo.video_mobile_former_attention import DynamicReLU, Former, GlobalToLocal, LocalToGlobal, attend
from mvtool.zoo.video_mobile_former_table import VARIANTS, Variant

VARIANT = {variant.name: variant for variant in VARIANTS}
TINY = Variant("tiny", (1, 2), 8, 2.0, 32, 4, tokens=3)
# Millions of parameters, and giga operations counted as the paper does.
COUNTED = {
    "video_mobile_former_560m": (4.70, 0.549),
    "video_mobile_former_1g": (4.70, 1.415),
    "video_mobile_former_2g": (6.64, 2.574),
    "video_mobile_former_5g": (13.68, 5.598),
    "mobile3d_1g": (None, 1.279),
    "mobile3d_2g": (None, 2.375),
    "mobile3d_5g": (None, 5.217),
}
GMACS = {"560m": 0.526, "1g": 1.339, "2g": 2.448, "5g": 5.393}


def operations(model: nn.Module, resolution: int) -> float:
    """Giga multiply-adds, with two per value of a batch norm and one per value that is pooled: the paper's counting."""
    extra = 0

    def norm(_: nn.Module, __: Any, result: Tensor) -> None:
        nonlocal extra
        extra += 2 * result.numel()

    def pooled(module: nn.Module, arguments: tuple[Tensor, Tensor]) -> None:
        nonlocal extra
        extra += arguments[0].numel() * (6 if isinstance(module, Head) else 1)

    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d | nn.BatchNorm1d):
            module.register_forward_hook(norm)
        elif isinstance(module, DynamicReLU | Head):
            module.register_forward_pre_hook(pooled)
    return (count_macs(model, (1, 3, 64, resolution, resolution)) + extra) / 1e9


def on_meta(variant: Variant) -> nn.Module:
    with torch.device("meta"):
        return VideoMobileFormer(variant, 400) if variant.tokens else Mobile3D(variant, 400)


@pytest.mark.parametrize("name", COUNTED)
def test_counts(name: str) -> None:
    """Parameters to 3 digits and operations to 3 permille; the chosen structure gave these in an independent count."""
    entry = registry.get(name)
    parameters, giga = COUNTED[name]
    with torch.device("meta"):
        model = entry.build()
    assert entry.parameters == count_parameters(model)
    assert parameters is None or round(entry.parameters / 1e6, 2) == parameters
    assert operations(model, entry.resolution) == pytest.approx(giga, rel=4e-3)


@pytest.mark.parametrize("name", GMACS)
def test_macs(name: str) -> None:
    """Within half a per cent; the term of the token in `DynamicReLU` is computed once here, not once per frame."""
    entry = registry.get(f"video_mobile_former_{name}")
    with torch.device("meta"):
        model = entry.build()
    macs = count_macs(model, (1, 3, entry.frames, entry.resolution, entry.resolution)) / 1e9
    assert GMACS[name] * 0.995 < macs < GMACS[name]


@pytest.mark.parametrize(("expansion", "parameters", "giga"), [(2.25, 5.90, 2.11), (3.0, 6.64, 2.574)])
def test_2g_is_inconsistent_in_the_paper(expansion: float, parameters: float, giga: float) -> None:
    """Printed are an expansion of 2.25, 6.9 M parameters and 2.61 G operations; 3 fits the numbers."""
    with torch.device("meta"):
        model = registry.get("video_mobile_former_2g").build(expansion=expansion)
    assert round(count_parameters(model) / 1e6, 2) == parameters
    assert operations(model, 224) == pytest.approx(giga, rel=4e-3)


@pytest.mark.parametrize(
    ("tokens", "series"),
    [(0, (1.279, 1.914, 2.549, 3.184)), (6, (1.415, 2.137, 2.860, 3.582))],
    ids=["mobile3d", "vmf"],
)
def test_depth_series(tokens: int, series: tuple[float, ...]) -> None:
    """Blocks of every stage times 1 to 4. The paper prints 1.26, 1.90, 2.53, 3.17 and 1.43, 2.14, 2.85, 3.56."""
    row = replace(VARIANT["1g"], tokens=tokens)
    for times, giga in enumerate(series, 1):
        deeper = replace(row, blocks=tuple(count * times for count in row.blocks))
        assert operations(on_meta(deeper), 224) == pytest.approx(giga, rel=4e-3)


def test_token_series() -> None:
    """0.0225 G per token, as printed: 2.51, 2.56, 2.61, 2.65 for 2, 4, 6 and 8."""
    for tokens, giga in ((2, 2.484), (4, 2.529), (6, 2.574), (8, 2.619)):
        assert operations(on_meta(replace(VARIANT["2g"], tokens=tokens)), 224) == pytest.approx(giga, rel=4e-3)


@pytest.mark.parametrize(
    ("classes", "name", "millions"),
    [(600, "560m", 5.09), (600, "2g", 7.03), (600, "5g", 14.07)],
)
def test_parameters_with_600_classes(classes: int, name: str, millions: float) -> None:
    with torch.device("meta"):
        model = registry.get(f"video_mobile_former_{name}").build(num_classes=classes)
    assert round(count_parameters(model) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("name", "frames", "sizes"), [("560m", 8, (86, 43, 22, 11, 6)), ("5g", 16, (112, 56, 28, 14, 7))]
)
def test_sizes(name: str, frames: int, sizes: tuple[int, ...]) -> None:
    """Of the stem and the stages; no time is lost after the stem."""
    variant = VARIANT[name]
    with torch.device("meta"):
        model = on_meta(variant)
        assert isinstance(model, VideoMobileFormer)
        x = model.stem(torch.empty(1, 3, 64, variant.resolution, variant.resolution))
        tokens = torch.empty(1, 6, 128)
        seen = [tuple(x.shape[1:])]
        ends = [sum(variant.blocks[: stage + 1]) - 1 for stage in range(4)]
        for index, block in enumerate(model.blocks):
            x, tokens = block(x, tokens)
            if index in ends:
                seen.append(tuple(x.shape[1:]))
    widths = (variant.width, *(variant.width * 2**stage for stage in range(4)))
    assert seen == [(width, frames, size, size) for width, size in zip(widths, sizes, strict=True)]


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def by_heads(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """PyTorch's attention over (N, heads, rows, channels of a head)."""
    q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key, value))
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@torch.no_grad()
@pytest.mark.parametrize(("rows", "keys"), [(3, 50), (50, 3)])
def test_attention(rows: int, keys: int) -> None:
    query, key, value = random(2, rows, 12), random(2, keys, 12), random(2, keys, 12) + 1
    torch.testing.assert_close(attend(query, key, value, 3), by_heads(query, key, value, 3))


@torch.no_grad()
def test_bridges_and_former() -> None:
    """Against the formulas, with PyTorch's own attention and the map as rows (N, T H W, C)."""
    tokens, x = random(2, 3, 16), random(2, 8, 4, 5, 6)
    rows = x.flatten(2).transpose(1, 2)
    there = LocalToGlobal(16, 8)
    deterministic_weights(there)
    gate = 2 * functional.hardsigmoid(there.gate(tokens))
    seen = by_heads(there.query(tokens), rows, rows, 2) * gate
    torch.testing.assert_close(there(tokens, x), there.norm(tokens + there.project(seen)), rtol=1e-4, atol=1e-5)

    back = GlobalToLocal(16, 8)
    deterministic_weights(back)
    seen = by_heads(rows, back.key(tokens), back.value(tokens), 2)
    torch.testing.assert_close(back(x, tokens), seen.transpose(1, 2).reshape(x.shape), rtol=1e-4, atol=1e-5)

    former = Former(16)
    deterministic_weights(former)
    middle = former.norm(tokens + former.project(by_heads(former.query(tokens), tokens, tokens, 4)))
    wanted = former.last_norm(middle + former.narrow(functional.gelu(former.widen(middle))))
    torch.testing.assert_close(former(tokens), wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_dynamic_relu() -> None:
    """Frame by frame with one dense layer on the concatenation, as the paper writes it."""
    layer = DynamicReLU(8, 16)
    deterministic_weights(layer)
    x, token = random(2, 8, 3, 4, 5), random(2, 16)
    first = torch.cat([layer.frame.weight.flatten(1), layer.token.weight], 1)
    for t in range(3):
        u = torch.cat([x[:, :, t].mean((2, 3)), token], 1)
        hidden = functional.relu(functional.linear(u, first, layer.frame.bias))
        s = functional.hardsigmoid(functional.linear(hidden, layer.slopes.weight.flatten(1), layer.slopes.bias))
        a, b = (2 * (s[:, :8] - 0.5) + 1)[..., None, None], (2 * (s[:, 8:] - 0.5))[..., None, None]
        torch.testing.assert_close(layer(x, token)[:, :, t], torch.maximum(a * x[:, :, t], b * x[:, :, t]))


@torch.no_grad()
def test_dynamic_relu_starts_near_relu() -> None:
    """Slopes 1 and 0 where the dense layers say nothing."""
    layer = DynamicReLU(4, 8)
    for parameter in layer.slopes.parameters():
        nn.init.zeros_(parameter)
    x = random(1, 4, 2, 3, 3)
    torch.testing.assert_close(layer(x, random(1, 8)), functional.relu(x))


def tiny(tokens: int = 3) -> nn.Module:
    variant = replace(TINY, tokens=tokens)
    model: nn.Module = VideoMobileFormer(variant, 5) if tokens else Mobile3D(variant, 5)
    return deterministic_weights(model).eval()


@torch.no_grad()
@pytest.mark.parametrize("tokens", [0, 3])
def test_clips_of_a_batch_do_not_mix(tokens: int) -> None:
    model, clip = tiny(tokens), random(2, 3, 8, 34, 37)
    both = model(clip)
    assert (both[0] - both[1]).abs().max() > 1e-4 * both.abs().max()
    torch.testing.assert_close(both, torch.cat([model(clip[:1]), model(clip[1:])]), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_tokens_see_the_whole_clip() -> None:
    """A change of the last frame reaches the map of the first one through the tokens, and without them does not."""
    block = Block(8, 8, 16, 1).eval()
    deterministic_weights(block)
    x, tokens = random(1, 8, 12, 6, 6), random(1, 3, 128)
    changed = x.clone()
    changed[:, :, -1] += 1.0
    assert not torch.equal(block(x, tokens)[0][:, :, 0], block(changed, tokens)[0][:, :, 0])
    assert torch.equal(block.mobile(x, tokens[:, 0])[:, :, 0], block.mobile(changed, tokens[:, 0])[:, :, 0])


def test_strided_blocks_have_no_shortcut() -> None:
    plans = list(_plan(VARIANT["5g"]))
    assert plans[:3] == [(24, 24, 72, 2), (24, 48, 144, 2), (48, 48, 144, 1)]
    assert [Block(*plan).mobile.skip for plan in plans[:3]] == [False, False, True]


@torch.no_grad()
def test_stem_takes_space_before_time() -> None:
    stem = Stem(8, 4)
    deterministic_weights(stem).eval()
    x = random(1, 3, 8, 9, 10)
    frames = torch.stack(
        [functional.conv2d(x[:, :, t], stem.space.weight[:, :, 0], stride=2, padding=1) for t in range(8)], 2
    )
    wanted = functional.conv3d(frames, stem.time.conv.weight, stride=(4, 1, 1), padding=(2, 0, 0), groups=8)
    torch.testing.assert_close(stem(x), functional.relu(stem.time.norm(wanted)))
    assert stem(x).shape == (1, 8, 2, 5, 5)


def test_training_reaches_every_weight() -> None:
    """Dropout acts, and gradients reach every parameter, the tokens among them."""
    model, clip = tiny(), random(3, 3, 8, 34, 37)
    assert isinstance(model, VideoMobileFormer)
    torch.manual_seed(0)
    model.train()
    assert not torch.equal(model(clip), model(clip))
    model.head.dropout.p = 0.0
    model(clip).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_what_it_cannot_take_is_refused() -> None:
    with pytest.raises(SourceError, match="takes multiples of 8, 8 or more; published is 64"):
        registry.get("video_mobile_former_560m").build(frames=12)
    with pytest.raises(UsageError, match=r"shape \(3, 8, 32, 32\), expected .* = \(any, 3, any, any, any\)"):
        tiny()(torch.zeros(3, 8, 32, 32))
    with pytest.raises(UsageError, match="got a video of shape"):
        tiny(0)(torch.zeros(1, 1, 8, 32, 32))
