from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stream_nets import clips, stream_program
from torch import Tensor, nn
from torch.export import ExportedProgram

from mvtool.converters import executorch
from mvtool.converters.program_io import load_program, save_program
from mvtool.quantization.plan import make_plan, port_nodes
from mvtool.quantization.pt2e import register_operators
from mvtool.quantization.pt2e_graph import insert_plan
from mvtool.quantization.pt2e_open import open_graph
from mvtool.quantization.pt2e_program import as_program
from mvtool.quantization.ranges import observe

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def both() -> tuple[ExportedProgram, ExportedProgram]:
    """An int8 graph as a program, without and with tracing."""
    register_operators()
    program, calibration = executorch.prepare(stream_program()), clips()
    module = open_graph(program)
    found = observe(program, module, calibration)
    insert_plan(module, make_plan(program, module, found, frozenset()), found)
    examples = tuple(torch.zeros(node.meta["val"].shape) for node in port_nodes(module.graph))
    with torch.no_grad():
        return as_program(module), torch.export.export(module, examples, strict=False)


def calls(program: ExportedProgram) -> list[tuple[str, torch.Size, torch.dtype, tuple[int, ...]]]:
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    return [(str(n.target), n.meta["val"].shape, n.meta["val"].dtype, n.meta["val"].stride()) for n in nodes]


def test_it_is_the_program_that_tracing_gives(both: tuple[ExportedProgram, ExportedProgram]) -> None:
    ours, traced = both
    assert calls(ours) == calls(traced)
    assert [(s.kind, s.target, s.arg.name) for s in ours.graph_signature.input_specs if s.target] == [
        (s.kind, s.target, s.arg.name) for s in traced.graph_signature.input_specs if s.target
    ]
    assert ours.graph_signature.user_inputs == traced.graph_signature.user_inputs
    assert ours.state_dict.keys() == traced.state_dict.keys()
    for name, value in traced.state_dict.items():
        assert torch.equal(ours.state_dict[name], value)


def test_it_computes_the_same(both: tuple[ExportedProgram, ExportedProgram]) -> None:
    ours, traced = both
    given = [torch.rand(node.meta["val"].shape) for node in port_nodes(ours.module().graph)]
    for one, other in zip(ours.module()(*given), traced.module()(*given), strict=True):
        assert torch.equal(one, other)


def test_it_can_be_saved_and_loaded(both: tuple[ExportedProgram, ExportedProgram], tmp_path: Path) -> None:
    ours, _ = both
    program = executorch.prepare(stream_program()).replace(exported=ours)
    save_program(program, tmp_path / "program")
    loaded = load_program(tmp_path / "program").exported
    assert calls(loaded) == calls(ours)


class Alike(nn.Module):
    """Weights whose names become one when the dots go, one tensor under two names, and an input that is called like a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.layer_bias = nn.Parameter(torch.ones(4))
        self.other = nn.Linear(4, 4)
        self.other.weight = self.layer.weight

    def forward(self, p_layer_bias: Tensor, x: Tensor) -> Tensor:
        result: Tensor = self.other(self.layer(x) + self.layer_bias) * p_layer_bias
        return result


def test_names_that_meet_are_told_apart() -> None:
    torch.manual_seed(0)
    given = (torch.rand(1, 4), torch.rand(1, 4))
    module = torch.export.export(Alike(), given).module()
    for node in list(module.graph.nodes):
        if node.op == "call_module":
            module.graph.erase_node(node)
    result = module.graph.output_node()
    result.args = (tuple(result.all_input_nodes),)
    module.recompile()
    program = as_program(module)
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    assert len({node.name for node in placeholders}) == len(placeholders) == 7
    assert all(node.name == node.target for node in placeholders)
    (found,) = program.module()(*given)
    torch.testing.assert_close(found, alike(module, given), rtol=0, atol=0)


def alike(module: nn.Module, given: tuple[Tensor, Tensor]) -> Tensor:
    weights = {name: value.detach() for name, value in module.named_parameters(remove_duplicate=False)}
    gate, x = given
    hidden = x @ weights["layer.weight"].T + weights["layer.bias"] + weights["layer_bias"]
    return (hidden @ weights["other.weight"].T + weights["other.bias"]) * gate
