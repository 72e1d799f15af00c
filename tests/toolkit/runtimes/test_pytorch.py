"""Graphs that compute once what does not change, or is asked for several times."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from mvtool.runtimes.pytorch import PURE, fold_constants, merge_equals


class Scaled(nn.Module):
    """Int8 weights as real numbers, read by two products; one value that is computed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("stored", torch.tensor([[1, -2], [3, 4]], dtype=torch.int8))

    def forward(self, x: torch.Tensor) -> Any:
        weight = torch.ops.aten.mul.Tensor(torch.ops.aten._to_copy.default(self.stored, dtype=torch.float32), 0.1)
        first = torch.ops.aten.mm.default(torch.ops.aten.relu.default(x), weight)
        second = torch.ops.aten.mm.default(torch.ops.aten.relu.default(x), weight)
        return torch.ops.aten.add.Tensor(first, torch.ops.aten.mul.Tensor(second, 2.0))


def graph_of(value: torch.Tensor) -> Any:
    module = torch.export.export(Scaled(), (value,)).module(check_guards=False)
    module.graph.eliminate_dead_code()
    return module


def names(module: fx.GraphModule) -> list[str]:
    return [node.target.__name__ for node in module.graph.nodes if node.op == "call_function"]


def test_weights_are_computed_once() -> None:
    value = torch.tensor([[0.3, -0.7], [2.0, 1.0]])
    module = graph_of(value)
    before = module(value)
    assert fold_constants(module) == 2
    assert names(module) == ["relu.default", "mm.default", "relu.default", "mm.default", "mul.Tensor", "add.Tensor"]
    assert torch.equal(module(value), before)


def test_equal_operators_become_one() -> None:
    value = torch.tensor([[0.3, -0.7], [2.0, 1.0]])
    module = graph_of(value)
    before = module(value)
    assert merge_equals(module) == 2
    assert names(module).count("relu.default") == names(module).count("mm.default") == 1
    assert torch.equal(module(value), before)


def test_equal_operators_on_other_numbers_stay_two() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            double, triple = torch.ops.aten.mul.Tensor(x, 2.0), torch.ops.aten.mul.Tensor(x, 3.0)
            return torch.ops.aten.sub.Tensor(triple, double)

    module = fx.symbolic_trace(Two())
    assert merge_equals(module) == 0
    assert torch.equal(module(torch.ones(1)), torch.ones(1))


def test_functions_with_a_memory_run_at_every_call() -> None:
    calls: list[Any] = []

    def noted(value: torch.Tensor) -> torch.Tensor:
        calls.append(value)
        return value * 2

    def pure(value: torch.Tensor) -> torch.Tensor:
        return value * 2

    setattr(pure, PURE, True)

    def made(function: Any) -> fx.GraphModule:
        root = nn.Module()
        root.register_buffer("weight", torch.ones(2))
        graph = fx.Graph()
        value, weight = graph.placeholder("x"), graph.get_attr("weight")
        graph.output(graph.call_function(torch.add, (value, graph.call_function(function, (weight,)))))
        return fx.GraphModule(root, graph)

    kept, folded = made(noted), made(pure)
    assert (fold_constants(kept), fold_constants(folded)) == (0, 1)
    kept(torch.zeros(2))
    kept(torch.zeros(2))
    assert len(calls) == 2
    assert torch.equal(folded(torch.zeros(2)), torch.full((2,), 2.0))


def test_random_and_writing_operators_are_not_folded() -> None:
    class Random(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.ones(100))

        def forward(self, x: torch.Tensor) -> Any:
            noise = torch.ops.aten.rand_like.default(self.weight)
            counted = torch.ops.aten.add_.Tensor(self.weight, 1.0)
            return torch.ops.aten.add.Tensor(torch.ops.aten.add.Tensor(x, noise), counted)

    assert fold_constants(fx.symbolic_trace(Random())) == 0
