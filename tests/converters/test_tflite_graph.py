"""Layout, repairs and edits of the graph, each against the runtime or the module it came from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tflite_models import execute, kinds, one_operator, small_stream
from torch import Tensor, nn

from mvtool.converters.tflite_graph import Graph
from mvtool.converters.tflite_layout import TO_FIRST, channels_last_inside
from mvtool.converters.tflite_repairs import name_tensors, repair
from mvtool.errors import ConversionError
from mvtool.ports import Quantization

pytestmark = pytest.mark.filterwarnings("ignore")

aten = torch.ops.aten
SHAPE = (1, 6, 6, 4)


class Around(nn.Module):
    """(N, H, W, C) -> convolution -> `body` in (N, C, H, W) -> convolution -> (N, H, W, C)."""

    def __init__(self, body: Callable[[Tensor], Tensor], channels: int = 4) -> None:
        super().__init__()
        self.first, self.last, self.body = nn.Conv2d(4, 4, 1), nn.Conv2d(channels, 2, 1), body

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.body(self.first(x.permute(0, 3, 1, 2))))
        return result.permute(0, 2, 3, 1)


def exported(module: nn.Module) -> torch.export.ExportedProgram:
    with torch.no_grad():
        return torch.export.export(module.eval(), (torch.zeros(SHAPE),), strict=False)


BODIES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "elementwise": (lambda x: x * F.hardtanh(x + 3.0, 0.0, 6.0) - x / 2.0, 4),
    "broadcast over pixels": (lambda x: x * torch.arange(4.0).reshape(1, 4, 1, 1), 4),
    "broadcast over channels": (lambda x: x * torch.arange(36.0).reshape(1, 1, 6, 6), 4),
    "concatenate channels": (lambda x: torch.cat([x, x.sigmoid()], 1), 8),
    "concatenate rows": (lambda x: torch.cat([x, x], 2), 4),
    "slice channels": (lambda x: x[:, 1:3], 2),
    "slice rows": (lambda x: x[:, :, 2:, :-1], 4),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 3), value=0.5), 4),
    "gate": (lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(), 4),
    "mean over rows": (lambda x: x + x.mean(2, keepdim=True), 4),
    "split": (lambda x: torch.cat(torch.split(x, 2, 1)[::-1], 1), 4),
    "chunk": (lambda x: torch.chunk(x, 2, 1)[0] * torch.chunk(x, 2, 1)[1], 2),
    "max pool": (lambda x: F.max_pool2d(x, 2), 4),
    "global pool": (lambda x: F.adaptive_avg_pool2d(x, 1), 4),
    "one channel": (lambda x: x * x[:, :1].reshape(1, 1, 6, 6), 4),
}


@pytest.mark.parametrize("name", BODIES)
class TestLayout:
    def test_results_are_the_same(self, name: str) -> None:
        program = exported(Around(*BODIES[name]))
        x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(channels_last_inside(program).module()(x), program.module()(x), rtol=0, atol=1e-6)

    def test_permutations_stand_only_around_picture_operators(self, name: str) -> None:
        graph = channels_last_inside(exported(Around(*BODIES[name]))).graph
        for node in graph.nodes:
            if node.target is aten.permute.default and tuple(node.args[1]) == TO_FIRST:
                assert {user.target for user in node.users} <= {aten.conv2d.default, aten.max_pool2d.default}


def test_a_reshape_of_height_and_width_is_left_correct() -> None:
    program = exported(Around(lambda x: x.reshape(1, 4, 4, 9), 4))
    x = torch.randn(SHAPE)
    torch.testing.assert_close(channels_last_inside(program).module()(x), program.module()(x))


def test_a_mean_that_would_reorder_axes_is_left_correct() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.permute(0, 3, 1, 2)).mean(3)

    program = exported(Rows())
    x = torch.randn(SHAPE)
    torch.testing.assert_close(channels_last_inside(program).module()(x), program.module()(x))


def test_the_program_itself_is_not_changed() -> None:
    program = small_stream(int8=False).exported
    before = program.graph_module.code
    channels_last_inside(program)
    assert program.graph_module.code == before


class TestRepairs:
    def test_a_clamp_to_one_is_delegated_and_the_same(self) -> None:
        graph = Graph.parse(one_operator("RELU_0_TO_1", [(SHAPE, None)], (SHAPE, None), version=1))
        x = np.linspace(-2, 2, 144, dtype=np.float32).reshape(SHAPE)
        assert list(repair(graph).values()) == [1]
        (found,), operators = execute(graph.serialise(), [x])
        np.testing.assert_array_equal(found, np.clip(x, 0, 1))
        assert operators[-1] == "DELEGATE"

    def pixel(self, height: int) -> bytes:
        weight = np.random.default_rng(0).normal(0, 1, (3, 1, 1, 4)).astype(np.float32)
        bias = np.arange(3, dtype=np.float32)
        fields = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1, "fusedActivationFunction": 1}
        return one_operator(
            "CONV_2D",
            [((1, height, 1, 4), None)],
            ((1, height, 1, 3), None),
            constants=[weight, bias],
            options="Conv2DOptions",
            fields=fields,
            version=1,
        )

    def test_a_convolution_of_one_pixel_becomes_a_dense_layer(self) -> None:
        data = self.pixel(1)
        graph = Graph.parse(data)
        repair(graph)
        x = np.random.default_rng(1).normal(0, 1, (1, 1, 1, 4)).astype(np.float32)
        assert kinds(graph.serialise()) == ["FULLY_CONNECTED"]
        np.testing.assert_allclose(execute(graph.serialise(), [x])[0][0], execute(data, [x])[0][0], rtol=1e-6)

    def dense(
        self,
        other: list[tuple[int, ...]],
        constants: list[np.ndarray],
        activation: int = 0,
        batch: tuple[int, ...] = (1,),
        keep: bool = True,
    ) -> bytes:
        fields = {"keepNumDims": keep, "fusedActivationFunction": activation}
        return one_operator(
            "FULLY_CONNECTED",
            [((*batch, 3, 4), None), *((shape, None) for shape in other)],
            ((*batch, 3, 5) if keep else (3, 5), None),
            constants=constants,
            options="FullyConnectedOptions",
            fields=fields,
            version=5,
        )

    @pytest.mark.parametrize("batch", [(1,), ()])
    def test_a_product_of_computed_tensors_is_delegated_and_the_same(self, batch: tuple[int, ...]) -> None:
        data = self.dense([(5, 4)], [], batch=batch)
        graph = Graph.parse(data)
        repair(graph)
        assert kinds(graph.serialise()) == ["RESHAPE", "BATCH_MATMUL"][1 - len(batch) :]
        values = [np.random.default_rng(2).normal(0, 1, shape).astype(np.float32) for shape in ((*batch, 3, 4), (5, 4))]
        (found,), operators = execute(graph.serialise(), values)
        np.testing.assert_allclose(found, execute(data, values)[0][0], rtol=1e-5)
        assert operators[-1] == "DELEGATE"

    def test_a_dense_layer_with_weights_or_an_activation_stays(self) -> None:
        weights = np.ones((5, 4), np.float32)
        assert repair(Graph.parse(self.dense([], [weights]))) == {}
        assert repair(Graph.parse(self.dense([(5, 4)], [], activation=1))) == {}
        assert repair(Graph.parse(self.dense([(5, 4)], [], keep=False))) == {}

    def test_a_convolution_of_a_picture_stays(self) -> None:
        graph = Graph.parse(self.pixel(2))
        assert repair(graph) == {}
        assert kinds(graph.serialise()) == ["CONV_2D"]


class TestNames:
    def test_inner_tensors_are_named_after_their_operator_and_ports_keep_their_names(self) -> None:
        graph = Graph.parse(TestRepairs().pixel(2))
        middle = graph.add_tensor("a/very;long;name", (1, 2, 1, 3), "float32")
        (convolution,) = graph.operators
        last = graph.new_operator("RELU", [middle], graph.outputs)
        convolution.outputs = [middle]
        graph.replace_operators([convolution, last])
        name_tensors(graph)
        names = [graph.name(int(t)) for o in graph.operators for t in (*o.inputs, *o.outputs)]
        assert names == ["x0", "conv_2d_0_weight", "conv_2d_0_bias", "conv_2d_0", "conv_2d_0", "y"]

    def test_a_port_of_the_same_name_stays_the_only_one(self) -> None:
        data = one_operator("RELU", [(SHAPE, None)], (SHAPE, None), version=1)
        graph = Graph.parse(data)
        relu = graph.operators[0]
        middle = graph.add_tensor("m", SHAPE, "float32")
        second = graph.new_operator("ABS", [middle], graph.outputs)
        relu.outputs = [middle]
        graph.replace_operators([relu, second])
        graph.set_ports([("relu_0", graph.inputs[0])], [("y", graph.outputs[0])])
        name_tensors(graph)
        assert graph.name(middle) == "relu_0_inner"


class TestGraph:
    def test_unused_tensors_and_buffers_are_dropped(self) -> None:
        graph = Graph.parse(one_operator("RELU", [(SHAPE, None)], (SHAPE, None), version=1))
        graph.add_constant("unused", np.zeros(10_000, dtype=np.float32))
        data = graph.serialise()
        assert len(data) < 5_000
        assert len(Graph.parse(data).body.tensors) == 2

    def test_writing_twice_gives_the_same_bytes(self) -> None:
        data = one_operator("ADD", [(SHAPE, None), (SHAPE, None)], (SHAPE, None), options="AddOptions", version=1)
        once = Graph.parse(data).serialise()
        assert Graph.parse(once).serialise() == once

    def test_constants_come_back(self) -> None:
        graph = Graph.parse(one_operator("RELU", [(SHAPE, None)], (SHAPE, None), version=1))
        index = graph.add_constant("c", np.arange(6, dtype=np.int32).reshape(2, 3))
        np.testing.assert_array_equal(graph.constant(index), [[0, 1, 2], [3, 4, 5]])
        assert graph.constant(graph.inputs[0]) is None

    def test_quantization_comes_back(self) -> None:
        graph = Graph.empty()
        index = graph.add_tensor("x", (2,), "int8", Quantization(scale=0.5, zero_point=-7))
        assert graph.quantization(index) == Quantization(scale=0.5, zero_point=-7)

    def test_metadata_replaces_an_entry_of_the_same_name(self) -> None:
        graph = Graph.parse(one_operator("RELU", [(SHAPE, None)], (SHAPE, None), version=1))
        graph.set_metadata("note", "first")
        graph.set_metadata("note", "second")
        again = Graph.parse(graph.serialise())
        texts = [bytes(again.model.buffers[m.buffer].data).decode() for m in again.model.metadata]
        assert texts == ["second"]

    def test_two_subgraphs_are_refused(self) -> None:
        graph = Graph.empty()
        graph.model.subgraphs.append(graph.body)
        with pytest.raises(ConversionError, match="2 subgraphs, expected 1"):
            Graph(graph.model)
