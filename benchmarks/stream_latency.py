"""Latency of a build's artifacts beside plain conversions of the same weights, in one run.

    python benchmarks/stream_latency.py build/movinet_a0_stream --json latency.json

Contestants, one thread each, pinned to one core:

- every TFLite and ExecuTorch artifact of the build;
- `litert-torch as it is`: `litert_torch.convert` of the same network and weights with its 3D convolutions, only the
  states made inputs and outputs, because litert-torch drops what a module writes to its buffers; left out, with
  the error, where litert-torch fails.
- `litert-torch 2D fp32`: the same with 2D convolutions in PyTorch's own layout, as a careful user would rewrite it
  by hand, without any pass of mvtool after that.
- `litert-torch 2D int8`: that file quantized by ai-edge-quantizer's stock `static_wi8_ai8` recipe.

They take turns in blocks of calls, because single alternating calls evict each other's caches; the first calls
of each block are dropped. Printed: median, minimum and 90th percentile of single calls, the spread of block
medians, ratio of medians to `litert-torch 2D fp32`, DELEGATE nodes, the runtime's word on full acceleration.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
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
    return Contestant(name, lambda: module.forward(inputs), str(called), "")


def _values(generator: np.random.Generator, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    if np.issubdtype(dtype, np.integer):
        return generator.integers(-100, 100, shape).astype(dtype)
    return generator.random(shape).astype(dtype)


def plain_conversions(build: Path, folder: Path) -> dict[str, Path]:
    """Convert the build's captured program with the stock tools."""
    import litert_torch
    import torch
    from ai_edge_quantizer import quantizer, recipe

    from mvtool.converters.lowering import lower
    from mvtool.converters.program_io import load_program
    from mvtool.converters.recipe import HardSwishForm, Recipe, TemporalForm
    from mvtool.ports import Precision, Runtime

    captured = load_program(build / "reference" / "program")
    by_hand = Recipe(Runtime.TFLITE, Precision.FP32, False, TemporalForm.TAPS, HardSwishForm.KEEP)
    program = lower(captured, by_hand)
    module = program.exported.module(check_guards=False)
    inputs = tuple(torch.zeros(p.shape) for p in program.input_ports)
    files = {
        "litert-torch 2D fp32": folder / "plain_fp32.tflite",
        "litert-torch 2D int8": folder / "plain_int8.tflite",
    }
    if _converts_as_it_is(captured, litert_torch, folder / "as_it_is.tflite"):
        files["litert-torch as it is"] = folder / "as_it_is.tflite"
    litert_torch.convert(Holder(module), inputs).export(str(files["litert-torch 2D fp32"]))
    stock = quantizer.Quantizer(str(files["litert-torch 2D fp32"]), recipe.static_wi8_ai8())
    generator = np.random.default_rng(0)
    keys = [f"args_{i}" for i in range(len(inputs))]
    sample = [{k: generator.random(p.shape, np.float32) for k, p in zip(keys, program.input_ports, strict=True)}]
    calibrated = stock.calibrate({"serving_default": sample * 4})
    stock.quantize(calibrated).export_model(str(files["litert-torch 2D int8"]), overwrite=True)
    return files


class Holder:
    """Built late, because it subclasses a class of an optional package."""

    def __new__(cls, module: object) -> object:
        import torch

        class Plain(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = [module]
                for name, value in module.named_buffers():  # type: ignore[attr-defined]
                    self.register_buffer(name.replace(".", "_"), value)

            def forward(self, *values: object) -> object:
                return self.inner[0](*values)  # type: ignore[operator]

        return Plain().eval()


def _converts_as_it_is(captured: object, litert_torch: object, path: Path) -> bool:
    import torch

    inputs = tuple(torch.zeros(p.logical_shape) for p in captured.input_ports)  # type: ignore[attr-defined]
    module = captured.exported.module(check_guards=False)  # type: ignore[attr-defined]
    try:
        litert_torch.convert(Holder(module), inputs).export(str(path))  # type: ignore[attr-defined]
        return True
    except Exception as error:  # noqa: BLE001 - the failure is what is shown
        print(f"litert-torch on the module as it is: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
        return False


def measure(contestants: list[Contestant], blocks: int, calls: int) -> None:
    for number in range(blocks):
        for contestant in contestants if number % 2 == 0 else contestants[::-1]:
            times = []
            for _ in range(WARM_CALLS + calls):
                began = time.perf_counter_ns()
                contestant.call()
                times.append((time.perf_counter_ns() - began) / 1e6)
            contestant.blocks.append(times[WARM_CALLS:])


def summary(contestant: Contestant, base_ms: float) -> dict[str, object]:
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as scratch:
        contestants = [tflite(name, path) for name, path in plain_conversions(arguments.build, Path(scratch)).items()]
        contestants += [tflite(f"mvtool {p.name}", p) for p in sorted(arguments.build.glob("*.tflite"))]
        contestants += [executorch(f"mvtool {p.name}", p) for p in sorted(arguments.build.glob("*.pte"))]
        measure(contestants, arguments.blocks, arguments.calls)
    base = statistics.median([ms for block in contestants[0].blocks for ms in block])
    rows = [summary(contestant, base) for contestant in contestants]
    print(f"{'':44}{'median':>8}{'min':>8}{'p90':>8}  {'block medians':>15}{'ratio':>7}  delegates, accelerated")
    for r in rows:
        spread = f"{r['block_median_low_ms']:.2f}-{r['block_median_high_ms']:.2f}"
        print(
            f"{r['name']:44}{r['median_ms']:8.2f}{r['min_ms']:8.2f}{r['p90_ms']:8.2f}  {spread:>15}"
            f"{r['ratio_to_base']:7.2f}  {r['delegates']}  {r['fully_accelerated']}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
