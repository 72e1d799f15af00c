"""Profiles of TFLite artifacts, by the profiler that LiteRT's library exports."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mvtool.converters.tflite_graph import Graph
from mvtool.errors import RunnerError
from mvtool.extras import require
from mvtool.profiling import fine_clock, tflite_graph
from mvtool.profiling.measured import Measured, Timed
from mvtool.profiling.partition import delegate_nodes, places
from mvtool.profiling.record import Latency
from mvtool.profiling.written import Written

TIMEOUT_S = 1800.0
DELEGATE_KINDS = ("DELEGATE",)
COARSE = (
    "There is no C compiler here, so times are XNNPACK's own whole microseconds, cut off: operators below one read 0, and the sum is "
    "too small by up to a microsecond per operator."
)


def measure(path: Path, calls: int, threads: int) -> Measured:
    """Time every operator of a `.tflite`.

    Args:
        path: The file.
        calls: Calls with and without profiling, each.
        threads: Of the runtime.

    Raises:
        RunnerError: The process that profiles failed.
        MissingExtraError: ai-edge-litert is not installed.
    """
    require("ai_edge_litert", "to profile TFLite models")
    clock = fine_clock.library()
    found = _run(path, calls, threads, clock)
    graph, written = tflite_graph.read(path)
    origins = places(written.operators, found["names"], found["delegated"], found["nodes"])
    rows = zip(found["names"], found["delegated"], found["operators_ms"], origins, strict=True)
    reasons = _Reasons(graph, written.operators)
    nodes = delegate_nodes(found["delegated"], found["nodes"])
    timed = [
        Timed(
            executed=name,
            written=place,
            ms=(low, middle, high),
            delegated=inside,
            reason=None if inside else reasons(place),
        )
        for name, inside, (low, middle, high), place in rows
    ]
    low, middle, high = (float(value) / 1e6 for value in np.percentile(found["latency_ns"], (25, 50, 75)))
    latency = Latency(median_ms=middle, low_ms=low, high_ms=high, calls=len(found["latency_ns"]))
    notes = [COARSE] if found["resolution_us"] >= 1.0 else []
    if lost := sum(place is None for place in origins):
        notes.append(
            f"{lost} executed operators fit no operator of the file in order; their layer and work are unknown."
        )
    return Measured(
        written, tuple(timed), latency, "profiler", found["resolution_us"], tuple(notes), delegate_nodes=nodes
    )


def _run(path: Path, calls: int, threads: int, clock: Path | None) -> dict[str, Any]:
    given = [] if clock is None else [str(clock)]
    command = [sys.executable, "-m", "mvtool.profiling.litert_worker", str(path), str(calls), str(threads), *given]
    environment = dict(os.environ)
    if clock is not None:
        preloaded = [str(clock), *filter(None, [environment.get(fine_clock.PRELOAD)])]
        environment[fine_clock.PRELOAD] = ":".join(preloaded)
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False)
    except subprocess.TimeoutExpired as error:
        raise RunnerError(
            f"Profiling {path.name} took longer than {TIMEOUT_S:.0f} s and was ended. Ask for fewer --calls."
        ) from error
    if ended.returncode != 0:
        said = " | ".join(ended.stderr.strip().splitlines()[-3:]) or "nothing"
        raise RunnerError(
            f"The process that profiles {path.name} ended with status {ended.returncode}; it said: {said}. Nothing was recorded. "
            "`mvtool verify` tells whether the file can be executed at all."
        )
    document: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return document


class _Reasons:
    """Why XNNPACK does not run operators, found by asking it about each alone; what looks alike is asked about once."""

    def __init__(self, graph: Graph, operators: Sequence[Written]) -> None:
        self._graph, self._operators = graph, operators
        self._taken: dict[tuple[object, ...], bool] = {}

    def __call__(self, place: int | None) -> str:
        """The reason for the operator at an index of the file."""
        if place is None:
            return "unknown: it is no operator of the file"
        operator = self._operators[place]
        key = tflite_graph.looks(self._graph, self._graph.operators[place])
        if key not in self._taken:
            self._taken[key] = taken_alone(self._graph, place)
        if self._taken[key]:
            return "XNNPACK takes it alone; the delegate left this place out when it divided the graph"
        types = ", ".join(operator.dtypes)
        if any(kind not in ("float32", "int8") for kind in operator.dtypes):
            return f"XNNPACK takes no {operator.kind} of {types}; its kernels are for float32 and int8"
        return f"XNNPACK takes no {operator.kind} of {types} with these shapes and options, not alone either"


def taken_alone(graph: Graph, place: int) -> bool:
    """Whether the delegate takes an operator as the only one of a model.

    Args:
        graph: The file.
        place: Index of the operator.
    """
    interpreters = require("ai_edge_litert.interpreter", "to look at the delegation of a TFLite file")
    interpreter = interpreters.Interpreter(model_content=_alone(graph, graph.operators[place]), num_threads=1)
    interpreter.allocate_tensors()
    return any(found["op_name"] in DELEGATE_KINDS for found in interpreter._get_ops_details())


def _alone(graph: Graph, operator: Any) -> bytes:
    """A model of one operator of another; the other stays as it is."""
    alone = Graph.empty()
    only = copy.copy(operator)
    alone.model.operatorCodes, only.opcodeIndex = [graph.model.operatorCodes[operator.opcodeIndex]], 0
    places = {-1: -1}

    def moved(tensor: int) -> int:
        if tensor not in places:
            own = copy.copy(graph.body.tensors[tensor])
            alone.model.buffers.append(copy.copy(graph.model.buffers[own.buffer]))
            own.buffer = len(alone.model.buffers) - 1
            alone.body.tensors.append(own)
            places[tensor] = len(alone.body.tensors) - 1
        return places[tensor]

    only.inputs = [moved(int(tensor)) for tensor in operator.inputs]
    only.outputs = [moved(int(tensor)) for tensor in operator.outputs]
    fed = [tensor for tensor in dict.fromkeys(only.inputs) if tensor >= 0 and alone.constant(tensor) is None]
    alone.replace_operators([only])
    alone.set_ports([(f"in{t}", t) for t in fed], [(f"out{t}", t) for t in only.outputs])
    return alone.serialise()
