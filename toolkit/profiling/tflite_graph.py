"""The operators of a `.tflite` as `mvtool.profiling.written`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from mvtool.converters.tflite_graph import DTYPES, Graph, schema
from mvtool.ports import Precision
from mvtool.profiling.written import Weight, Written, WrittenGraph, convolution_macs, shape_text

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
WEIGHTED = (*CONVOLUTIONS, "FULLY_CONNECTED", "TRANSPOSE_CONV", "CONV_3D")
SHOWN_KERNEL = (*CONVOLUTIONS, "TRANSPOSE_CONV")
BITS = {"int4": 4, "int16": 16, "uint16": 16, "uint32": 32, "uint64": 64, "complex64": 64, "complex128": 128}
"""Of element types that mvtool itself does not write; of others, such as strings, the size is not known."""
SCALES_MATTER = ("ADD", "MUL", "SUB")
"""Kinds that XNNPACK takes or leaves by the proportion of their scales."""


def read(path: Path) -> tuple[Graph, WrittenGraph]:
    """Parse a `.tflite`.

    Returns:
        The editable graph, and its operators in the same order.

    Raises:
        ConversionError: It has more than one subgraph.
    """
    graph = Graph.parse(path.read_bytes())
    ports = {tensor: graph.name(tensor) for tensor in (*graph.inputs, *graph.outputs)}
    return graph, WrittenGraph(tuple(_written(graph, operator) for operator in graph.operators), ports)


def _written(graph: Graph, operator: Any) -> Written:
    kind = graph.kind(operator)
    operands, results = _operands(operator), _results(operator)
    computed = tuple(tensor for tensor in operands if not _is_constant(graph, tensor))
    macs = _macs(graph, kind, operator)
    first = [graph.shape(tensors[0]) if tensors else () for tensors in (computed or operands or results, results)]
    return Written(
        kind=kind,
        label=_label(graph, kind, operator),
        reads=computed,
        writes=tuple(results),
        shapes=shape_text(*first),
        moved_bytes=sum(_bytes(graph, tensor) for tensor in (*operands, *results)),
        macs=macs,
        weight=_weight(graph, kind, operator),
        arithmetic=None if macs is None else _arithmetic(graph, operator),
        dtypes=tuple(dict.fromkeys(_dtype(graph, tensor) for tensor in (*computed, *results))),
    )


def _label(graph: Graph, kind: str, operator: Any) -> str:
    if kind not in SHOWN_KERNEL:
        return kind
    _, height, width, _ = graph.shape(int(operator.inputs[1]))
    return f"{kind} {height}x{width}"


def _macs(graph: Graph, kind: str, operator: Any) -> int | None:
    """From the shapes. A weight is (outputs, height, width, inputs), (1, height, width, channels) or (outputs, inputs)."""
    result = graph.shape(int(operator.outputs[0]))
    if kind == "BATCH_MATMUL":
        rows, inner = graph.shape(int(operator.inputs[0]))[-2:]
        return math.prod(result) * (rows if operator.builtinOptions.adjX else inner)
    if kind not in WEIGHTED:
        return None
    weight = graph.shape(int(operator.inputs[1]))
    if kind == "FULLY_CONNECTED":
        return math.prod(result) * weight[-1]
    if kind == "TRANSPOSE_CONV":
        # Inputs are the result's shape, the weight and the data; every input value meets every tap of every output channel.
        return math.prod(graph.shape(int(operator.inputs[2]))) * math.prod(weight[:3])
    if kind == "CONV_3D":
        return convolution_macs(result, weight[:3], weight[3])
    return convolution_macs(result, weight[1:3], 1 if kind == "DEPTHWISE_CONV_2D" else weight[3])


def _weight(graph: Graph, kind: str, operator: Any) -> Weight | None:
    tensor = int(operator.inputs[1]) if kind in WEIGHTED else -1
    if tensor < 0 or graph.body.tensors[tensor].type not in DTYPES:
        return None
    value = graph.constant(tensor)
    if value is None:
        return None
    scales = graph.scales(tensor)
    if not scales:
        return Weight(value.astype(np.float32), 0.0)
    axis = int(graph.body.tensors[tensor].quantization.quantizedDimension)
    shape = [1] * value.ndim
    shape[axis] = len(scales)
    return Weight(value.astype(np.float32) * np.reshape(scales, shape).astype(np.float32), max(scales))


def _arithmetic(graph: Graph, operator: Any) -> Precision:
    """int8 where both factors are, or where the kernel rounds float activations for int8 weights."""
    data = _dtype(graph, int(operator.inputs[2 if graph.kind(operator) == "TRANSPOSE_CONV" else 0]))
    weight = _dtype(graph, int(operator.inputs[1]))
    return Precision.INT8 if weight == "int8" and data in ("int8", "float32") else Precision.FP32


def looks(graph: Graph, operator: Any) -> tuple[object, ...]:
    """What a delegate decides by: kind, options, types, shapes, what is constant, and scales where they matter."""
    kind = graph.kind(operator)
    operands = tuple(
        (
            _dtype(graph, tensor),
            graph.shape(tensor),
            _is_constant(graph, tensor),
            graph.scales(tensor) if kind in SCALES_MATTER else bool(graph.scales(tensor)),
        )
        for tensor in (*_operands(operator), *_results(operator))
    )
    options = operator.builtinOptions
    return kind, repr(sorted(vars(options).items())) if options is not None else "", operands


def _operands(operator: Any) -> list[int]:
    return [] if operator.inputs is None else [int(tensor) for tensor in operator.inputs if tensor >= 0]


def _results(operator: Any) -> list[int]:
    return [] if operator.outputs is None else [int(tensor) for tensor in operator.outputs]


def _is_constant(graph: Graph, tensor: int) -> bool:
    data = graph.model.buffers[graph.body.tensors[tensor].buffer].data
    return data is not None and len(data) > 0


def _dtype(graph: Graph, tensor: int) -> str:
    """Element type, of files of other converters too."""
    code = graph.body.tensors[tensor].type
    known = DTYPES.get(code)
    return known or next(name.lower() for name, value in vars(schema().TensorType).items() if value == code)


def _bytes(graph: Graph, tensor: int) -> int:
    dtype = _dtype(graph, tensor)
    known = graph.body.tensors[tensor].type in DTYPES
    bits = np.dtype(dtype).itemsize * 8 if known else BITS.get(dtype, 0)
    return math.prod(graph.shape(tensor)) * bits // 8
