"""The limits are held against the runtime itself: just inside it delegates, just outside it does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tflite_models import execute, in_child, one_operator

from mvtool.converters.tflite_graph import Graph
from mvtool.errors import ConversionError
from mvtool.quantization.proportions import FALLS_OFF, LOADS_NOT, RULES, check, refuse, violations

pytestmark = pytest.mark.filterwarnings("ignore")

SHAPE = (1, 4, 4, 8)
WINDOW = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}


def add(ratio: float, kind: str = "ADD", options: str = "AddOptions") -> bytes:
    return one_operator(kind, [(SHAPE, (0.01 * ratio, 0)), (SHAPE, (0.01, 0))], (SHAPE, (0.01, 0)), options=options)


def sub(ratio: float) -> bytes:
    return add(ratio, "SUB", "SubOptions")


def second_operand(ratio: float) -> bytes:
    inputs = [(SHAPE, (0.01, 0)), (SHAPE, (0.01 * ratio, 0))]
    return one_operator("ADD", inputs, (SHAPE, (0.01, 0)), options="AddOptions")


def mul(ratio: float) -> bytes:
    inputs = [(SHAPE, (ratio / 2, 0)), (SHAPE, (2.0, 0))]
    return one_operator("MUL", inputs, (SHAPE, (1.0, 0)), options="MulOptions")


def conv2d(ratio: float) -> bytes:
    weights = np.full((8, 1, 1, 8), 3, dtype=np.int8), [2 * ratio] * 8, 0
    bias = np.zeros(8, dtype=np.int32), [ratio] * 8, 0
    inputs, output = [(SHAPE, (0.5, 0))], (SHAPE, (1.0, 0))
    return one_operator(
        "CONV_2D", inputs, output, constants=[weights, bias], options="Conv2DOptions", fields=WINDOW, version=3
    )


def depthwise(ratio: float) -> bytes:
    weights = np.full((1, 3, 3, 8), 3, dtype=np.int8), [2 * ratio] * 8, 3
    bias = np.zeros(8, dtype=np.int32), [ratio] * 8, 0
    return one_operator(
        "DEPTHWISE_CONV_2D",
        [(SHAPE, (0.5, 0))],
        (SHAPE, (1.0, 0)),
        constants=[weights, bias],
        options="DepthwiseConv2DOptions",
        fields={**WINDOW, "depthMultiplier": 1},
        version=3,
    )


def linear(ratio: float) -> bytes:
    weights = np.full((16, 8), 3, dtype=np.int8), [2 * ratio] * 16, 0
    bias = np.zeros(16, dtype=np.int32), [ratio] * 16, 0
    inputs, output = [((1, 8), (0.5, 0))], ((1, 16), (1.0, 0))
    return one_operator(
        "FULLY_CONNECTED", inputs, output, constants=[weights, bias], options="FullyConnectedOptions", version=4
    )


def requantize(ratio: float) -> bytes:
    return one_operator("QUANTIZE", [(SHAPE, (ratio, 0))], (SHAPE, (1.0, 0)), options="QuantizeOptions")


def leaky_relu(ratio: float) -> bytes:
    inputs, output = [(SHAPE, (ratio, 0))], (SHAPE, (1.0, 0))
    return one_operator("LEAKY_RELU", inputs, output, options="LeakyReluOptions", fields={"alpha": 1.0})


def leaky_slope(ratio: float) -> bytes:
    """The negative side is the one at the limit."""
    inputs, output = [(SHAPE, (0.5, 0))], (SHAPE, (1.0, 0))
    fields = {"alpha": ratio * 2}
    return one_operator("LEAKY_RELU", inputs, output, options="LeakyReluOptions", fields=fields)


MODELS: list[tuple[str, Callable[[float], bytes]]] = [
    ("add", add),
    ("add", second_operand),
    ("sub", sub),
    ("mul", mul),
    ("conv2d", conv2d),
    ("conv2d", depthwise),
    ("linear", linear),
    ("requantize", requantize),
    ("leaky_relu", leaky_relu),
    ("leaky_relu", leaky_slope),
]


def fate(data: bytes) -> str:
    """`delegated`, `falls off`, or `does not load`."""

    def load() -> str:
        shapes = [Graph.parse(data).shape(t) for t in Graph.parse(data).inputs]
        try:
            _, operators = execute(data, [np.ones(s, dtype=np.int8) for s in shapes])
        except (RuntimeError, ValueError):
            return "does not load"
        return "delegated" if "DELEGATE" in operators else "falls off"

    return in_child(load)


@pytest.mark.parametrize(("kind", "model"), MODELS, ids=lambda value: getattr(value, "__name__", value))
class TestAgainstTheRuntime:
    def test_inside_the_upper_limit(self, kind: str, model: Callable[[float], bytes]) -> None:
        ratio = RULES[kind].high * 0.98
        assert fate(model(ratio)) == "delegated"
        assert violations(Graph.parse(model(ratio))) == []

    def test_outside_the_upper_limit(self, kind: str, model: Callable[[float], bytes]) -> None:
        ratio = RULES[kind].high * 1.02
        expected = {LOADS_NOT: "does not load", FALLS_OFF: "falls off"}[RULES[kind].consequence]
        assert fate(model(ratio)) == expected
        assert violations(Graph.parse(model(ratio)))

    def test_inside_the_lower_limit(self, kind: str, model: Callable[[float], bytes]) -> None:
        ratio = max(RULES[kind].low * 1.02, 2.0**-40)
        assert fate(model(ratio)) == "delegated"
        assert violations(Graph.parse(model(ratio))) == []

    def test_outside_the_lower_limit(self, kind: str, model: Callable[[float], bytes]) -> None:
        if RULES[kind].low == 0.0:
            assert fate(model(2.0**-60)) == "delegated"
            return
        ratio = RULES[kind].low * 0.98
        assert fate(model(ratio)) != "delegated"
        assert violations(Graph.parse(model(ratio)))


@pytest.mark.parametrize("ratio", [2.0**-30, 2.0**20])
def test_a_mean_takes_any_proportion(ratio: float) -> None:
    axes = np.array([1, 2], dtype=np.int32)
    data = one_operator(
        "MEAN",
        [(SHAPE, (ratio, 0))],
        ((1, 1, 1, 8), (1.0, 0)),
        constants=[axes],
        options="ReducerOptions",
        fields={"keepDims": True},
    )
    assert fate(data) == "delegated"
    assert check("mean", [ratio], 1.0) == []


class TestMessages:
    def test_names_the_operator_the_tensors_the_ratio_the_limits_and_what_to_do(self) -> None:
        found = check("add", [10.0, 0.01], 0.03, place="block0", tensors=["a", "b", "block0"])
        with pytest.raises(ConversionError) as caught:
            refuse(found, "net")
        text = str(caught.value)
        assert "add 'block0'" in text
        assert "'a' and 'block0'" in text
        assert "333" in text
        assert "0.000977 to 256" in text
        assert "calibrate with clips" in text
        assert "'b'" not in text

    def test_a_graph_in_proportion_is_not_refused(self) -> None:
        refuse([], "net")

    def test_long_lists_are_cut(self) -> None:
        found = check("add", [10.0], 0.03) * 8
        with pytest.raises(ConversionError, match="and 3 more"):
            refuse(found, "net")


class TestNeutralCheck:
    def test_one_weight_channel_out_of_many_is_enough(self) -> None:
        assert check("conv2d", [0.5, 1.0, 1.0], 1.0) == []
        (found,) = check("conv2d", [0.5, 1.0, 1000.0], 1.0)
        assert found.ratio == 500.0

    def test_ratios_are_taken_in_float32(self) -> None:
        # In float64 this product is 256 - 3e-6; in float32 it is 256, which XNNPACK refuses.
        scale = float(np.float32(16.0)) - 1e-7
        assert check("mul", [scale, scale], 1.0)

    def test_not_a_number_is_refused(self) -> None:
        assert check("add", [float("nan"), 1.0], 1.0)

    def test_float_operators_of_a_graph_are_skipped(self) -> None:
        data = one_operator("ADD", [(SHAPE, None), (SHAPE, None)], (SHAPE, None), options="AddOptions", version=1)
        assert violations(Graph.parse(data)) == []


def test_every_rule_is_tried_against_the_runtime() -> None:
    assert {kind for kind, _ in MODELS} == set(RULES)
