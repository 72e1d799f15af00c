from __future__ import annotations

import copy
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram

from mvtool.converters import decomposition
from mvtool.converters.decomposition import in_one_pass

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


class Network(nn.Module):
    """Composite operators, views, and a decomposition that writes in place (layer norm of a batch norm)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, add: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        y = F.hardswish(self.norm(self.first(add)))
        rows = F.layer_norm(y.permute(0, 2, 3, 1), (8,)).relu()
        first, second = rows[..., :3], rows[..., 3:]
        return F.softmax(self.head(rows.mean((1, 2))), -1), torch.cat((second, first), -1).reshape(1, -1), states[0] + 1


class Counting(nn.Module):
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return F.hardswish(x) * self.count


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.hardswish(x) + torch.tensor([1.0, 2.0])


def exported(module: nn.Module, *inputs: Tensor) -> ExportedProgram:
    torch.manual_seed(0)
    with torch.no_grad():
        made: ExportedProgram = torch.export.export(module.eval(), inputs)
    return made


def both(program: ExportedProgram, table: dict[Any, Any]) -> tuple[ExportedProgram, ExportedProgram, bool]:
    """Decomposed in one pass and as always, and whether one pass was enough."""
    found: list[Any] = []
    original = decomposition.decomposed

    def watched(*given: Any) -> Any:
        found.append(original(*given))
        return found[-1]

    with mock.patch.object(decomposition, "decomposed", watched), in_one_pass():
        once = program.run_decompositions(dict(table))
    return once, program.run_decompositions(dict(table)), found == [mock.ANY] and found[0] is not None


def calls(program: ExportedProgram) -> list[tuple[Any, ...]]:
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    values = [node.meta["val"] for node in nodes]
    described = [
        (v.shape, v.dtype, v.stride()) if isinstance(v, Tensor) else tuple(part.shape for part in v) for v in values
    ]
    return [(str(node.target), *value) for node, value in zip(nodes, described, strict=True)]


@pytest.mark.parametrize("empty", [False, True], ids=["core", "nothing"])
def test_one_pass_gives_the_same_program(empty: bool) -> None:
    inputs = (torch.rand(1, 3, 8, 8), torch.ones(1))
    program = exported(Network(), *inputs)
    once, always, enough = both(program, {} if empty else dict(torch.export.default_decompositions()))
    assert enough
    assert calls(once) == calls(always)
    assert ("aten.hardswish.default" in str(calls(once))) == empty
    for one, other in zip(once.module()(*inputs), always.module()(*inputs), strict=True):
        assert torch.equal(one, other)


def test_names_of_inputs_and_weights_stay() -> None:
    program = exported(Network(), torch.rand(1, 3, 8, 8), torch.ones(1))
    once, always, _ = both(program, dict(torch.export.default_decompositions()))
    ours, theirs = once.graph_signature, always.graph_signature
    assert [(s.kind, s.arg.name, s.target) for s in ours.input_specs] == [
        (s.kind, s.arg.name, s.target) for s in theirs.input_specs
    ]
    assert len(ours.user_outputs) == 3
    names = [node.name for node in once.graph.nodes]
    assert len(set(names)) == len(names)
    assert "add" in ours.user_inputs


@pytest.mark.parametrize("module", [Counting(), Constant()], ids=["writes a buffer", "makes a constant"])
def test_what_needs_more_goes_pytorchs_way(module: nn.Module) -> None:
    program = exported(module, torch.rand(2))
    once, always, enough = both(program, dict(torch.export.default_decompositions()))
    if isinstance(module, Counting):
        assert not enough
    assert calls(once) == calls(always)
    x = torch.rand(2)
    # The two share their buffers.
    assert torch.equal(copy.deepcopy(once).module()(x), copy.deepcopy(always).module()(x))


def test_pytorch_is_as_before_afterwards() -> None:
    from torch.export import exported_program as module

    before = module._decompose_and_get_gm_with_new_signature_constants
    with in_one_pass():
        assert module._decompose_and_get_gm_with_new_signature_constants is not before
    assert module._decompose_and_get_gm_with_new_signature_constants is before
