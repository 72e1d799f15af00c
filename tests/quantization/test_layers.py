from __future__ import annotations

import numpy as np
import pytest
from hard_net import INPUT, hard_net
from tiny_models import SIZE, TinyStream, seeded

from mvtool.converters.capture import capture
from mvtool.converters.inputs import parse_input
from mvtool.converters.lowering import lower
from mvtool.converters.recipe import recipe_for
from mvtool.errors import UsageError
from mvtool.ports import Precision, Runtime
from mvtool.program import ModelInfo, StreamProgram
from mvtool.quantization.layers import Layers, constants, fingerprint
from mvtool.quantization.plan import WEIGHTED, make_plan, operator_of, weight_name, with_activations
from mvtool.quantization.pt2e_open import open_graph
from mvtool.quantization.ranges import observe
from mvtool.quantization.sources import load_calibration

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
    assert len(gone) == 2
    assert before.int8_nodes - after.int8_nodes == gone
    assert before.stored.keys() - after.stored.keys() == gone & before.stored.keys()
    assert len(before.weight_only - after.weight_only) == 1
