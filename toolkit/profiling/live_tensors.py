"""The least memory that a graph's intermediate results need: what is alive at the same time, at most."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from mvtool.converters.tflite_graph import Graph

VIEWS = ("RESHAPE", "EXPAND_DIMS", "SQUEEZE")
"""Their result can lie where their operand lies."""


def largest_live_bytes(graph: Graph, elsewhere: Collection[int] = ()) -> int:
    """Bytes of the largest set of tensors that are alive during one operator.

    A tensor is alive from the operator that makes it to the last one that reads it; a graph's input from the start, a graph's
    output to the end. Constants do not count, and a view is the tensor that it shows. No plan needs less, unless operators
    write their result over an operand.

    Args:
        graph: Operators in order of execution.
        elsewhere: Tensors whose memory is not planned, for example ports of states.
    """
    operators = [(_operands(graph, operator), _results(operator)) for operator in graph.operators]
    shown = _shown(graph)

    def place(tensor: int) -> int:
        while tensor in shown:
            tensor = shown[tensor]
        return tensor

    ends = {place(tensor): index for index, (reads, writes) in enumerate(operators) for tensor in (*writes, *reads)}
    ends |= {place(tensor): len(operators) for tensor in graph.outputs}
    outside = {place(tensor) for tensor in elsewhere} | set(elsewhere)
    alive = {place(tensor) for tensor in graph.inputs if place(tensor) in ends} - outside
    largest = 0
    for index, (_, writes) in enumerate(operators):
        alive |= {place(tensor) for tensor in writes} - outside
        largest = max(largest, sum(_bytes(graph, tensor) for tensor in alive))
        alive = {tensor for tensor in alive if ends[tensor] > index}
    return largest


def _operands(graph: Graph, operator: Any) -> list[int]:
    tensors = [int(tensor) for tensor in operator.inputs]
    return [tensor for tensor in tensors if tensor >= 0 and graph.constant(tensor) is None]


def _results(operator: Any) -> list[int]:
    return [int(tensor) for tensor in operator.outputs]


def _shown(graph: Graph) -> dict[int, int]:
    """A view's result to its operand; a result that is an output of the graph has a place of its own."""
    views = [operator for operator in graph.operators if graph.kind(operator) in VIEWS]
    outputs = set(graph.outputs)
    pairs = [(_results(view)[0], _operands(graph, view)) for view in views]
    return {result: operands[0] for result, operands in pairs if operands and result not in outputs}


def _bytes(graph: Graph, tensor: int) -> int:
    return math.prod(graph.shape(tensor)) * np.dtype(graph.dtype(tensor)).itemsize
