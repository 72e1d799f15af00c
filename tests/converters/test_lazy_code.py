"""Code of graph modules that is written when it is wanted."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import fx, nn

from mvtool.converters.lazy_code import code_when_wanted


class Twice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x


def _to_product(module: fx.GraphModule) -> None:
    for node in module.graph.nodes:
        if node.op == "call_function":
            node.target = torch.mul
    module.recompile()


def test_a_changed_graph_is_executed_as_changed() -> None:
    value = torch.tensor([3.0])
    with code_when_wanted():
        module = fx.symbolic_trace(Twice())
        assert float(module(value)) == 6
        _to_product(module)
        assert float(module(value)) == 9
        assert float(copy.deepcopy(module)(value)) == 9


def test_code_is_written_once_after_many_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[object] = []
    original = fx.Graph.python_code

    def counted(self: fx.Graph, *values: Any, **named: Any) -> Any:
        written.append(self)
        return original(self, *values, **named)

    monkeypatch.setattr(fx.Graph, "python_code", counted)
    with code_when_wanted():
        module = fx.symbolic_trace(Twice())
        before = len(written)
        for _ in range(20):
            _to_product(module)
        assert len(written) == before
        assert "mul" in module.code
        module(torch.ones(1))
        module(torch.ones(1))
    assert len(written) <= before + 2


def test_a_module_left_behind_is_executed_as_changed() -> None:
    with code_when_wanted():
        module = fx.symbolic_trace(Twice())
        _to_product(module)
    assert float(module(torch.tensor([3.0]))) == 9
    other = fx.symbolic_trace(Twice())
    assert "add" in other.code


def test_it_is_undone_when_the_body_fails() -> None:
    recompile = fx.GraphModule.recompile
    with pytest.raises(ValueError, match="body"), code_when_wanted():
        raise ValueError("body")
    assert fx.GraphModule.recompile is recompile
    assert not hasattr(fx.GraphModule, "_code")
