"""Repairs of a float graph: forms that the accelerated path takes, with the same results, and short names.

litert-torch chooses the forms itself and undoes any other spelling in the module, so these are made in the
finished graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mvtool.converters.tflite_graph import Graph

Repair = Callable[[Graph, Any], list[Any] | None]

# ActivationFunctionType of the schema.
NO_ACTIVATION, RELU = 0, 1


def repair(graph: Graph) -> dict[str, int]:
    """Apply every repair.

    Returns:
        Description of a repair to the number of places changed.
    """
    done: dict[str, int] = {}
    result: list[Any] = []
    for operator in graph.operators:
        rule = RULES.get(graph.kind(operator))
        replacement = rule(graph, operator) if rule else None
        if rule and replacement is not None:
            text = " ".join((rule.__doc__ or "").split())
            done[text] = done.get(text, 0) + 1
        result.extend([operator] if replacement is None else replacement)
    graph.replace_operators(result)
    return done


def name_tensors(graph: Graph) -> None:
    """Name inner tensors after the operator that writes or first reads them, for example `conv_2d_3_weight`.

    litert-torch's names list every module that a tensor came through; after lowering that is mvtool's own
    code, the same for all.
    """
    named = {*graph.inputs, *graph.outputs}
    taken = {graph.name(t) for t in named}
    counts: dict[str, int] = {}

    def give(tensor: int, name: str) -> None:
        if tensor >= 0 and tensor not in named:
            graph.body.tensors[tensor].name = (f"{name}_inner" if name in taken else name).encode()
            named.add(tensor)

    for operator in graph.operators:
        kind = graph.kind(operator)
        counts[kind] = counts.get(kind, -1) + 1
        place = f"{kind.lower()}_{counts[kind]}"
        roles = _ROLES.get(kind, ())
        for index, tensor in enumerate(operator.inputs):
            give(int(tensor), f"{place}_{roles[index] if index < len(roles) else f'operand{index}'}")
        for index, tensor in enumerate(operator.outputs):
            give(int(tensor), f"{place}_part{index}" if index else place)


_WEIGHTED = ("data", "weight", "bias")
_ROLES = {
    "CONV_2D": _WEIGHTED,
    "DEPTHWISE_CONV_2D": _WEIGHTED,
    "FULLY_CONNECTED": _WEIGHTED,
    "RESHAPE": ("data", "shape"),
    "SLICE": ("data", "begin", "size"),
    "MEAN": ("data", "axes"),
}


def _clamp01(graph: Graph, operator: Any) -> list[Any] | None:
    """RELU_0_TO_1, which XNNPACK does not delegate, written as MINIMUM(RELU(x), 1)"""
    source, result = int(operator.inputs[0]), int(operator.outputs[0])
    name = graph.name(result)
    middle = graph.add_tensor(f"{name}_relu", graph.shape(source), "float32")
    one = graph.add_constant(f"{name}_one", np.ones((), dtype=np.float32))
    return [
        graph.new_operator("RELU", [source], [middle]),
        graph.new_operator("MINIMUM", [middle, one], [result], "MaximumMinimumOptions"),
    ]


def _pointwise(graph: Graph, operator: Any) -> list[Any] | None:
    """1x1 convolution of a single pixel written as FULLY_CONNECTED, which has dynamic int8 weights"""
    source, weight = int(operator.inputs[0]), int(operator.inputs[1])
    value = graph.constant(weight)
    if value is None or value.shape[1:3] != (1, 1) or graph.shape(source)[:3] != (1, 1, 1):
        return None
    if value.shape[3] != graph.shape(source)[3]:
        return None
    options = operator.builtinOptions
    # Other readers of the weight keep their own shape of it.
    flat = graph.add_constant(f"{graph.name(weight)}_matrix", value.reshape(value.shape[0], value.shape[3]))
    dense = graph.new_operator(
        "FULLY_CONNECTED", [source, flat, *operator.inputs[2:]], operator.outputs, "FullyConnectedOptions", version=5
    )
    dense.builtinOptions.keepNumDims = True
    dense.builtinOptions.fusedActivationFunction = options.fusedActivationFunction
    return [dense]


def _product(graph: Graph, operator: Any) -> list[Any] | None:
    """product of two computed tensors written as BATCH_MATMUL; XNNPACK takes FULLY_CONNECTED with constant weights only"""
    source, other = int(operator.inputs[0]), int(operator.inputs[1])
    bias = [int(tensor) for tensor in operator.inputs[2:] if tensor >= 0]
    plain = operator.builtinOptions.fusedActivationFunction == NO_ACTIVATION and not bias
    if not plain or graph.constant(other) is not None or len(graph.shape(source)) < 2:
        return None
    rows, width = graph.shape(other)
    # The operator may also flatten what it reads; that is no product of these shapes.
    if (*graph.shape(source)[:-1], width, rows) != (
        *graph.shape(int(operator.outputs[0]))[:-1],
        graph.shape(source)[-1],
        graph.shape(int(operator.outputs[0]))[-1],
    ):
        return None
    wanted = (*(1 for _ in graph.shape(source)[:-2]), *graph.shape(other))
    before = graph.writers().get(other)
    steps: list[Any] = []
    if wanted == graph.shape(other):
        matrix = other
    elif before is not None and graph.kind(before) == "RESHAPE" and graph.shape(int(before.inputs[0])) == wanted:
        matrix = int(before.inputs[0])
    else:
        matrix = graph.add_tensor(f"{graph.name(other)}_matrix", wanted, graph.dtype(other))
        sizes = graph.add_constant(f"{graph.name(other)}_shape", np.asarray(wanted, np.int32))
        steps.append(graph.new_operator("RESHAPE", [other, sizes], [matrix], "ReshapeOptions"))
        steps[0].builtinOptions.newShape = list(wanted)
    product = graph.new_operator("BATCH_MATMUL", [source, matrix], operator.outputs, "BatchMatMulOptions")
    product.builtinOptions.adjY = True
    return [*steps, product]


RULES: dict[str, Repair] = {"RELU_0_TO_1": _clamp01, "CONV_2D": _pointwise, "FULLY_CONNECTED": _product}
"""By the operator that is replaced."""
