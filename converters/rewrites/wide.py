"""Computing a graph in float64 that was written for float32, and rewriting it so."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree


def in_float64(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of `module` whose floating-point constants are float64, and whose graph makes float64 where it made float32.

    What the nodes say of their values (`meta["val"]`) is float64 too.
    """
    made = copy.deepcopy(module).double()
    for node in made.graph.nodes:
        node.args, node.kwargs = map_aggregate(node.args, _wide_type), map_aggregate(node.kwargs, _wide_type)
        node.meta = {**node.meta, "val": pytree.tree_map(widened, node.meta.get("val"))}
    made.recompile()
    return made


def widened(value: Any) -> Any:
    """A floating-point tensor in float64, anything else as it is."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


@contextmanager
def by_default(real: torch.dtype) -> Iterator[None]:
    """Operators that name no type make `real`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(real)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _wide_type(argument: Any) -> Any:
    return torch.float64 if argument is torch.float32 else argument
