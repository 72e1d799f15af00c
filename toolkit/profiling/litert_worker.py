"""The process that profiles a `.tflite`: blocks of calls without profiling and blocks with it, in turns.

    python -m mvtool.profiling.litert_worker FILE CALLS THREADS [CLOCK]

It prints one JSON document. `mvtool.profiling.tflite` starts it, because the fine clock must be preloaded, and because a crash of native
code should not end the caller.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mvtool.profiling import fine_clock
from mvtool.profiling.litert_profiler import Inference, LiteRTModel, library_path

BLOCK, WARM = 20, 4
"""Calls of a block that count, and those before them that fill the caches again."""


def measure(path: Path, calls: int, threads: int, clock: Path | None) -> dict[str, Any]:
    """Time a model with and without profiling.

    Returns:
        `resolution_us`; `latency_ns`, one per call without profiling; `names`, `delegated` and `nodes` of the operators;
        `operators_ms`, lower quartile, median and upper quartile of each; `fully_accelerated`.
    """
    if threads == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    plain, profiled = LiteRTModel(path, threads, profiling=False), LiteRTModel(path, threads)
    fine = clock is not None and fine_clock.speed_up(clock, library_path())
    latency: list[int] = []
    inferences: list[Inference] = []
    for _ in range(max(1, calls // BLOCK)):
        for _ in range(WARM):
            plain.run()
        latency += [_timed(plain) for _ in range(BLOCK)]
        inferences += [_profiled(profiled) for _ in range(BLOCK)]
    first = inferences[0].operators
    names = [operator.name for operator in first]
    kept = [i for i in inferences if [operator.name for operator in i.operators] == names]
    scale = fine_clock.FASTER if fine else 1
    table = np.array([[operator.ms for operator in inference.operators] for inference in kept]) / scale
    return {
        "resolution_us": 1.0 / scale,
        "latency_ns": latency,
        "names": names,
        "delegated": [operator.delegated for operator in first],
        "nodes": [operator.node for operator in first],
        "operators_ms": np.percentile(table, (25, 50, 75), axis=0).T.tolist(),
        "fully_accelerated": plain.fully_accelerated,
    }


def _profiled(model: LiteRTModel) -> Inference:
    """One profiled call, after others: reading the events of the call before has emptied the caches."""
    for _ in range(WARM):
        model.run()
    return model.profile()


def _timed(model: LiteRTModel) -> int:
    before = time.perf_counter_ns()
    model.run()
    return time.perf_counter_ns() - before


if __name__ == "__main__":
    file, count, workers, *given = sys.argv[1:]
    print(json.dumps(measure(Path(file), int(count), int(workers), Path(given[0]) if given else None)))
