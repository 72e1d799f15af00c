"""What the latency programs share: contestants, turns in blocks, statistics.

Contestants take turns in blocks of calls, because single alternating calls evict each other's caches; the first calls
of each block are dropped.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

WARM_CALLS = 5


@dataclass
class Contestant:
    """A model that can be called.

    Attributes:
        name: For the table.
        call: One inference.
        delegates: Delegate nodes in the executed graph.
        accelerated: The runtime's own word on full acceleration, where it has one.
        blocks: Milliseconds per call, one list per block.
    """

    name: str
    call: Callable[[], object]
    delegates: str
    accelerated: str
    blocks: list[list[float]] = field(default_factory=list)


def tflite(name: str, path: Path) -> Contestant:
    """A TFLite file in LiteRT, fed with noise."""
    from ai_edge_litert.interpreter import Interpreter

    from mvtool.converters.tflite_delegation import delegation

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    generator = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], _values(generator, tuple(detail["shape"]), detail["dtype"]))
    found = delegation(path)
    return Contestant(name, interpreter.invoke, str(found["delegates"]), str(found["fully_accelerated"]))


def executorch(name: str, path: Path) -> Contestant:
    """An ExecuTorch program in the runtime of its wheel, fed with noise; like TFLite's, a call leaves its results where they are."""
    import torch
    from executorch.extension.pybindings import portable_lib

    from mvtool.operators import count
    from mvtool.ports import Runtime

    portable_lib._unsafe_reset_threadpool(1)
    module = portable_lib._load_for_executorch(str(path))
    meta = module.method_meta("forward")
    generator = np.random.default_rng(0)
    types = {1: np.int8, 6: np.float32}
    inputs = []
    for index in range(meta.num_inputs()):
        info = meta.input_tensor_meta(index)
        values = _values(generator, tuple(info.sizes()), types.get(info.dtype(), np.float32))
        inputs.append(torch.from_numpy(values))
    called = count(path, Runtime.EXECUTORCH)
    return Contestant(name, lambda: module.forward(inputs, clone_outputs=False), str(called), "")


def _values(generator: np.random.Generator, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    if np.issubdtype(dtype, np.integer) and np.dtype(dtype).itemsize > 1:
        return np.ones(shape, dtype)  # a counter: others' int8 divides by it
    if np.issubdtype(dtype, np.integer):
        return generator.integers(-100, 100, shape).astype(dtype)
    return generator.random(shape).astype(dtype)


def one_core() -> None:
    """Pin this process to one core, where the system allows."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def measure(contestants: Sequence[Contestant], blocks: int, calls: int, warm_calls: int = WARM_CALLS) -> None:
    """Time every contestant, in `blocks` turns of `calls` counted calls after `warm_calls` uncounted ones."""
    for number in range(blocks):
        for contestant in contestants if number % 2 == 0 else contestants[::-1]:
            times = []
            for _ in range(warm_calls + calls):
                began = time.perf_counter_ns()
                contestant.call()
                times.append((time.perf_counter_ns() - began) / 1e6)
            contestant.blocks.append(times[warm_calls:])


def median_ms(contestant: Contestant) -> float:
    """Median of all counted calls."""
    return statistics.median([ms for block in contestant.blocks for ms in block])


def print_table(rows: Sequence[dict[str, object]]) -> None:
    """Rows of `summary` as text."""
    print(f"{'':44}{'median':>8}{'min':>8}{'p90':>8}  {'block medians':>15}{'ratio':>7}  delegates, accelerated")
    for r in rows:
        spread = f"{r['block_median_low_ms']:.2f}-{r['block_median_high_ms']:.2f}"
        print(
            f"{r['name']:44}{r['median_ms']:8.2f}{r['min_ms']:8.2f}{r['p90_ms']:8.2f}  {spread:>15}"
            f"{r['ratio_to_base']:7.2f}  {r['delegates']}  {r['fully_accelerated']}"
        )


def summary(contestant: Contestant, base_ms: float) -> dict[str, object]:
    """Statistics of one contestant; `base_ms` is what its median is divided by."""
    calls = sorted(ms for block in contestant.blocks for ms in block)
    medians = [statistics.median(block) for block in contestant.blocks]
    median = statistics.median(calls)
    return {
        "name": contestant.name,
        "median_ms": median,
        "min_ms": calls[0],
        "p90_ms": calls[int(0.9 * len(calls))],
        "block_median_low_ms": min(medians),
        "block_median_high_ms": max(medians),
        "ratio_to_base": median / base_ms,
        "delegates": contestant.delegates,
        "fully_accelerated": contestant.accelerated,
        "calls_ms": contestant.blocks,
    }
