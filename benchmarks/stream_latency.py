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

`--keep DIR` leaves the converted files there, for `mvtool profile` or another look; with `--no-timing` that is all it does.

They take turns in blocks of calls, because single alternating calls evict each other's caches; the first calls
of each block are dropped. Printed: median, minimum and 90th percentile of single calls, the spread of block
medians, ratio of medians to `litert-torch 2D fp32`, DELEGATE nodes, the runtime's word on full acceleration.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from contest import executorch, measure, median_ms, one_core, print_table, summary, tflite


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the plain conversions in this folder")
    parser.add_argument("--no-timing", action="store_true", help="only convert; needs --keep")
    arguments = parser.parse_args()
    if arguments.no_timing and arguments.keep is None:
        parser.error("--no-timing leaves nothing without --keep DIR")
    warnings.simplefilter("ignore")
    one_core()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        plain = plain_conversions(arguments.build, folder)
        if arguments.no_timing:
            print("\n".join(f"{name}: {path}" for name, path in plain.items()))
            return 0
        contestants = [tflite(name, path) for name, path in plain.items()]
        contestants += [tflite(f"mvtool {p.name}", p) for p in sorted(arguments.build.glob("*.tflite"))]
        contestants += [executorch(f"mvtool {p.name}", p) for p in sorted(arguments.build.glob("*.pte"))]
        measure(contestants, arguments.blocks, arguments.calls)
    base = median_ms(contestants[0])
    rows = [summary(contestant, base) for contestant in contestants]
    print_table(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
