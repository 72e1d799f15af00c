from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hard_net import INPUT, hard_net
from stream_nets import clips, stream_program
from tiny_models import SIZE, TinyStream, seeded
from torch import Tensor, nn

from mvtool.converters.capture import capture
from mvtool.converters.executorch_graph import spelled
from mvtool.converters.inputs import parse_input
from mvtool.converters.lowering import lower
from mvtool.converters.recipe import recipe_for
from mvtool.converters.tflite_export import export_float
from mvtool.errors import UsageError
from mvtool.ports import Precision, Runtime
from mvtool.program import ModelInfo, StreamProgram
from mvtool.quantization.layers import Layers, constants, fingerprint
from mvtool.quantization.plan import WEIGHTED, make_plan, operator_of, weight_name, with_activations
from mvtool.quantization.policy import VECTOR_PATH
from mvtool.quantization.pt2e_open import open_graph
from mvtool.quantization.ranges import observe
from mvtool.quantization.sources import load_calibration
from mvtool.quantization.tflite_domains import HAS_WEIGHTS, decide

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
INT8 = [recipe_for(runtime, Precision.INT8) for runtime in Runtime]


def tiny() -> StreamProgram:
    return capture(seeded(TinyStream), [parse_input(f"frame=1x3x1x{SIZE}x{SIZE}")], ModelInfo("tiny"))


@pytest.mark.parametrize("recipe", INT8, ids=lambda recipe: str(recipe.target))
def test_every_weighted_operator_belongs_to_a_layer(recipe: object) -> None:
    captured = tiny()
    lowered = lower(captured, recipe)  # type: ignore[arg-type]
    layers = Layers.of(captured)
    module = open_graph(lowered)
    weighted = [node for node in module.graph.nodes if operator_of(node) in WEIGHTED]
    found = [layers.layer(weight_name(node) or "") for node in weighted]
    assert list(dict.fromkeys(found)) == ["stem", "upper", "lower", "excite.reduce", "excite.expand", "mix", "head"]


def test_weights_of_chosen_layers() -> None:
    captured = tiny()
    lowered = lower(captured, recipe_for(Runtime.TFLITE, Precision.INT8))
    layers = Layers.of(captured)
    chosen = layers.weights(lowered, ["head", "mix"])
    sizes = sorted(constants(lowered)[name].size for name in chosen)
    assert sizes == [8 * 5, 8 * 8]
    with pytest.raises(UsageError, match=r"tiny has no layer 'hed'; it has 7, for example .*--sensitivity"):
        layers.weights(lowered, ["hed"])


def test_other_constants_belong_to_none() -> None:
    layers = Layers({"conv3d_": "one", "conv3d_1_": "two", "c_head_weight": "head"})
    names = ("body.conv3d_weight", "body.conv3d_1_weight", "body.avg_pool3d_window", "body.c_head_weight_1")
    assert [layers.layer(name) for name in names] == ["one", "two", None, "head"]


def test_a_fingerprint_is_that_of_the_values() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32)
    assert fingerprint(weight.transpose(0, 2, 3, 1)) == fingerprint(weight)
    assert fingerprint(weight[::-1] * 2) != fingerprint(weight)


def test_a_layer_stays_float_with_its_activation() -> None:
    captured = capture(hard_net(), [INPUT], ModelInfo("hard"))
    lowered = lower(captured, recipe_for(Runtime.EXECUTORCH, Precision.INT8))
    module = open_graph(lowered)
    ranges = observe(lowered, module, load_calibration(None, captured.info, captured.inputs))
    exact = Layers.of(captured).weights(lowered, ["wide", "head"])
    before, after = make_plan(lowered, module, ranges), make_plan(lowered, module, ranges, exact)
    wide = {node for node in module.graph.nodes if weight_name(node) in exact and node.name in before.int8_nodes}
    gone = {node.name for node in with_activations(module.graph, wide)}
    assert {node.name for node in wide} < gone
    assert any(name.startswith("relu") for name in gone)
    assert before.int8_nodes - after.int8_nodes == gone
    assert before.stored.keys() - after.stored.keys() == gone & before.stored.keys()
    assert len(before.weight_only - after.weight_only) == 1


class Head(nn.Module):
    """A pointwise layer whose map is pooled, and read by something else if asked for."""

    def __init__(self, kernel: int = 1, shared: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 16, kernel, padding=kernel // 2)
        self.head = nn.Linear(16, 4)
        self.shared = shared

    def forward(self, frame: Tensor) -> Tensor:
        seen = nn.functional.hardswish(self.last(self.stem(frame).relu()))
        scores: Tensor = self.head(seen.mean((2, 3)))
        return scores + seen.amax((2, 3))[:, :4] if self.shared else scores


@pytest.mark.parametrize(
    ("net", "expected"),
    [(Head(), {"last", "head"}), (Head(kernel=3), {"head"}), (Head(shared=True), {"head"})],
    ids=["pooled alone", "not pointwise", "read by another"],
)
def test_what_is_pooled_before_a_head_keeps_float_activations(net: nn.Module, expected: set[str]) -> None:
    captured = capture(net.eval(), [INPUT], ModelInfo("head"))
    clips = load_calibration(None, captured.info, captured.inputs, stream=False)
    layers = Layers.of(captured)
    lowered = spelled(lower(captured, recipe_for(Runtime.EXECUTORCH, Precision.INT8)))
    module = open_graph(lowered)
    plan = make_plan(lowered, module, observe(lowered, module, clips))
    names = {weight_name(node) for node in module.graph.nodes if node.name in plan.weight_only}
    assert {layers.layer(name or "") for name in names} == expected
    lowered = lower(captured, recipe_for(Runtime.TFLITE, Precision.INT8))
    graph = export_float(lowered)
    domains = decide(graph, frozenset({graph.inputs[0]}))
    values = constants(lowered)
    layer_of = {fingerprint(v): layers.layer(n) for n, v in values.items() if v.ndim > 1}
    weighted = [o for o in graph.operators if graph.kind(o) in HAS_WEIGHTS and o not in domains]
    assert {layer_of[fingerprint(graph.constant(int(o.inputs[1])))] for o in weighted} == expected  # type: ignore[arg-type]


def test_executorch_rounds_activations_at_run_time_where_no_gate_follows() -> None:
    program = spelled(stream_program())
    module = open_graph(program)
    ranges = observe(program, module, clips())

    def layers(names: frozenset[str]) -> set[str]:
        found = {weight_name(node) or "" for node in module.graph.nodes if node.name in names}
        return {name.split(".")[0] for name in found}

    stored = make_plan(program, module, ranges)
    plan = make_plan(program, module, ranges, vector_path=VECTOR_PATH[Runtime.EXECUTORCH])
    assert (layers(stored.weight_only), stored.dynamic) == ({"squeeze", "excite", "head"}, frozenset())
    assert (plan.weight_only, layers(plan.dynamic)) == (stored.weight_only, {"head"})
    free = replace(VECTOR_PATH[Runtime.EXECUTORCH], exact_gates=False)
    assert make_plan(program, module, ranges, vector_path=free).dynamic == stored.weight_only
