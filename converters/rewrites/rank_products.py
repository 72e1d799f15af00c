"""Matrix products: of computed tensors, as attention has them, and dense layers of video tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from mvtool.converters.rewrites.folded import Folded
from mvtool.converters.rewrites.rank import Constant, RankLowering, lowers
from mvtool.ports import Runtime

aten = torch.ops.aten

SOFTMAXES = (aten.softmax.int, aten._softmax.default)
NEVER = -1e4
"""Added to a score, it leaves a weight of exactly 0 in float32 and in float16 as long as the scores of a row lie within thousands
of each other, and it is finite in both."""


@lowers(aten.matmul.default)
def matmul(lowering: RankLowering, node: fx.Node, one: Any, other: Any) -> Any:
    """A batch of products.

    ExecuTorch writes `matmul` of three axes and more with copies outside its delegate, and heads on a fourth axis hide
    from the policy of int8 that the operator works on rows.
    """
    known = isinstance(one, Tensor) and isinstance(other, Tensor) and one.dim() == other.dim() >= 3
    if not known or one.shape[:-2] != other.shape[:-2]:
        return NotImplemented
    if lowering.recipe.target is not Runtime.EXECUTORCH and one.dim() == 3:
        return NotImplemented
    lowering.did("matmul as a batch of products")
    product = torch.bmm(_batched(one), _batched(other))
    return product.reshape(*one.shape[:-1], other.shape[-1])


@lowers(aten.linear.default)
def linear(lowering: RankLowering, node: fx.Node, value: Any, weight: Any, bias: Any = None) -> Any:
    """A dense layer of the last axis of a video tensor, as networks with channels last have it."""
    if not isinstance(value, Folded) or value.dropped == 4:
        return NotImplemented
    order = (*sorted(axis for axis in value.order if axis != 4), 4)
    result = torch.nn.functional.linear(value.as_order(order), *lowering.plain((weight, bias)))  # type: ignore[arg-type]
    return Folded(result, order)  # type: ignore[arg-type]


@lowers(aten.scaled_dot_product_attention.default)
def attention(
    lowering: RankLowering,
    node: fx.Node,
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Two batches of products with a softmax between, for which all runtimes have kernels.

    PyTorch's own decomposition guards rows that a mask hides whole, with comparisons that no delegate takes; such masks,
    masks that the graph computes, and shared heads keep the operator.
    """
    queries, keys, values = lowering.plain((query, key, value))
    known = all(isinstance(tensor, Tensor) and tensor.dim() >= 3 for tensor in (queries, keys, values))
    if not known or dropout or enable_gqa or not queries.shape[:-2] == keys.shape[:-2] == values.shape[:-2]:
        return NotImplemented
    shape = (*queries.shape[:-1], int(keys.shape[-2]))
    shown = _shown(lowering, node, lambda: _causal(shape) if is_causal else _for_batch(_added(mask), shape))
    if shown is NotImplemented:
        return NotImplemented
    lowering.did("attention as products and a softmax")
    factor = 1.0 / math.sqrt(queries.shape[-1]) if scale is None else scale
    scores = torch.bmm(_batched(queries) * factor, _batched(keys).transpose(1, 2))
    if shown is not None:
        scores = scores + shown
    seen = torch.bmm(torch.softmax(scores, -1), _batched(values))
    return seen.reshape(*queries.shape[:-1], values.shape[-1])


@lowers(aten.masked_fill.Scalar)
def hidden_scores(lowering: RankLowering, node: fx.Node, scores: Any, mask: Any, value: float) -> Any:
    """Scores that a constant mask hides from a softmax, as a sum: int8 has no infinity, and no delegate takes the choice."""
    if not isinstance(scores, Tensor) or not isinstance(mask, Constant) or value > NEVER or not _of_softmax(node):
        return NotImplemented
    shown = _shown(lowering, node, lambda: _hidden(mask.value))
    return NotImplemented if shown is NotImplemented else scores + shown


@lowers(aten.add.Tensor)
def added_scores(lowering: RankLowering, node: fx.Node, scores: Any, mask: Any, **kwargs: Any) -> Any:
    """A constant mask with infinities, added to scores, with finite numbers instead."""
    if not isinstance(scores, Tensor) or not isinstance(mask, Constant) or kwargs or not _of_softmax(node):
        return NotImplemented
    shown = _shown(lowering, node, lambda: _added(mask))
    return NotImplemented if shown is NotImplemented else scores + shown


@lowers(aten.baddbmm.default)
def sum_and_products(
    lowering: RankLowering, node: fx.Node, summand: Any, one: Any, other: Any, beta: float = 1.0, alpha: float = 1.0
) -> Any:
    """A product and a sum; attention adds its mask so."""
    left, right = lowering.plain((one, other))
    shown = _shown(lowering, node, lambda: _added(summand)) if _of_softmax(node) else NotImplemented
    added = lowering.plain(summand) if shown is NotImplemented else shown
    lowering.did("sum and product apart")
    product = torch.bmm(left, right)
    return (product if alpha == 1 else product * alpha) + (added if beta == 1 else added * beta)


def _of_softmax(node: fx.Node) -> bool:
    return bool(node.users) and all(user.target in SOFTMAXES for user in node.users)


def _batched(tensor: Tensor) -> Tensor:
    """(..., rows, values) to (batch, rows, values)."""
    return tensor.reshape(-1, *tensor.shape[-2:])


def _shown(lowering: RankLowering, node: fx.Node, make: Callable[[], Any]) -> Any:
    """What `make` returns, made once and held: tensor, None or NotImplemented."""
    return lowering.plain(lowering.computed(node, make))


def _causal(shape: tuple[int, ...]) -> Tensor:
    """What hides the keys behind each query, (queries, keys)."""
    return torch.full(shape[-2:], NEVER).triu(1)


def _for_batch(added: Any, shape: tuple[int, ...]) -> Any:
    """A mask of scores of `shape`, (..., queries, keys), for scores (batch, queries, keys)."""
    if not isinstance(added, Tensor) or added.dim() < 3:
        return added
    return _batched(added if all(size == 1 for size in added.shape[:-2]) else added.expand(shape))


def _hidden(mask: Tensor) -> Any:
    """What is added to scores where `mask` is true; NotImplemented if a row is hidden whole, which has no weights at all."""
    return NotImplemented if bool(mask.all(-1).any()) else torch.where(mask, NEVER, 0.0)


def _added(mask: Any) -> Any:
    """What is added to scores, of a constant that is true where a query sees a key, or a number to add.

    Returns:
        Finite numbers; None for no mask; NotImplemented for one that the graph computes or that hides a row whole.
    """
    if mask is None:
        return None
    if not isinstance(mask, Constant):
        return NotImplemented
    if mask.value.dtype == torch.bool:
        return _hidden(~mask.value)
    return NotImplemented if bool((mask.value <= NEVER).all(-1).any()) else mask.value.clamp(min=NEVER)
