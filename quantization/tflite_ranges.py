"""True ranges of every tensor of a float `.tflite` graph while the stream rolls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mvtool.converters.tflite_graph import Graph
from mvtool.errors import ConversionError
from mvtool.extras import require
from mvtool.ports import AnyArray
from mvtool.program import StreamProgram
from mvtool.quantization.calibration import CalibrationSet, Range


def observe(data: bytes, program: StreamProgram, calibration: CalibrationSet) -> dict[int, Range]:
    """Minimum and maximum of every computed or fed float tensor, by tensor index.

    The states roll in the float graph itself: each clip starts from the initial state, and each step's
    outputs are the next step's states. TFLite's own kernels compute, not a delegate.

    Args:
        data: The float model's bytes; its ports have the program's order.
        program: Ports and initial states.
        calibration: Clips of logical inputs.

    Raises:
        ConversionError: A tensor is not finite, or a clip does not fit the model.
    """
    graph = Graph.parse(data)
    fed, results = list(graph.inputs), len(graph.outputs)
    watched = _watch(graph)
    interpreter = _interpreter(graph.serialise())
    given = [detail["index"] for detail in interpreter.get_output_details()]
    found: dict[int, Range] = {}
    for clip in calibration.clips:
        states: list[AnyArray] = program.initial_ports()
        for step in clip:
            arrays = [*(port.encode(array) for port, array in zip(program.inputs, step, strict=True)), *states]
            for index, array in zip(fed, arrays, strict=True):
                interpreter.set_tensor(index, array)
                if array.dtype == np.float32 and array.size:
                    _widen(graph, found, index, float(array.min()), float(array.max()), float(array.sum()))
            interpreter.invoke()
            if watched:
                extremes = [interpreter.get_tensor(index).tolist() for index in given[results:]]
                for index, low, high, total in zip(watched, *extremes, strict=True):
                    _widen(graph, found, index, low, high, total)
            newest = [interpreter.get_tensor(index) for index in given[len(program.outputs) : results]]
            states = program.following(states, newest)
    return found


def _watch(graph: Graph) -> list[int]:
    """Let a graph give the minima, maxima and sums of its float tensors as three more outputs.

    So they are known without keeping every tensor: a clip model may make gigabytes of them in a call.

    Returns:
        The tensors, in the order of the values.
    """
    operators = graph.operators
    written = [int(tensor) for operator in operators for tensor in operator.outputs]
    watched = [t for t in dict.fromkeys(written) if graph.dtype(t) == "float32" and 0 not in graph.shape(t)]
    if not watched:
        return []
    axes = {rank: graph.add_constant(f"axes_{rank}", np.arange(rank, dtype=np.int32)) for rank in range(7)}
    added: list[Any] = []
    for kind in ("REDUCE_MIN", "REDUCE_MAX", "SUM"):
        singles = []
        for tensor in watched:
            singles.append(graph.add_tensor(f"{kind}_{tensor}", (), "float32"))
            added.append(
                graph.new_operator(kind, [tensor, axes[len(graph.shape(tensor))]], singles[-1:], "ReducerOptions")
            )
        together = graph.add_tensor(kind, (len(singles),), "float32")
        pack = graph.new_operator("PACK", singles, [together], "PackOptions")
        pack.builtinOptions.valuesCount = len(singles)
        added.append(pack)
        graph.body.outputs = [*graph.outputs, together]
    # Each right behind what it reads, so that nothing is kept for it.
    readers: dict[int, list[Any]] = {}
    for operator in added:
        readers.setdefault(int(operator.inputs[0]), []).append(operator)
    reduced = {id(operator) for operator in added if graph.kind(operator) != "PACK"}
    placed: list[Any] = []
    for operator in operators:
        placed.append(operator)
        for tensor in operator.outputs:
            placed += [one for one in readers.get(int(tensor), []) if id(one) in reduced]
    graph.replace_operators([*placed, *(operator for operator in added if id(operator) not in reduced)])
    return watched


def _interpreter(data: bytes) -> Any:
    litert = require("ai_edge_litert.interpreter", "to calibrate TFLite models")
    interpreter = litert.Interpreter(
        model_content=data,
        num_threads=1,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    return interpreter


def _widen(graph: Graph, found: dict[int, Range], tensor: int, low: float, high: float, total: float) -> None:
    """Take the extremes of one call into account; `total`, the sum, is no number if a value is none, which extremes may hide."""
    if not (math.isfinite(low) and math.isfinite(high)) or math.isnan(total):
        raise ConversionError(
            f"Tensor {graph.name(tensor)!r} is not finite during calibration (range {low} .. {high}). "
            "Check the weights, and that the calibration frames are preprocessed as in training."
        )
    seen = Range(low, high)
    found[tensor] = found[tensor].union(seen) if tensor in found else seen
