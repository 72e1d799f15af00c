"""Matrix products of computed tensors, as attention has them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from mvtool.converters.rewrites.rank import RankLowering, lowers
from mvtool.ports import Runtime

aten = torch.ops.aten


@lowers(aten.matmul.default)
def matmul(lowering: RankLowering, node: fx.Node, one: Any, other: Any) -> Any:
    """A batch of products for ExecuTorch, which writes `matmul` of three axes and more with copies outside its delegate."""
    known = isinstance(one, Tensor) and isinstance(other, Tensor) and one.dim() == other.dim() >= 3
    if lowering.recipe.target is not Runtime.EXECUTORCH or not known or one.shape[:-2] != other.shape[:-2]:
        return NotImplemented
    lowering.did("matmul as a batch of products")
    product = torch.bmm(one.reshape(-1, *one.shape[-2:]), other.reshape(-1, *other.shape[-2:]))
    return product.reshape(*one.shape[:-1], other.shape[-1])
