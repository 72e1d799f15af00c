"""Averages that a module keeps are recognised by the arithmetic of their update, and stay float in int8 artifacts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mvtool.converters.capture import capture
from mvtool.converters.inputs import InputSpec
from mvtool.converters.lowering import lower
from mvtool.converters.recipe import recipe_for
from mvtool.ports import Precision, Runtime, StateForm
from mvtool.program import ModelInfo, StreamProgram
from mvtool.quantization.calibration import Range
from mvtool.quantization.plan import make_plan, port_nodes, result_nodes
from mvtool.quantization.policy import int8_states
from mvtool.quantization.pt2e_open import open_graph

pytestmark = pytest.mark.filterwarnings("ignore")
SIZE = 8


class Memory(nn.Module):
    """Features against a memory `m` that `update` renews."""

    m: Tensor
    n: Tensor

    def __init__(self, update: Callable[[Memory, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.update = update
        self.features = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.gate = nn.Conv2d(4, 4, 1)
        self.rate = nn.Parameter(torch.tensor(0.02))
        self.head = nn.Linear(4, 3)
        self.register_buffer("m", torch.zeros(1, 4, SIZE // 2, SIZE // 2))
        self.register_buffer("n", torch.zeros(1))

    def forward(self, frame: Tensor) -> Tensor:
        x = self.features(frame)
        self.n.add_(1.0)
        difference = x - self.m
        self.m.copy_(self.update(self, x))
        result: Tensor = self.head((difference + 0.001 * self.n).relu().mean((2, 3)))
        return result


SLOW: dict[str, Callable[[Memory, Tensor], Tensor]] = {
    "moves towards the input": lambda s, x: s.m + 0.02 * (x - s.m),
    "weighted sum": lambda s, x: 0.98 * s.m + 0.02 * x,
    "learned rate": lambda s, x: (1.0 - s.rate) * s.m + s.rate * x,
    "lerp": lambda s, x: torch.lerp(s.m, x, 0.02),
    "alpha": lambda s, x: torch.add(s.m, x - s.m, alpha=0.02),
    "mean of all frames": lambda s, x: s.m + (x - s.m) / s.n,
    "sum": lambda s, x: s.m + x,
    "fading maximum": lambda s, x: torch.maximum(0.99 * s.m, x),
    "divided": lambda s, x: (49.0 * s.m + x) / 50.0,
}
FAST: dict[str, Callable[[Memory, Tensor], Tensor]] = {
    "half": lambda s, x: 0.5 * s.m + 0.5 * x,
    "gated by the input": lambda s, x: torch.sigmoid(s.gate(x)) * s.m + x,
    "convolved": lambda s, x: s.gate(s.m) + x,
    "last": lambda s, x: x * 1.0,
    "squared": lambda s, x: s.m * s.m + x,
}


def captured(update: Callable[[Memory, Tensor], Tensor]) -> StreamProgram:
    return capture(Memory(update).eval(), [InputSpec("frame", (1, 3, SIZE, SIZE))], ModelInfo("memory"))


@pytest.mark.parametrize("name", [*SLOW, *FAST])
def test_averages_are_recognised(name: str) -> None:
    forms = {s.logical.name: s.form for s in captured({**SLOW, **FAST}[name]).states}
    assert forms["n"] is StateForm.COUNTER
    assert forms["m"] is (StateForm.MEAN if name in SLOW else StateForm.OPAQUE)


def test_the_manifest_says_how_much_an_average_keeps() -> None:
    meanings = {s.logical.name: s.logical.meaning for s in captured(SLOW["lerp"]).states}
    assert meanings["m"] == "a running sum or average that keeps 0.98 of its value in a step"


def test_a_deep_network_before_the_average_and_before_a_gate() -> None:
    class Deep(nn.Module):
        m: Tensor
        g: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("m", torch.zeros(1, 4))
            self.register_buffer("g", torch.zeros(1, 4))

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(600):
                x = torch.tanh(x) * 1.01
            self.m.add_(0.02 * (x - self.m))
            self.g.copy_(torch.sigmoid(x) * self.g + x)
            return self.m + self.g

    states = capture(Deep().eval(), [InputSpec("x", (1, 4))], ModelInfo("deep")).states
    assert {s.logical.name: s.form for s in states} == {"m": StateForm.MEAN, "g": StateForm.OPAQUE}


@pytest.mark.parametrize("target", list(Runtime))
def test_the_update_of_an_average_computes_in_float(target: Runtime) -> None:
    program = lower(captured(SLOW["weighted sum"]), recipe_for(target, Precision.INT8))
    module = open_graph(program)
    ranges = {node.name: Range(-1.0, 1.0) for node in module.graph.nodes}
    plan = make_plan(program, module, ranges)
    names = {s.logical.name: number for number, s in enumerate(program.states)}
    result = result_nodes(module.graph)[len(program.outputs) + names["m"]]
    place = port_nodes(module.graph)[len(program.inputs) + names["m"]]
    assert {result.name, place.name}.isdisjoint(plan.stored)
    assert "m" not in int8_states(program)
    opaque = replace_form(program, StateForm.OPAQUE)
    assert {result.name, place.name} <= make_plan(opaque, module, ranges).stored.keys()


def replace_form(program: StreamProgram, form: StateForm) -> StreamProgram:
    return program.replace(states=tuple(replace(s, form=form) if s.logical.name == "m" else s for s in program.states))
