"""Attention in the forms that networks write it in becomes products, sums and a softmax, in every runtime's graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from lowered import check, operators
from rewrite_models import randomise
from torch import Tensor, nn

from mvtool.converters.recipe import recipe_for
from mvtool.ports import Precision, Runtime

pytestmark = pytest.mark.filterwarnings("ignore")

HEADS, WIDTH, ROWS = 2, 8, 12
SHAPE = "1x8x3x2x2"
KEPT = ("scaled_dot_product", "masked_fill", "baddbmm", "unbind", "where", "matmul")
Weigh = Callable[[Tensor, Tensor, Tensor], Tensor]


class Attention(nn.Module):
    """Self-attention over all positions of a clip, as image transformers write it: query, key and value in one layer."""

    mask: Tensor
    hidden: Tensor

    def __init__(self, weigh: Callable[[Attention], Weigh]) -> None:
        super().__init__()
        self.packed, self.weigh = nn.Linear(WIDTH, 3 * WIDTH), weigh(self)
        self.register_buffer("mask", torch.ones(ROWS, ROWS).tril().bool())
        self.register_buffer("hidden", torch.full((ROWS, ROWS), float("-inf")).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        packed = self.packed(rows).reshape(1, ROWS, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        seen = self.weigh(*packed.unbind(0))
        return seen.transpose(1, 2).reshape(1, ROWS, WIDTH)


def fused(is_causal: bool = False, scale: float | None = None) -> Callable[[Attention], Weigh]:
    return lambda module: lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale)


def masked(name: str) -> Callable[[Attention], Weigh]:
    return lambda module: lambda q, k, v: F.scaled_dot_product_attention(q, k, v, getattr(module, name))


def of_each_head(module: Attention) -> Weigh:
    """A float mask of another size for every head."""
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.stack([module.hidden, 0.5 * ~module.mask]))


def of_all_heads(module: Attention) -> Weigh:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, module.mask[None, None])


def of_the_keys(module: Attention) -> Weigh:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, module.hidden[3:4])


def filled(module: Attention) -> Weigh:
    return lambda q, k, v: (q * 0.5 @ k.transpose(-2, -1)).masked_fill(~module.mask, -torch.inf).softmax(-1) @ v


def added(module: Attention) -> Weigh:
    return lambda q, k, v: (0.5 * (q @ k.transpose(-2, -1)) + module.hidden).softmax(-1) @ v


class Layers(nn.Module):
    """PyTorch's own modules, with and without weights among the results."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, batch_first=True)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(ROWS))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.encoder(x.flatten(2).transpose(1, 2)).transpose(0, 1)
        seen, weights = self.attention(rows, rows, rows, attn_mask=self.mask)
        return torch.cat([seen.flatten(), weights.flatten()])


FORMS: dict[str, nn.Module] = {
    "fused": Attention(fused()),
    "fused, causal": Attention(fused(is_causal=True)),
    "fused, own scale": Attention(fused(scale=0.1)),
    "fused, true where seen": Attention(masked("mask")),
    "fused, infinities": Attention(masked("hidden")),
    "fused, a mask per head": Attention(of_each_head),
    "fused, a mask for all heads": Attention(of_all_heads),
    "fused, keys that nobody sees": Attention(of_the_keys),
    "filled": Attention(filled),
    "added": Attention(added),
    "layers": Layers(),
}


@pytest.mark.parametrize("target", list(Runtime))
@pytest.mark.parametrize("name", FORMS)
def test_attention_keeps_its_value(name: str, target: Runtime) -> None:
    program = check(randomise(FORMS[name]).eval(), SHAPE, recipe_for(target, Precision.INT8))
    assert not [operator for operator in operators(program) if any(kept in operator for kept in KEPT)]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in program.exported.state_dict.values())


class Blind(nn.Module):
    """The first query sees no key: it has no weights, and PyTorch's answer is 0."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(ROWS, ROWS).tril(-1).bool())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        return F.scaled_dot_product_attention(rows, rows, rows, self.mask)


class Computed(nn.Module):
    """Keys that are hidden by what they are."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(2).transpose(1, 2)
        return F.scaled_dot_product_attention(rows, rows, rows, (rows.mean(-1) > 0).unsqueeze(1))


@pytest.mark.parametrize("target", list(Runtime))
@pytest.mark.parametrize("module", [Blind(), Computed()], ids=["a blind query", "a computed mask"])
def test_masks_that_have_no_finite_form_keep_the_operator(module: nn.Module, target: Runtime) -> None:
    program = check(module, SHAPE, recipe_for(target, Precision.FP32))
    assert "aten.scaled_dot_product_attention.default" in operators(program)


class Marked(nn.Module):
    """Large negative results, which no softmax reads."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.arange(8) < 3)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3, 4)).masked_fill(self.mask, -1e6)


def test_what_no_softmax_reads_stays_as_large() -> None:
    """Only a softmax cannot tell one large negative number from another."""
    check(Marked(), SHAPE, recipe_for(Runtime.EXECUTORCH, Precision.FP32))
