"""Float16 in the simulation of int8 Core ML artifacts, on a stream whose clock stays in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx

from mvtool.converters import source
from mvtool.converters.capture import capture
from mvtool.converters.lowering import lower
from mvtool.converters.recipe import recipe_for
from mvtool.ports import Precision, Runtime, StateForm
from mvtool.program import StreamProgram
from mvtool.verification import half

FRAMES = 3000
"""On the clock: the angles of the position are large then."""


@pytest.fixture(scope="module")
def program() -> StreamProgram:
    loaded = source.load("movinet_a3_stream", arguments={"resolution": 32})
    captured = capture(loaded.module, loaded.inputs, loaded.info)
    return lower(captured, recipe_for(Runtime.COREML, Precision.INT8))


class Recorder(fx.Interpreter):
    """Runs a graph module and keeps every tensor."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.seen[n.name] = result.clone()
        return result


def inputs_of(program: StreamProgram) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    values = [torch.rand(port.shape, generator=generator) for port in program.inputs]
    for state in program.states:
        value = torch.rand(state.input.shape, generator=generator)
        values.append(torch.full_like(value, FRAMES) if state.form is StateForm.COUNTER else value)
    return values


def test_the_clock_and_what_follows_from_it_alone_stay_in_float32(program: StreamProgram) -> None:
    module: Any = program.exported.module()
    before, after = Recorder(program.exported.module()), Recorder(module)
    exact, moved = half._exact_nodes(program, module.graph), set[Any]()
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node in module.graph.nodes:
        if node in placeholders[: len(program.inputs)] or moved.intersection(node.all_input_nodes):
            moved.add(node)
    names = [node.name for node in exact - moved if node.op == "call_function"]
    assert len(names) > 20
    half.half_precision(program)(module)
    values = inputs_of(program)
    with torch.no_grad():
        before.run(*values)
        after.run(*values)
    for name in names:
        assert torch.equal(after.seen[name], before.seen[name]), name


def test_what_computes_in_float16_takes_its_operands_in_float16(program: StreamProgram) -> None:
    module: Any = program.exported.module()
    recorder = Recorder(module)
    exact = half._exact_nodes(program, module.graph)
    halves = [
        node for node in module.graph.nodes if half._operator(node) in ("add", "mul", "cat") and node not in exact
    ]
    assert len(halves) > 10
    half.half_precision(program)(module)
    with torch.no_grad():
        recorder.run(*inputs_of(program))
    for node in halves:
        for operand in node.all_input_nodes:
            value = recorder.seen[operand.name]
            assert torch.equal(half.to_half(value), value), f"{operand.name} of {node.name}"
