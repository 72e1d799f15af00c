"""Alignment, layers and next steps, on graphs that are written down here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tflite_models import one_operator

from mvtool.ports import Precision
from mvtool.profiling import tflite, tflite_graph
from mvtool.profiling.alignment import align
from mvtool.profiling.layers import KnownLayers, common_module, name_layers
from mvtool.profiling.measured import Measured, Timed
from mvtool.profiling.record import Latency, OperatorTime
from mvtool.profiling.steps import next_steps
from mvtool.profiling.written import Weight, Written, WrittenGraph

LATENCY = Latency(median_ms=1.0, low_ms=1.0, high_ms=1.0, calls=20)


def align_inside(written: list[str], timed: list[str]) -> list[int | None]:
    return align(written, timed, [True] * len(timed))


def test_names_of_xnnpack_are_found_again() -> None:
    written = ["CONV_2D", "HARD_SWISH", "DEPTHWISE_CONV_2D", "RESHAPE", "FULLY_CONNECTED"]
    timed = [
        "Fully Connected (NC, F32) GEMM",
        "HardSwish (NC)",
        "Convolution (NHWC, F32) DWConv",
        "Fully Connected (NC, F32) GEMM",
    ]
    assert align_inside(written, timed) == [0, 1, 2, 4]


def test_two_operators_that_became_one_table_and_one_that_became_two() -> None:
    assert align_inside(
        ["CONV_2D", "ADD", "MUL", "CONV_2D"], ["Convolution (NHWC, QC8) IGEMM", "Invalid Unary Op", "Fully Connected"]
    ) == [0, 1, 3]
    assert align_inside(["ADD", "MUL"], ["Add (ND)", "Clamp (NC)", "Multiply (ND)"]) == [0, 0, 1]


def test_what_fits_nothing_belongs_to_nothing() -> None:
    assert align_inside(["ADD"], ["Softmax (NC, F32)", "Add (ND)"]) == [None, 0]
    assert align(["ADD", "CUMSUM"], ["Add (ND)", "CUMSUM"], [True, False]) == [0, 1]
    assert align(["ADD"], ["CUMSUM"], [False]) == [None]


def written(kind: str, reads: Sequence[int], writes: Sequence[int], **more: object) -> Written:
    given = {"label": kind, "shapes": "1 -> 1", "moved_bytes": 100, "dtypes": ("float32",), **more}
    return Written(kind=kind, reads=tuple(reads), writes=tuple(writes), **given)  # type: ignore[arg-type]


def known(**weights: Sequence[float]) -> KnownLayers:
    names = {name.replace("__", "."): np.sort(np.asarray(v, np.float32)) for name, v in weights.items()}
    sizes: dict[int, list[tuple[str, np.ndarray]]] = {}
    for name, values in names.items():
        sizes.setdefault(values.size, []).append((name, values))
    return KnownLayers(sizes, ("a", "a.first", "a.second", "b", "b.first"))


def test_weights_name_a_layer_in_any_order_and_rounded() -> None:
    layers = known(a__first=[1.0, 2.0, 3.0], a__second=[1.0, 2.0, 4.0])
    assert layers.of_weight(Weight(np.array([[3.0, 1.0, 2.0]]), 0.0)) == "a.first"
    assert layers.of_weight(Weight(np.array([3.9, 1.1, 2.1]), 0.25)) == "a.second"
    assert layers.of_weight(Weight(np.array([3.5, 1.0, 2.0]), 1.1)) is None  # both fit
    assert layers.of_weight(Weight(np.array([3.5, 1.0, 2.0]), 0.1)) is None  # none fits


def test_operators_between_layers_lie_in_what_holds_both() -> None:
    layers = known(a__first=[1.0, 2.0], a__second=[3.0, 4.0], b__first=[5.0, 6.0])
    graph = WrittenGraph(
        (
            written("CONV_2D", [0], [1], weight=Weight(np.array([1.0, 2.0]), 0.0)),
            written("RELU", [1], [2]),
            written("CONV_2D", [2], [3], weight=Weight(np.array([3.0, 4.0]), 0.0)),
            written("ADD", [1, 3], [4]),  # joins both branches of a
            written("MEAN", [4], [5]),  # between a and b: unknown, although all that comes in is from a
            written("CONCATENATION", [9, 5], [6]),
            written("CONV_2D", [6], [7], weight=Weight(np.array([5.0, 6.0]), 0.0)),
        ),
        {9: "b_first_buffer", 7: "logits"},
    )
    found = name_layers(graph, layers, ["b_first_buffer"])
    assert found == [
        ("a.first", "weights"),
        ("a", "between"),
        ("a.second", "weights"),
        ("a", "between"),
        (None, "unknown"),
        ("b.first", "state"),
        ("b.first", "weights"),
    ]
    assert name_layers(graph, KnownLayers.none(), []) == [(None, "unknown")] * 7


def test_whole_model_is_no_layer() -> None:
    assert common_module(["a.first", "b.first"]) is None
    assert common_module([]) is None
    assert common_module(["a.first"]) == "a.first"


def rows_of(measured: Measured, **more: Sequence[object]) -> list[OperatorTime]:
    rows = []
    for index, timed in enumerate(measured.timed):
        operator = measured.written.operators[index]
        rows.append(
            OperatorTime(
                position=index,
                type=operator.label,
                executed=operator.kind,
                layer=f"layer{index}",
                ms=timed.ms[1],
                low_ms=timed.ms[0],
                high_ms=timed.ms[2],
                share=0.0,
                macs=operator.macs,
                arithmetic=operator.arithmetic,
                delegated=timed.delegated,
                reason=timed.reason,
            )
        )
    return rows


def measured(*operators: tuple[Written, float, str | None]) -> Measured:
    timed = [
        Timed(o.kind, index, (ms, ms, ms), reason is None, reason) for index, (o, ms, reason) in enumerate(operators)
    ]
    return Measured(WrittenGraph(tuple(o for o, _, _ in operators), {}), tuple(timed), LATENCY, "profiler", 0.001)


def test_steps_are_the_largest_savings_of_this_profile() -> None:
    found = measured(
        (written("TRANSPOSE", [0], [1]), 0.2, None),
        (written("MUL", [1], [2]), 0.03, None),
        (written("ADD", [2], [3]), 0.05, None),
        (written("CUMSUM", [3], [4]), 0.3, "no kernel"),
        (written("QUANTIZE", [4], [5]), 0.01, None),
        (written("SLICE", [5], [6]), 0.02, None),
    )
    steps = next_steps(rows_of(found), found, {}, Precision.INT8)
    assert [step.rule for step in steps] == ["undelegated", "transposes", "elementwise chains"]
    assert steps[0].gain_ms == pytest.approx(0.3 - 100 * 0.08 / 200)
    assert "no kernel" in steps[0].what
    assert "layer3" in steps[0].what
    assert steps[1].gain_ms == pytest.approx(0.2)
    assert steps[2].gain_ms == pytest.approx(0.03)
    assert steps[2].operators == (1, 2)


def test_a_value_with_two_readers_ends_a_chain() -> None:
    found = measured(
        (written("MUL", [1], [2]), 0.03, None),
        (written("ADD", [2], [3]), 0.05, None),
        (written("SUB", [2], [4]), 0.05, None),
    )
    assert not next_steps(rows_of(found), found, {}, Precision.INT8)


def test_slow_shapes_and_int8_are_told_from_rates() -> None:
    convolution = {"macs": 1_000_000, "arithmetic": Precision.FP32}
    found = measured(
        (written("CONV_2D", [0], [1], **convolution), 0.1, None),
        (written("CONV_2D", [1], [2], **convolution), 0.4, None),
    )
    steps = next_steps(rows_of(found), found, {Precision.FP32: 1e10, Precision.INT8: 4e10}, Precision.FP32)
    assert [step.rule for step in steps] == ["int8", "far below the roofline"]
    assert steps[0].gain_ms == pytest.approx(0.5 * 0.75)
    assert steps[1].gain_ms == pytest.approx(0.3)
    assert not next_steps(rows_of(found)[:1], found, {}, Precision.FP32)


def test_what_saves_less_than_a_hundredth_is_not_named() -> None:
    found = measured((written("TRANSPOSE", [0], [1]), 0.009, None))
    assert next_steps(rows_of(found), found, {}, Precision.FP32) == ()


def test_work_is_counted_from_shapes(tmp_path: Path) -> None:
    weight = np.ones((1, 3, 3, 8), np.float32)
    model = one_operator(
        "DEPTHWISE_CONV_2D",
        [((1, 8, 8, 8), None)],
        ((1, 8, 8, 8), None),
        constants=[weight, np.zeros(8, np.float32)],
        options="DepthwiseConv2DOptions",
        fields={"strideH": 1, "strideW": 1, "depthMultiplier": 1, "dilationHFactor": 1, "dilationWFactor": 1},
    )
    path = tmp_path / "one.tflite"
    path.write_bytes(model)
    (operator,) = tflite_graph.read(path)[1].operators
    assert operator.macs == 8 * 8 * 8 * 9
    assert operator.label == "DEPTHWISE_CONV_2D 3x3"
    assert operator.moved_bytes == 4 * (2 * 512 + 72 + 8)


def test_an_operator_outside_has_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "cumsum.tflite"
    path.write_bytes(
        one_operator(
            "CUMSUM",
            [((2, 4), None)],
            ((2, 4), None),
            constants=[np.asarray(1, np.int32)],
            options="CumsumOptions",
            version=1,
        )
    )
    found = tflite.measure(path, 20, 1)
    (timed,) = found.timed
    assert (timed.delegated, timed.written) == (False, 0)
    assert timed.reason == "XNNPACK takes no CUMSUM of float32 with these shapes and options, not alone either"
