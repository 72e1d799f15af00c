"""Repairs of a float graph: forms that the accelerated path takes, with the same results.

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
        rule = _RULES.get(graph.kind(operator))
        replacement = rule(graph, operator) if rule else None
        if rule and replacement is not None:
            text = " ".join((rule.__doc__ or "").split())
            done[text] = done.get(text, 0) + 1
        result.extend([operator] if replacement is None else replacement)
    graph.replace_operators(result)
    return done


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


_RULES: dict[str, Repair] = {"RELU_0_TO_1": _clamp01, "CONV_2D": _pointwise}
