"""Every operator of the simulation against the runtime itself, on random stored values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tflite_models import execute, one_operator

from mvtool.converters.tflite_graph import Graph
from mvtool.errors import RuntimeLoadError
from mvtool.ports import AnyArray
from mvtool.runtimes.tflite_simulation.model import read_model
from mvtool.runtimes.tflite_simulation.simulation import Simulation
from mvtool.runtimes.tflite_simulation.table import OPERATORS
from mvtool.runtimes.tflite_simulation.weights import padding, round_dynamically

pytestmark = pytest.mark.filterwarnings("ignore")

SHAPE = (1, 5, 6, 8)
A, B, C = (0.05, -3), (0.031, 7), (0.0437, -11)
WINDOW = {"dilationHFactor": 1, "dilationWFactor": 1, "fusedActivationFunction": 0}
random = np.random.default_rng(11)


def whole(*values: int) -> AnyArray:
    return np.array(values, dtype=np.int32)


def int8(*shape: int) -> AnyArray:
    return random.integers(-127, 128, shape).astype(np.int8)


def scales(count: int) -> list[float]:
    return [float(s) for s in random.uniform(0.002, 0.01, count).astype(np.float32)]


def stored(data: bytes, seed: int) -> list[NDArray[Any]]:
    """Random values of a model's inputs."""
    generator, graph = np.random.default_rng(seed), Graph.parse(data)
    return [
        generator.integers(-128, 128, graph.shape(t)).astype(np.int8)
        if graph.dtype(t) == "int8"
        else generator.normal(0, 2, graph.shape(t)).astype(np.float32)
        for t in graph.inputs
    ]


def simulate(data: bytes, arrays: Sequence[AnyArray], folder: Path, *, anchor: bool = False) -> Sequence[NDArray[Any]]:
    path = folder / "model.tflite"
    path.write_bytes(data)
    return Simulation(read_model(path), anchor=anchor).run(arrays)


def convolution(kind: str, stride: int, padded: int, activation: int, dilation: int = 1) -> bytes:
    depthwise = kind == "DEPTHWISE_CONV_2D"
    weight, count = (int8(1, 3, 3, 8), 8) if depthwise else (int8(6, 3, 3, 8), 6)
    axis, steps = (3, scales(8)) if depthwise else (0, scales(6))
    bias = random.integers(-2000, 2000, count).astype(np.int32)
    sizes = [-(-(n if padded == 0 else n - 2 * dilation) // stride) for n in SHAPE[1:3]]
    fields = {
        **WINDOW,
        "strideH": stride,
        "strideW": stride,
        "padding": padded,
        "fusedActivationFunction": activation,
        "dilationHFactor": dilation,
        "dilationWFactor": dilation,
    }
    if depthwise:
        fields["depthMultiplier"] = 1
    return one_operator(
        kind,
        [(SHAPE, A)],
        ((1, *sizes, count), (0.11, -20)),
        constants=[(weight, steps, axis), (bias, [A[0] * s for s in steps], 0)],
        options="DepthwiseConv2DOptions" if depthwise else "Conv2DOptions",
        fields=fields,
        version=3,
    )


def binary(kind: str, activation: int = 0, second: tuple[int, ...] = SHAPE) -> bytes:
    options = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions"}[kind]
    output = (0.0237, -128) if activation == 3 else (0.09, 5)
    return one_operator(
        kind,
        [(SHAPE, A), (second, B)],
        (SHAPE, output),
        options=options,
        fields={"fusedActivationFunction": activation},
    )


def unary(kind: str, output: tuple[float, int], options: str = "", **fields: Any) -> bytes:
    return one_operator(kind, [(SHAPE, A)], (SHAPE, output), options=options, fields=fields)


def carried(
    kind: str, shape: tuple[int, ...], options: str, *constants: AnyArray, version: int = 2, **fields: Any
) -> bytes:
    return one_operator(
        kind, [(SHAPE, A)], (shape, A), constants=constants, options=options, fields=fields, version=version
    )


def reduced(kind: str) -> bytes:
    return one_operator(
        kind,
        [(SHAPE, A)],
        ((1, 1, 1, 8), (0.2 if kind == "SUM" else 0.013, 4)),
        constants=[whole(1, 2)],
        options="ReducerOptions",
        fields={"keepDims": True},
    )


def dense(width: int = 8) -> bytes:
    steps = scales(6)
    bias = random.integers(-2000, 2000, 6).astype(np.int32), [A[0] * s for s in steps], 0
    return one_operator(
        "FULLY_CONNECTED",
        [((4, width), A)],
        ((4, 6), (0.2, 3)),
        constants=[(int8(6, width), steps, 0), bias],
        options="FullyConnectedOptions",
        version=4,
    )


def strided(shape: tuple[int, ...], stride: int) -> bytes:
    bounds = whole(0, 1, 0, 0), whole(1, 4, 6, 8), whole(1, stride, 1, 1)
    return carried("STRIDED_SLICE", shape, "StridedSliceOptions", *bounds, **SLICES)


POOL = {"filterHeight": 2, "filterWidth": 2, "strideH": 2, "strideW": 2, "padding": 1}
SLICES = {"beginMask": 0, "endMask": 0, "ellipsisMask": 0, "newAxisMask": 0, "shrinkAxisMask": 0}

INT8: dict[str, Callable[[], bytes]] = {
    "conv same stride 1": lambda: convolution("CONV_2D", 1, 0, 0),
    "conv same stride 2": lambda: convolution("CONV_2D", 2, 0, 1),
    "conv valid": lambda: convolution("CONV_2D", 1, 1, 3),
    "conv dilated": lambda: convolution("CONV_2D", 1, 1, 0, dilation=2),
    "depthwise same": lambda: convolution("DEPTHWISE_CONV_2D", 1, 0, 0),
    "depthwise stride 2": lambda: convolution("DEPTHWISE_CONV_2D", 2, 0, 3),
    "dense": dense,
    "dense wide": lambda: dense(300),
    "add": lambda: binary("ADD"),
    "add relu6": lambda: binary("ADD", 3),
    "add broadcast": lambda: binary("ADD", second=(1, 1, 1, 8)),
    "sub": lambda: binary("SUB"),
    "mul": lambda: binary("MUL"),
    "mul broadcast": lambda: binary("MUL", second=(1, 5, 6, 1)),
    "logistic": lambda: unary("LOGISTIC", (1 / 256, -128)),
    "tanh": lambda: unary("TANH", (1 / 128, 0)),
    "leaky relu": lambda: unary("LEAKY_RELU", C, "LeakyReluOptions", alpha=0.15),
    "requantize": lambda: unary("QUANTIZE", C, "QuantizeOptions"),
    "mean": lambda: reduced("MEAN"),
    "sum": lambda: reduced("SUM"),
    "reshape": lambda: carried("RESHAPE", (1, 30, 8), "ReshapeOptions", whole(1, 30, 8), version=1),
    "transpose": lambda: carried("TRANSPOSE", (1, 8, 5, 6), "TransposeOptions", whole(0, 3, 1, 2)),
    "slice": lambda: carried("SLICE", (1, 2, 6, 3), "SliceOptions", whole(0, 1, 0, 4), whole(1, 2, 6, 3)),
    "slice to the end": lambda: carried("SLICE", (1, 2, 6, 3), "SliceOptions", whole(0, 1, 0, 4), whole(1, 2, -1, 3)),
    "strided slice": lambda: strided((1, 3, 6, 8), 1),
    "strided slice by 2": lambda: strided((1, 2, 6, 8), 2),
    "pad": lambda: carried(
        "PAD", (1, 7, 9, 8), "PadOptions", np.array([[0, 0], [1, 1], [0, 3], [0, 0]], dtype=np.int32)
    ),
    "max pool": lambda: carried("MAX_POOL_2D", (1, 2, 3, 8), "Pool2DOptions", **POOL),
    "concatenation": lambda: one_operator(
        "CONCATENATION", [(SHAPE, A), (SHAPE, A)], ((2, 5, 6, 8), A), options="ConcatenationOptions", fields={"axis": 0}
    ),
    "reduce max": lambda: carried("REDUCE_MAX", (1, 1, 1, 8), "ReducerOptions", whole(1, 2), keepDims=True),
    "reduce min": lambda: carried("REDUCE_MIN", (1, 1, 1, 8), "ReducerOptions", whole(1, 2), keepDims=True),
}


@pytest.mark.parametrize("name", ["mean", "add", "add relu6", "sub", "requantize"])
def test_halves_fall_as_in_the_runtime(name: str, tmp_path: Path) -> None:
    """Scales in simple proportions put many results near the middle between two integers."""
    for seed in range(20):
        graph = Graph.parse(INT8[name]())
        generator = np.random.default_rng(seed)
        for tensor in (*graph.inputs, *graph.outputs):
            scale = float(np.float32(generator.integers(1, 9) / 64 * (1 + generator.choice([0.0, 1e-7, -1e-7, 1e-5]))))
            graph.set_quantization(tensor, [scale], [int(generator.integers(-128, 128))])
        data = graph.serialise()
        arrays = stored(data, seed)
        np.testing.assert_array_equal(simulate(data, arrays, tmp_path)[0], execute(data, arrays)[0][0])


UNDELEGATED = {"slice to the end", "strided slice by 2"}


@pytest.mark.parametrize("name", INT8)
def test_int8_operators_agree_with_xnnpack_bit_for_bit(name: str, tmp_path: Path) -> None:
    data = INT8[name]()
    for seed in range(5):
        arrays = stored(data, seed)
        (expected,), operators = execute(data, arrays)
        (found,) = simulate(data, arrays, tmp_path)
        assert operators[-1] == "DELEGATE" or name in UNDELEGATED
        assert found.dtype == np.int8
        np.testing.assert_array_equal(found, expected)
        assert len(np.unique(found)) > 3


def floats(kind: str, inputs: int = 1, options: str = "", output: tuple[int, ...] = SHAPE, **rest: Any) -> bytes:
    version = rest.pop("version", 1)
    constants = rest.pop("constants", ())
    first = rest.pop("constants_first", False)
    return one_operator(
        kind,
        [(SHAPE, None)] * inputs,
        (output, None),
        options=options,
        constants=constants,
        constants_first=first,
        fields=rest,
        version=version,
    )


FLOAT: dict[str, Callable[[], bytes]] = {
    **{
        kind: partial(floats, kind)
        for kind in ("RELU", "RELU6", "RELU_N1_TO_1", "HARD_SWISH", "LOGISTIC", "TANH", "ELU", "EXP", "SIN", "COS")
    },
    **{kind: partial(floats, kind) for kind in ("ABS", "NEG", "FLOOR", "CEIL", "ROUND", "SQUARE")},
    "RELU_0_TO_1": lambda: floats("RELU_0_TO_1"),
    "GELU": lambda: floats("GELU", options="GeluOptions"),
    "GELU tanh": lambda: floats("GELU", options="GeluOptions", approximate=True),
    "LEAKY_RELU": lambda: floats("LEAKY_RELU", options="LeakyReluOptions", alpha=0.2),
    "SOFTMAX": lambda: floats("SOFTMAX", options="SoftmaxOptions", beta=1.0),
    "ADD": lambda: floats("ADD", 2, "AddOptions", fusedActivationFunction=1),
    "SUB": lambda: floats("SUB", 2, "SubOptions"),
    "MUL": lambda: floats("MUL", 2, "MulOptions"),
    "DIV": lambda: floats("DIV", 2, "DivOptions"),
    "MINIMUM": lambda: floats("MINIMUM", 2, "MaximumMinimumOptions"),
    "MAXIMUM": lambda: floats("MAXIMUM", 2, "MaximumMinimumOptions"),
    "SQUARED_DIFFERENCE": lambda: floats("SQUARED_DIFFERENCE", 2, "SquaredDifferenceOptions"),
    "MEAN": lambda: floats("MEAN", options="ReducerOptions", output=(1, 8), constants=[whole(1, 2)]),
    "AVERAGE_POOL_2D": lambda: floats(
        "AVERAGE_POOL_2D", options="Pool2DOptions", output=(1, 3, 3, 8), **{**POOL, "padding": 0}
    ),
    "MAX_POOL_2D same": lambda: floats(
        "MAX_POOL_2D", options="Pool2DOptions", output=(1, 3, 3, 8), **{**POOL, "padding": 0}
    ),
    "RESIZE_BILINEAR": lambda: floats(
        "RESIZE_BILINEAR",
        options="ResizeBilinearOptions",
        output=(1, 9, 11, 8),
        constants=[whole(9, 11)],
        halfPixelCenters=True,
        version=3,
    ),
    "PADV2": lambda: floats(
        "PADV2",
        options="PadV2Options",
        output=(1, 7, 6, 8),
        constants=[np.array([[0, 0], [1, 1], [0, 0], [0, 0]], dtype=np.int32), np.full((1,), 0.5, dtype=np.float32)],
    ),
    "EXPAND_DIMS": lambda: floats(
        "EXPAND_DIMS", options="ExpandDimsOptions", output=(1, 1, 5, 6, 8), constants=[np.array(0, dtype=np.int32)]
    ),
    "BROADCAST_TO": lambda: floats(
        "BROADCAST_TO", options="BroadcastToOptions", output=(3, 5, 6, 8), constants=[whole(3, 5, 6, 8)], version=2
    ),
    "SQUEEZE": lambda: floats("SQUEEZE", options="SqueezeOptions", output=(5, 6, 8), squeezeDims=[0]),
    "BATCH_MATMUL": lambda: floats(
        "BATCH_MATMUL", 2, "BatchMatMulOptions", output=(1, 5, 6, 6), adjX=False, adjY=True, version=1
    ),
    "POW": lambda: floats("POW", options="PowOptions", constants=[np.full((1,), 2.0, dtype=np.float32)]),
    "CAST": lambda: floats("CAST", options="CastOptions"),
    "DEQUANTIZE": lambda: one_operator("DEQUANTIZE", [(SHAPE, A)], (SHAPE, None), options="DequantizeOptions"),
}


@pytest.mark.parametrize("name", FLOAT)
def test_float_operators_agree_with_the_runtime(name: str, tmp_path: Path) -> None:
    data = FLOAT[name]()
    arrays = stored(data, 1)
    (expected,), _ = execute(data, arrays)
    (found,) = simulate(data, arrays, tmp_path)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
    assert np.ptp(found) > 0


@pytest.mark.parametrize("kind", ["SQRT", "RSQRT", "LOG"])
def test_operators_on_positive_numbers_agree_with_the_runtime(kind: str, tmp_path: Path) -> None:
    data = floats(kind)
    arrays = [np.abs(stored(data, 1)[0]) + np.float32(0.1)]
    (expected,), _ = execute(data, arrays)
    np.testing.assert_allclose(simulate(data, arrays, tmp_path)[0], expected, rtol=2e-6, atol=2e-6)


COMPARISONS = ("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL")
LOGIC = ("LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT")
CHOICES = ("SELECT", "SELECT_V2")


def chooses(kind: str) -> bytes:
    """Two real inputs become flags, which are combined, choose between the inputs, or leave as 0 and 1."""
    graph = Graph.empty()
    a, b, y = (graph.add_tensor(name, SHAPE, "float32") for name in ("a", "b", "y"))
    equal, less, flag = (graph.add_tensor(name, SHAPE, "bool") for name in ("equal", "less", "flag"))
    # At equal values both flags are set, elsewhere one or none.
    operators = [graph.new_operator("EQUAL", [a, b], [equal]), graph.new_operator("LESS_EQUAL", [a, b], [less])]
    if kind in CHOICES:
        operators.append(graph.new_operator(kind, [less, a, b], [y]))
    else:
        operands = [a, b] if kind in COMPARISONS else [equal, less][: 1 if kind == "LOGICAL_NOT" else 2]
        operators.append(graph.new_operator(kind, operands, [flag]))
        operators.append(graph.new_operator("CAST", [flag], [y], "CastOptions"))
    graph.replace_operators(operators)
    graph.set_ports([("a", a), ("b", b)], [("y", y)])
    return graph.serialise()


@pytest.mark.parametrize("kind", [*COMPARISONS, *LOGIC, *CHOICES])
def test_flags_and_choices_agree_with_the_runtime(kind: str, tmp_path: Path) -> None:
    data = chooses(kind)
    arrays = stored(data, 1)
    arrays[1][:, :2] = arrays[0][:, :2]
    (expected,), _ = execute(data, arrays)
    (found,) = simulate(data, arrays, tmp_path)
    np.testing.assert_array_equal(found, expected)
    assert np.ptp(found) > 0


def test_split_gives_its_parts_in_order(tmp_path: Path) -> None:
    graph = Graph.empty()
    axis, x = graph.add_constant("axis", np.array(3, dtype=np.int32)), graph.add_tensor("x", SHAPE, "float32")
    parts = [graph.add_tensor(f"part{i}", (1, 5, 6, 4), "float32") for i in range(2)]
    operator = graph.new_operator("SPLIT", [axis, x], parts, "SplitOptions")
    operator.builtinOptions.numSplits = 2
    graph.replace_operators([operator])
    graph.set_ports([("x", x)], [("first", parts[0]), ("second", parts[1])])
    data = graph.serialise()
    arrays = stored(data, 0)
    for found, expected in zip(simulate(data, arrays, tmp_path), execute(data, arrays)[0], strict=True):
        np.testing.assert_array_equal(found, expected)


class TestDynamicQuantization:
    """Float activations meet int8 weights: the runtime rounds the activations on the fly."""

    def dense(self) -> bytes:
        weights = int8(24, 40), scales(24), 0
        bias = random.normal(0, 1, 24).astype(np.float32)
        return one_operator(
            "FULLY_CONNECTED",
            [((1, 40), None)],
            ((1, 24), None),
            constants=[weights, bias],
            options="FullyConnectedOptions",
            fields={"asymmetricQuantizeInputs": True},
            version=9,
        )

    @pytest.mark.parametrize("shift", [0.0, 5.0, -5.0])
    def test_agrees_with_xnnpack(self, shift: float, tmp_path: Path) -> None:
        data = self.dense()
        arrays = [stored(data, 3)[0] + np.float32(shift)]
        (expected,), operators = execute(data, arrays)
        assert operators[-1] == "DELEGATE"
        np.testing.assert_allclose(simulate(data, arrays, tmp_path)[0], expected, rtol=0, atol=2e-5)

    def test_differs_from_exact_arithmetic(self, tmp_path: Path) -> None:
        data = self.dense()
        arrays = stored(data, 3)
        exact = simulate(data, arrays, tmp_path, anchor=True)[0]
        assert np.abs(simulate(data, arrays, tmp_path)[0] - exact).max() > 1e-3

    def test_rounds_each_row_by_itself_and_keeps_zero(self) -> None:
        steps, unit = round_dynamically(torch.tensor([[0.0, 255.0, 100.4], [-2.55, 0.0, -1.004]]))
        torch.testing.assert_close(steps, torch.tensor([[0.0, 255.0, 100.0], [-255.0, 0.0, -100.0]]))
        torch.testing.assert_close(unit, torch.tensor([[1.0], [0.01]]))

    def test_halves_fall_as_in_the_runtime(self, tmp_path: Path) -> None:
        """Multiples of one number, as they come out of a DEQUANTIZE, meet halves all the time."""
        data = self.dense()
        for seed in range(60):
            generator = np.random.default_rng(seed)
            unit = np.float32(generator.uniform(0.001, 0.1))
            arrays = [generator.integers(-20, 20, (1, 40)).astype(np.float32) * unit]
            (expected,), _ = execute(data, arrays)
            np.testing.assert_array_equal(simulate(data, arrays, tmp_path)[0], expected)


class TestAnchor:
    def test_activations_are_not_rounded(self, tmp_path: Path) -> None:
        data = binary("MUL")
        real = [random.normal(0, 1, SHAPE).astype(np.float32) for _ in range(2)]
        (found,) = simulate(data, real, tmp_path, anchor=True)
        np.testing.assert_allclose(found, real[0] * real[1], rtol=1e-6)

    def test_weights_are_those_of_the_file(self, tmp_path: Path) -> None:
        weight, steps = int8(2, 3), [0.5, 0.25]
        bias = np.array([4, -8], dtype=np.int32), [0.05, 0.025], 0
        data = one_operator(
            "FULLY_CONNECTED",
            [((1, 3), (0.1, 0))],
            ((1, 2), (1.0, 0)),
            constants=[(weight, steps, 0), bias],
            options="FullyConnectedOptions",
            version=4,
        )
        x = np.array([[1.0, -2.0, 0.3]], dtype=np.float32)
        expected = x @ (weight.astype(np.float32) * np.array([[0.5], [0.25]])).T + np.array([0.2, -0.2])
        np.testing.assert_allclose(simulate(data, [x], tmp_path, anchor=True)[0], expected, rtol=1e-5)


class TestErrors:
    def test_an_unknown_operator_is_named(self, tmp_path: Path) -> None:
        data = floats("CUMSUM", options="CumsumOptions", constants=[np.array(1, dtype=np.int32)])
        with pytest.raises(RuntimeLoadError, match=r"does not know the operator CUMSUM \(it writes 'y'\)"):
            simulate(data, stored(data, 0), tmp_path)

    def test_an_unknown_fused_activation_is_named(self, tmp_path: Path) -> None:
        data = floats("ADD", 2, "AddOptions", fusedActivationFunction=5)
        with pytest.raises(RuntimeLoadError, match="fused activation"):
            simulate(data, stored(data, 0), tmp_path)

    def test_a_file_of_another_kind(self, tmp_path: Path) -> None:
        path = tmp_path / "model.tflite"
        path.write_bytes(b"no model at all")
        with pytest.raises(RuntimeLoadError, match="not a TFLite file"):
            read_model(path)

    def test_an_input_of_another_shape_names_the_operator(self, tmp_path: Path) -> None:
        data = floats("ADD", 2, "AddOptions")
        wrong = [np.zeros((1, 5, 6, 8), dtype=np.float32), np.zeros((1, 5, 6, 3), dtype=np.float32)]
        with pytest.raises(RuntimeLoadError, match="failed in ADD, which writes 'y'"):
            simulate(data, wrong, tmp_path)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(172, 3, 2, (0, 1)), (43, 5, 2, (2, 2)), (86, 5, 2, (1, 2)), (7, 3, 1, (1, 1)), (4, 2, 2, (0, 0))],
)
def test_same_padding_puts_the_odd_cell_after(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert padding(size, kernel, stride, 1, 0) == expected


def test_every_operator_is_tested() -> None:
    tried = {name.split(" ")[0] for name in FLOAT} | {"SQRT", "RSQRT", "LOG", "SPLIT", *COMPARISONS, *LOGIC, *CHOICES}
    for model in INT8.values():
        graph = Graph.parse(model())
        tried |= {graph.kind(o) for o in graph.operators}
    assert set(OPERATORS) <= tried
