"""Profiles of TFLite artifacts, by the profiler that LiteRT's library exports."""

from __future__ import annotations

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
from mvtool.profiling.alignment import align
from mvtool.profiling.measured import Measured, Timed
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
    kinds = [operator.kind for operator in written.operators]
    places = align(kinds, found["names"], found["delegated"])
    rows = zip(found["names"], found["delegated"], found["operators_ms"], places, strict=True)
    timed = [
        Timed(
            executed=name,
            written=place,
            ms=(low, middle, high),
            delegated=inside,
            reason=None if inside else _reason(graph, written.operators, place),
        )
        for name, inside, (low, middle, high), place in rows
    ]
    low, middle, high = (float(value) / 1e6 for value in np.percentile(found["latency_ns"], (25, 50, 75)))
    latency = Latency(median_ms=middle, low_ms=low, high_ms=high, calls=len(found["latency_ns"]))
    notes = [COARSE] if found["resolution_us"] >= 1.0 else []
    if lost := sum(place is None for place in places):
        notes.append(
            f"{lost} executed operators fit no operator of the file in order; their layer and work are unknown."
        )
    return Measured(written, tuple(timed), latency, "profiler", found["resolution_us"], tuple(notes))


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


def _reason(graph: Graph, operators: Sequence[Written], place: int | None) -> str:
    """Why XNNPACK does not run an operator, found by asking it about that operator alone."""
    if place is None:
        return "unknown: it is no operator of the file"
    operator = operators[place]
    types = ", ".join(operator.dtypes)
    if taken_alone(graph, place):
        return "XNNPACK takes it alone; the delegate left this place out when it divided the graph"
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
    operator = graph.operators[place]
    # Another object, because serialising drops what is not used.
    alone = Graph.parse(graph.serialise())
    (only,) = [candidate for index, candidate in enumerate(alone.operators) if index == place]
    fed = [
        int(tensor) for tensor in dict.fromkeys(map(int, only.inputs)) if tensor >= 0 and alone.constant(tensor) is None
    ]
    made = [int(tensor) for tensor in only.outputs]
    alone.replace_operators([only])
    alone.set_ports([(f"in{t}", t) for t in fed], [(f"out{t}", t) for t in made])
    assert graph.kind(operator) == alone.kind(only)
    interpreter = interpreters.Interpreter(model_content=alone.serialise(), num_threads=1)
    interpreter.allocate_tensors()
    return any(found["op_name"] in DELEGATE_KINDS for found in interpreter._get_ops_details())
