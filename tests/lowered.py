"""Lowering a small module, and comparing what comes out with the module itself."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mvtool.converters.capture import capture
from mvtool.converters.inputs import parse_input
from mvtool.converters.lowering import lower
from mvtool.converters.recipe import Recipe
from mvtool.program import ModelInfo, StreamProgram

THREE_D = ("conv3d", "pool3d", "batch_norm")


def captured(module: nn.Module, shape: str) -> StreamProgram:
    return capture(module, [parse_input(shape)], ModelInfo("probe"))


def operators(program: StreamProgram) -> list[str]:
    return [str(node.target) for node in program.exported.graph.nodes if node.op == "call_function"]


def largest_rank(program: StreamProgram) -> int:
    values = [n.meta["val"] for n in program.exported.graph.nodes if n.op == "call_function"]
    return max(v.dim() for v in values if isinstance(v, torch.Tensor))


def roll(program: StreamProgram, steps: list[torch.Tensor]) -> list[np.ndarray]:
    """First output of each step, through the ports of a lowered program."""
    graph = program.exported.module(check_guards=False)
    states = [torch.from_numpy(array) for array in program.initial_ports()]
    found = []
    for step in steps:
        port = torch.from_numpy(program.inputs[0].encode(step.numpy()))
        results = graph(port, *states)
        found.append(program.outputs[0].decode(results[0].detach().numpy()))
        states = list(results[len(program.outputs) :])
    return found


def check(module: nn.Module, shape: str, recipe: Recipe, steps: int = 1) -> StreamProgram:
    """Lower `module` and compare some steps with the module itself."""
    program = lower(captured(module, shape), recipe)
    torch.manual_seed(3)
    size = parse_input(shape).shape
    inputs = [torch.randn(size) for _ in range(steps)]
    with torch.no_grad():
        expected = [module(x).numpy() for x in inputs]
    for got, want in zip(roll(program, inputs), expected, strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=2e-5 * max(1.0, np.abs(want).max()))
    assert largest_rank(program) <= 4
    assert not [op for op in operators(program) if any(name in op for name in THREE_D)]
    return program
