"""The int8 rewrite on graphs whose every number can be followed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tflite_models import execute, frames, one_operator, small_stream

from mvtool.converters.tflite_export import export_float
from mvtool.converters.tflite_graph import Graph
from mvtool.converters.tflite_repairs import repair
from mvtool.errors import ConversionError
from mvtool.ports import Quantization
from mvtool.quantization.calibration import CalibrationSet, Range, affine, port_ranges
from mvtool.quantization.tflite import TFLiteQuantization, check_ties, port_parameters, quantize
from mvtool.quantization.tflite_domains import decide
from mvtool.quantization.tflite_ranges import observe
from mvtool.quantization.tflite_rewrite import Rewriter
from mvtool.quantization.tflite_scales import assign, widened
from mvtool.quantization.tflite_weights import constant_parameters, per_channel, quantize_bias, scale_floor
from mvtool.quantization.tflite_weights import quantize as quantize_array

pytestmark = pytest.mark.filterwarnings("ignore")

MAP = (1, 4, 4, 8)
VECTOR = (1, 1, 1, 8)


class Builder:
    """A float graph, operator after operator."""

    def __init__(self) -> None:
        self.graph = Graph.empty()
        self.operators: list[Any] = []

    def tensor(self, name: str, shape: tuple[int, ...] = MAP) -> int:
        return self.graph.add_tensor(name, shape, "float32")

    def constant(self, name: str, value: Any) -> int:
        return self.graph.add_constant(name, value)

    def add(self, kind: str, inputs: Sequence[int], output: int, options: str = "", **fields: Any) -> int:
        operator = self.graph.new_operator(kind, inputs, [output], options)
        for name, value in fields.items():
            setattr(operator.builtinOptions, name, value)
        self.operators.append(operator)
        return output

    def done(self, inputs: Sequence[int], outputs: Sequence[int]) -> Graph:
        self.graph.replace_operators(self.operators)
        names = [[(self.graph.name(t), t) for t in side] for side in (inputs, outputs)]
        self.graph.set_ports(*names)
        return self.graph


def kinds(graph: Graph) -> list[str]:
    return [graph.kind(o) for o in graph.operators]


def rewrite(
    graph: Graph,
    ranges: dict[int, Range],
    inputs: dict[int, Quantization] | None = None,
    outputs: dict[int, Quantization] | None = None,
) -> None:
    ins, outs = inputs or {}, outputs or {}
    pinned = {graph.inputs[i]: q for i, q in ins.items()} | {graph.outputs[i]: q for i, q in outs.items()}
    domains = decide(graph, frozenset(pinned))
    Rewriter(graph, domains, assign(graph, domains, ranges, pinned), ins, outs).run()


class TestDomains:
    def test_maps_are_int8_and_vectors_are_float(self) -> None:
        build = Builder()
        x, y, z = build.tensor("x"), build.tensor("y"), build.tensor("z", VECTOR)
        build.add("ADD", [x, x], y, "AddOptions")
        build.add("ADD", [z, z], build.tensor("w", VECTOR), "AddOptions")
        graph = build.done([x, z], [y])
        assert [o in decide(graph, frozenset()) for o in graph.operators] == [True, False]

    def test_the_update_of_a_float_state_is_float_and_what_reads_it_is_not(self) -> None:
        build = Builder()
        x, one, two = build.tensor("x"), build.tensor("one"), build.tensor("two")
        fresh = build.add("ADD", [x, x], build.tensor("fresh"), "AddOptions")
        first = build.add("ADD", [one, fresh], build.tensor("first"), "AddOptions")
        between = build.add("ADD", [first, x], build.tensor("between"), "AddOptions")
        second = build.add("ADD", [two, between], build.tensor("second"), "AddOptions")
        graph = build.done([x, one, two], [first, second])
        domains = decide(graph, frozenset(), [(one, first), (two, second)])
        assert [o in domains for o in graph.operators] == [True, False, True, False]

    def test_what_has_no_kernel_stays_float_with_the_reason(self) -> None:
        build = Builder()
        x = build.tensor("x")
        y = build.add("HARD_SWISH", [x], build.tensor("y"))
        graph = build.done([x], [y])
        domains = decide(graph, frozenset())
        assert not domains.int8
        assert domains.left == {"HARD_SWISH: XNNPACK has no int8 kernel": 1}

    def test_moving_values_between_float_operators_is_not_done_in_int8(self) -> None:
        build = Builder()
        x = build.tensor("x")
        y = build.add("HARD_SWISH", [x], build.tensor("y"))
        z = build.add("CONCATENATION", [y, y], build.tensor("z", (2, 4, 4, 8)), "ConcatenationOptions")
        w = build.add("HARD_SWISH", [z], build.tensor("w", (2, 4, 4, 8)))
        graph = build.done([x], [w])
        assert not decide(graph, frozenset()).int8

    def test_moving_values_to_an_int8_port_is(self) -> None:
        build = Builder()
        x = build.tensor("x")
        y = build.add("HARD_SWISH", [x], build.tensor("y"))
        z = build.add("CONCATENATION", [y, y], build.tensor("z", (2, 4, 4, 8)), "ConcatenationOptions")
        graph = build.done([x], [z])
        assert len(decide(graph, frozenset({z})).int8) == 1

    def test_weights_that_are_computed_keep_an_operator_in_float(self) -> None:
        build = Builder()
        x, weight = build.tensor("x"), build.tensor("weight", (8, 1, 1, 8))
        y = build.add("CONV_2D", [x, weight], build.tensor("y"), "Conv2DOptions")
        domains = decide(build.done([x, weight], [y]), frozenset())
        assert domains.left == {"CONV_2D: the weights are not constant": 1}


class TestScales:
    def fifo(self) -> tuple[Graph, dict[str, int]]:
        """frames = cat(state, x + x); next = frames[1:]"""
        build = Builder()
        x, state = build.tensor("x"), build.tensor("state")
        doubled = build.add("ADD", [x, x], build.tensor("doubled"), "AddOptions")
        both = build.add("CONCATENATION", [state, doubled], build.tensor("both", (2, 4, 4, 8)), "ConcatenationOptions")
        begin = build.constant("begin", np.array([1, 0, 0, 0], dtype=np.int32))
        size = build.constant("size", np.array([1, 4, 4, 8], dtype=np.int32))
        after = build.add("SLICE", [both, begin, size], build.tensor("after"), "SliceOptions")
        graph = build.done([x, state], [after])
        return graph, {"x": x, "state": state, "doubled": doubled, "both": both, "after": after}

    def test_one_scale_all_the_way_round_the_loop(self) -> None:
        graph, names = self.fifo()
        port = affine(-1.0, 3.0)
        pinned = {names["state"]: port, names["after"]: port}
        domains = decide(graph, frozenset(pinned))
        ranges = dict.fromkeys(names.values(), Range(-0.9, 2.0))
        scales = assign(graph, domains, ranges, pinned)
        assert {scales.of[names[n]] for n in ("state", "doubled", "both", "after")} == {port}
        assert scales.of[names["x"]] == affine(-0.9, 2.0)
        assert not scales.carried

    def test_without_pins_tied_tensors_share_the_union_of_their_ranges(self) -> None:
        graph, names = self.fifo()
        ranges = dict.fromkeys(names.values(), Range(0.0, 1.0)) | {names["state"]: Range(-2.0, 0.5)}
        scales = assign(graph, decide(graph, frozenset()), ranges, {})
        assert scales.of[names["both"]] == affine(-2.0, 1.0)

    def test_two_pins_are_kept_apart_by_a_requantization(self) -> None:
        graph, names = self.fifo()
        before, after = affine(-1.0, 3.0), affine(-2.0, 2.0)
        rewrite(graph, dict.fromkeys(names.values(), Range(-1.0, 1.0)), {1: before}, {0: after})
        assert kinds(graph) == ["QUANTIZE", "ADD", "CONCATENATION", "QUANTIZE", "SLICE"]
        assert graph.quantization(graph.inputs[1]) == before
        assert graph.quantization(graph.outputs[0]) == after
        values = np.array([-100, 0, 100], dtype=np.int8).repeat(43)[:128].reshape(MAP)
        (found,), _ = execute(graph.serialise(), [np.full(MAP, 0.25, dtype=np.float32), values])
        # The slice keeps the new frame: 0.25 + 0.25 in the output's scale.
        assert found.min() == found.max() == quantize_array(np.array(0.5), after)

    @pytest.mark.parametrize(
        ("new", "expected"),
        [
            (Range(-3.0, 2.5), Range(-3.0, 2.5)),
            (Range(-1.0, 2.0005), Range(-1.0, 2.0)),
            (Range(-0.5, 1.0), Range(-1.0, 2.0)),
        ],
        ids=["wider", "rounding", "narrower"],
    )
    def test_a_state_takes_the_range_of_all_that_shares_its_scale(self, new: Range, expected: Range) -> None:
        """A shift keeps some channels of a tensor: x is cut where the state has not seen its values."""
        graph, names = self.fifo()
        own = Range(-1.0, 2.0)
        ranges = dict.fromkeys(names.values(), own) | {names["doubled"]: new, names["x"]: Range(-9.0, 9.0)}
        domains = decide(graph, frozenset((names["state"], names["after"])))
        assert widened(graph, domains, ranges, {}, [((names["state"], names["after"]), own)]) == [expected]

    def test_a_pinned_frame_keeps_a_state_as_it_is(self) -> None:
        """A state of camera pictures: the frame's own scale is exact by definition."""
        build = Builder()
        frame, state = build.tensor("frame"), build.tensor("state")
        both = build.add("CONCATENATION", [state, frame], build.tensor("both", (2, 4, 4, 8)), "ConcatenationOptions")
        begin = build.constant("begin", np.array([1, 0, 0, 0], dtype=np.int32))
        size = build.constant("size", np.array([1, 4, 4, 8], dtype=np.int32))
        after = build.add("SLICE", [both, begin, size], build.tensor("after"), "SliceOptions")
        graph, own = build.done([frame, state], [after]), Range(0.1, 0.9)
        domains = decide(graph, frozenset((frame, state, after)))
        ranges = dict.fromkeys((frame, state, both, after), Range(0.0, 1.0))
        assert widened(graph, domains, ranges, {frame: affine(0.0, 1.0)}, [((state, after), own)]) == [own]

    def test_outputs_of_tables_have_the_formats_own_scale(self) -> None:
        build = Builder()
        x = build.tensor("x")
        y = build.add("LOGISTIC", [x], build.tensor("y"))
        z = build.add("TANH", [y], build.tensor("z"))
        graph = build.done([x], [z])
        scales = assign(graph, decide(graph, frozenset()), dict.fromkeys((x, y, z), Range(-3.0, 3.0)), {})
        assert scales.of[y] == Quantization(scale=1 / 256, zero_point=-128)
        assert scales.of[z] == Quantization(scale=1 / 128, zero_point=0)

    def test_a_tensor_that_calibration_did_not_reach_is_named(self) -> None:
        graph, names = self.fifo()
        with pytest.raises(ConversionError, match="'x' has no range"):
            assign(graph, decide(graph, frozenset()), {names["both"]: Range(0, 1)}, {})


class TestRewrite:
    def test_each_conversion_is_made_once(self) -> None:
        build = Builder()
        x = build.tensor("x")
        y = build.add("ADD", [x, x], build.tensor("y"), "AddOptions")
        first = build.add("HARD_SWISH", [y], build.tensor("first"))
        second = build.add("ABS", [y], build.tensor("second"))
        graph = build.done([x], [first, second])
        rewrite(graph, dict.fromkeys((x, y, first, second), Range(-4.0, 4.0)))
        assert kinds(graph) == ["QUANTIZE", "ADD", "DEQUANTIZE", "HARD_SWISH", "ABS"]

    @pytest.mark.parametrize(
        ("kind", "low", "high"), [("RELU", 0.0, 9.9), ("RELU6", 0.0, 6.0), ("RELU_N1_TO_1", -1.0, 1.0)]
    )
    def test_clamps_become_sums_that_are_delegated(self, kind: str, low: float, high: float) -> None:
        build = Builder()
        x = build.tensor("x")
        y = build.add("ADD", [x, x], build.tensor("y"), "AddOptions")
        z = build.add(kind, [y], build.tensor("z"))
        graph = build.done([x], [z])
        rewrite(graph, {x: Range(-5, 5), y: Range(-10, 10), z: Range(low, high)})
        assert kinds(graph) == ["QUANTIZE", "ADD", "ADD", "DEQUANTIZE"]
        values = np.linspace(-5, 5, 128, dtype=np.float32).reshape(MAP)
        (found,), operators = execute(graph.serialise(), [values])
        assert operators[-1] == "DELEGATE"
        np.testing.assert_allclose(found, np.clip(2 * values, low, high), atol=0.13)

    def test_port_names_stay_with_the_ports(self) -> None:
        build = Builder()
        x = build.tensor("x")
        y = build.add("ADD", [x, x], build.tensor("y"), "AddOptions")
        graph = build.done([x], [y])
        rewrite(graph, {x: Range(-1, 1), y: Range(-2, 2)})
        assert (graph.name(graph.outputs[0]), graph.dtype(graph.outputs[0])) == ("y", "float32")
        names = [graph.name(t) for t in range(len(graph.body.tensors))]
        assert len(set(names)) == len(names)

    def test_dense_layers_of_the_vector_path_get_int8_weights(self) -> None:
        build = Builder()
        x = build.tensor("x", (1, 8))
        weight = build.constant("weight", np.random.default_rng(0).normal(0, 1, (3, 8)).astype(np.float32))
        bias = build.constant("bias", np.arange(3, dtype=np.float32))
        y = build.add("FULLY_CONNECTED", [x, weight, bias], build.tensor("y", (1, 3)), "FullyConnectedOptions")
        graph = build.done([x], [y])
        rewrite(graph, {})
        (operator,) = graph.operators
        assert [graph.dtype(int(t)) for t in operator.inputs] == ["float32", "int8", "float32"]
        assert len(graph.scales(int(operator.inputs[1]))) == 3

    def test_convolution_weights_are_per_channel_and_biases_in_their_units(self) -> None:
        weight = np.stack([np.full((1, 1, 8), 0.5), np.full((1, 1, 8), 2.0)]).astype(np.float32)
        build = Builder()
        x = build.tensor("x")
        held = [build.constant("w", weight), build.constant("b", np.array([1.0, -1.0], dtype=np.float32))]
        fields = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
        y = build.add("CONV_2D", [x, *held], build.tensor("y", (1, 4, 4, 2)), "Conv2DOptions", **fields)
        graph = build.done([x], [y])
        rewrite(graph, {x: Range(-1, 1), y: Range(-17, 17)})
        operator = next(o for o in graph.operators if graph.kind(o) == "CONV_2D")
        np.testing.assert_allclose(graph.scales(int(operator.inputs[1])), [0.5 / 127, 2 / 127], rtol=1e-6)
        units = np.array(graph.scales(int(operator.inputs[2])))
        np.testing.assert_allclose(graph.constant(int(operator.inputs[2])) * units, [1, -1], rtol=1e-3)


class TestWeights:
    def test_by_hand(self) -> None:
        found = per_channel(np.array([[1.27, -0.635], [0.0, 12.7]]), 0)
        np.testing.assert_array_equal(found.values, [[127, -64], [0, 127]])
        np.testing.assert_allclose(found.scales, [0.01, 0.1], rtol=1e-6)

    def test_a_channel_of_zeros_has_a_scale_in_proportion(self) -> None:
        np.testing.assert_allclose(per_channel(np.array([[0.0], [12.7]]), 0).scales, [0.1, 0.1], rtol=1e-6)
        assert per_channel(np.zeros((2, 2)), 0).scales.min() > 0

    def test_a_huge_bias_widens_its_channels_scale_until_it_fits(self) -> None:
        bias, weight = np.array([1e9, 1.0]), np.array([[1.27], [1.27]])
        weights = per_channel(weight, 0, scale_floor(bias, 0.01))
        integers, units = quantize_bias(bias, 0.01, weights)
        assert weights.scales[1] == np.float32(0.01)
        np.testing.assert_allclose(integers * units.astype(np.float64), bias, rtol=1e-6)

    def test_constants_of_few_values_are_exact(self) -> None:
        corrections = np.array([1 / 9, 1 / 6, 1 / 4])
        found = constant_parameters(corrections)
        restored = (quantize_array(corrections, found).astype(float) - found.zero_point) * found.scale
        np.testing.assert_allclose(restored, corrections, rtol=1e-6)
        plain = affine(0.0, 0.25)
        rounded = (quantize_array(corrections, plain).astype(float) - plain.zero_point) * plain.scale
        assert np.abs(rounded - corrections).max() > 1e-4

    @pytest.mark.parametrize("value", [3.0, -0.7, 0.0])
    def test_a_single_number_is_exact(self, value: float) -> None:
        found = constant_parameters(np.array(value))
        assert (float(quantize_array(np.array(value), found)) - found.zero_point) * found.scale == pytest.approx(value)

    def test_constants_of_both_signs_hold_their_extremes(self) -> None:
        values = np.array([-1.0, 0.3, 2.0])
        found = constant_parameters(values)
        restored = (quantize_array(values, found).astype(float) - found.zero_point) * found.scale
        np.testing.assert_allclose(restored, values, atol=found.scale / 2 * 1.001)


class TestStream:
    """The small stream of `tflite_models`, calibrated on its own rolled state."""

    @pytest.fixture(scope="class")
    def calibration(self) -> CalibrationSet:
        return CalibrationSet((tuple((f,) for f in frames(12, seed=1)),))

    def test_observed_ranges_are_the_true_extremes_of_the_rolled_states(self, calibration: CalibrationSet) -> None:
        program = small_stream(int8=True)
        graph = export_float(program)
        observed = observe(graph.serialise(), program, calibration)
        for port, tensor in zip(program.output_ports, graph.outputs, strict=True):
            shared = port_ranges(program, calibration)[port.name]
            # A state's shared range also holds its initial value.
            assert observed[tensor].low >= shared.low - 1e-5
            assert observed[tensor].high <= shared.high + 1e-5
        count = graph.outputs[-1]
        assert observed[count] == Range(1.0, 12.0)

    def test_every_tensor_has_the_extremes_that_an_interpreter_which_keeps_all_shows(
        self, calibration: CalibrationSet
    ) -> None:
        program = small_stream(int8=True)
        graph = export_float(program)
        data = graph.serialise()
        interpreter = Interpreter(
            model_content=data,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        interpreter.allocate_tensors()
        (frame,) = calibration.clips[0][0]
        arrays = [program.inputs[0].encode(frame), *program.initial_ports()]
        for tensor, array in zip(graph.inputs, arrays, strict=True):
            interpreter.set_tensor(tensor, array)
        interpreter.invoke()
        observed = observe(data, program, CalibrationSet((((frame,),),)))
        made = {int(t) for operator in graph.operators for t in operator.outputs}
        expected = [t for t in (*graph.inputs, *sorted(made)) if graph.dtype(t) == "float32"]
        assert sorted(observed) == sorted(expected)
        for tensor in expected:
            values = interpreter.get_tensor(tensor)
            assert observed[tensor] == Range(float(values.min()), float(values.max()))

    def test_ports_take_the_shared_ranges(self, calibration: CalibrationSet) -> None:
        program = small_stream(int8=True)
        ranges = port_ranges(program, calibration) | {"fifo": Range(-7.0, 9.0), "fifo_next": Range(-7.0, 9.0)}
        graph = export_float(program)
        repair(graph)
        quantized = quantize(graph, program, TFLiteQuantization(calibration, ranges))
        assert quantized.ports["fifo"] == affine(-7.0, 9.0)
        assert graph.quantization(graph.inputs[1]) == graph.quantization(graph.outputs[1]) == affine(-7.0, 9.0)
        assert set(quantized.ports) == {"frame", "fifo", "fifo_next"}
        assert quantized.left == ()

    def test_a_port_without_a_range_is_named(self) -> None:
        with pytest.raises(ConversionError, match=r"no range for the ports \['frame'\]"):
            port_parameters(small_stream(int8=True), {"fifo": Range(0, 1), "fifo_next": Range(0, 1)})

    def test_scales_out_of_proportion_are_refused(self, calibration: CalibrationSet) -> None:
        program = small_stream(int8=True)
        far = Range(-1e7, 1e7)
        ranges = port_ranges(program, calibration) | {"fifo": far, "fifo_next": far}
        with pytest.raises(ConversionError, match="The int8 scales of small are out of proportion"):
            quantize(export_float(program), program, TFLiteQuantization(calibration, ranges))

    def test_a_model_that_overflows_is_refused_by_tensor_name(self) -> None:
        data = one_operator("EXP", [((1, 2), None)], ((1, 2), None), version=1)
        shape = {"shape": (1, 2), "logical_shape": (1, 2), "permutation": (0, 1)}
        program = small_stream(int8=True)
        exponential = program.replace(inputs=(program.inputs[0].model_copy(update=shape),), states=(), outputs=())
        large = np.full((1, 2), 200.0, dtype=np.float32)
        with pytest.raises(ConversionError, match="'y' is not finite"):
            observe(data, exponential, CalibrationSet((((large,),),)))

    def test_a_value_that_is_not_a_number_is_refused_though_the_extremes_hide_it(self) -> None:
        data = one_operator("LOG", [((1, 2), None)], ((1, 2), None), version=1)
        shape = {"shape": (1, 2), "logical_shape": (1, 2), "permutation": (0, 1)}
        program = small_stream(int8=True)
        logarithm = program.replace(inputs=(program.inputs[0].model_copy(update=shape),), states=(), outputs=())
        values = np.array([[-1.0, 2.0]], dtype=np.float32)
        with pytest.raises(ConversionError, match="'y' is not finite"):
            observe(data, logarithm, CalibrationSet((((values,),),)))

    def test_an_untied_state_is_found_on_the_graphs_own_outputs(self, calibration: CalibrationSet) -> None:
        program = small_stream(int8=True)
        graph = export_float(program)
        quantize(graph, program, TFLiteQuantization(calibration))
        graph.set_quantization(graph.outputs[1], [0.5], [3])
        with pytest.raises(ConversionError, match="State 'fifo' enters as"):
            check_ties(graph, program)
