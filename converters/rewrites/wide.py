"""Computing a graph in float64 that was written for float32."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate


def in_float64(module: nn.Module) -> nn.Module:
    """A copy of `module` whose floating-point constants are float64, and whose graphs make float64 where they made float32."""
    made = copy.deepcopy(module).double()
    for part in made.modules():
        if isinstance(part, fx.GraphModule):
            for node in part.graph.nodes:
                node.args, node.kwargs = map_aggregate(node.args, _widened), map_aggregate(node.kwargs, _widened)
            part.recompile()
    return made


def widened(values: list[Tensor]) -> list[Tensor]:
    """Floating-point tensors in float64, others as they are."""
    return [value.double() if value.is_floating_point() else value for value in values]


@contextmanager
def float64_by_default() -> Iterator[None]:
    """Operators that name no type make float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _widened(argument: Any) -> Any:
    return torch.float64 if argument is torch.float32 else argument
