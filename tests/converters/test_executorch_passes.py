from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from stream_nets import clips, stream_program
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from mvtool.converters import executorch, executorch_lowering
from mvtool.converters.executorch_lowering import lower_to_executorch, strip_origins
from mvtool.converters.executorch_passes import numbers_to_constants, views_to_copies, without_retracing, write_out
from mvtool.ports import Runtime
from mvtool.quantization.policy import ALL_STORED, VECTOR_PATH
from mvtool.quantization.pt2e import quantize

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

aten = torch.ops.aten


class Plain(nn.Module):
    """Nothing but what is written out: convolutions, reshapes, movements, numbers for tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)

    def forward(self, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        y = F.hardswish(self.second(F.hardswish(self.first(x)))) / 3.0
        rows = y.permute(0, 2, 3, 1).mul(2.0)
        return rows[:, 1:].clamp(0.0, 6.0).permute(0, 3, 1, 2).contiguous(), (y.reshape(1, 8, -1).mean(2) + 1) * count


class Composed(Plain):
    """With an operator that only the exporter can decompose."""

    def forward(self, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        y, total = super().forward(x, count)
        return F.layer_norm(y, y.shape[-2:]), total


class Outside(Plain):
    """With an operator that no delegate takes, whose input and result are moved."""

    def forward(self, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        y, total = super().forward(x, count)
        return torch.cumsum(y.permute(0, 2, 3, 1), 1).permute(0, 3, 1, 2) * 2.0, total


class Joined(Plain):
    """More values in one concatenation than XNNPACK takes."""

    def forward(self, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        y, total = super().forward(x, count)
        return torch.cat([y * number for number in range(1, 8)], 1), total


def exported(module: nn.Module) -> ExportedProgram:
    torch.manual_seed(0)
    made: ExportedProgram = torch.export.export(module.eval(), (torch.randn(1, 3, 16, 16), torch.ones(1)))
    return made


def program_of(name: str) -> ExportedProgram:
    kinds = {kind.__name__: kind for kind in (Plain, Composed, Outside, Joined)}
    if name in kinds:
        return exported(kinds[name]())
    program = executorch.prepare(stream_program())
    if name == "stream":
        return program.exported
    path = VECTOR_PATH[Runtime.EXECUTORCH] if "rounded" in name else ALL_STORED
    return executorch.int8_ported(quantize(program, clips(), vector_path=path)).exported


NAMES = ["Plain", "Composed", "Outside", "Joined", "stream", "int8 stream", "int8 stream, head rounded at run time"]


@pytest.mark.parametrize("name", NAMES)
def test_the_exporters_own_way_gives_the_same_bytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(name)
    ours = lower_to_executorch(program, {})
    monkeypatch.setattr(executorch_lowering, "without_retracing", contextlib.nullcontext)
    assert lower_to_executorch(program, {}) == ours


def table() -> dict[Any, Any]:
    return dict(torch.export.default_decompositions())


def operators(program: ExportedProgram) -> list[str]:
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


def test_operators_are_written_out_as_the_exporter_decomposes_them() -> None:
    program = exported(Plain())
    preserved = {aten.hardswish.default, aten.mean.dim, aten.clamp.default, aten.contiguous.default, aten.mul.Tensor}
    given = {op: way for op, way in table().items() if op not in preserved}
    program.graph.eliminate_dead_code()
    for node in program.graph.nodes:
        if node.target is aten.contiguous.default:
            node.target, node.kwargs = aten.clone.default, {"memory_format": torch.contiguous_format}
    ours, theirs = copy.deepcopy(program), program.run_decompositions(given)
    assert write_out(ours, given)
    assert operators(ours) == operators(theirs)
    assert "aten.convolution.default" in operators(ours)
    values = [(torch.randn(1, 3, 16, 16), torch.ones(1)) for _ in range(2)]
    for inputs in values:
        for one, other in zip(ours.module()(*inputs), theirs.module()(*inputs), strict=True):
            assert torch.equal(one, other)


def test_a_graph_that_needs_the_exporter_is_left_as_it_is() -> None:
    program = exported(Composed())
    before = operators(program)
    assert not write_out(program, table())
    assert operators(program) == before


def test_a_reshape_of_what_does_not_lie_in_order_needs_the_exporter() -> None:
    class Moved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.permute(0, 2, 3, 1).reshape(1, -1)

    program = torch.export.export(Moved(), (torch.randn(1, 2, 3, 4),))
    assert not write_out(program, table())


def strides(graph: fx.Graph) -> list[tuple[int, ...]]:
    return [node.meta["val"].stride() for node in graph.nodes if node.op == "call_function"]


def test_copies_of_views_lie_in_order_and_so_does_what_follows() -> None:
    from torch._export.passes.replace_view_ops_with_view_copy_ops_pass import ReplaceViewOpsWithViewCopyOpsPass

    program = exported(Outside()).run_decompositions()
    strip_origins(program.graph_module)
    ours, theirs = copy.deepcopy(program), copy.deepcopy(program)
    views_to_copies(ours.graph_module)
    result = ReplaceViewOpsWithViewCopyOpsPass()(theirs.graph_module)
    assert result is not None
    assert operators(ours) == [str(n.target) for n in result.graph_module.graph.nodes if n.op == "call_function"]
    assert strides(ours.graph) == strides(result.graph_module.graph)
    assert strides(ours.graph) != strides(program.graph)


def test_numbers_become_constants_of_their_type() -> None:
    program = exported(Plain())
    module = program.graph_module
    numbers_to_constants(module)
    held = [getattr(module, str(node.target)) for node in module.graph.nodes if node.op == "get_attr"]
    assert [(value.item(), value.dtype) for value in held] == [
        (3.0, torch.float32),
        (2.0, torch.float32),
        (1, torch.int64),
    ]


def test_the_exporter_is_as_before_afterwards() -> None:
    from executorch.exir.pass_base import ExportPass
    from torch._export.passes.replace_view_ops_with_view_copy_ops_pass import ReplaceViewOpsWithViewCopyOpsPass

    def now() -> tuple[Any, ...]:
        return ExportPass.call, ExportedProgram.run_decompositions, ReplaceViewOpsWithViewCopyOpsPass.call

    def fails() -> None:
        with without_retracing():
            assert all(one is not other for one, other in zip(now(), before, strict=True))
            raise ValueError("inside")

    before = now()
    with pytest.raises(ValueError, match="inside"):
        fails()
    assert now() == before
