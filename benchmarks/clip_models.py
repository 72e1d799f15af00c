"""Latency of clip models beside other ways to run the same network, in one run.

    python benchmarks/clip_models.py x3d_xs x3d_s x3d_m tvn_1 --builds build --json clips.json

For each model a build with TFLite and ExecuTorch in fp32 and int8 is taken from the folder of builds, or made there.
Contestants, one thread each, pinned to one core, same weights, same input size:

- the build's four artifacts, converted here unless they are there (delete the folder after a change of weights or size);
- `PyTorch eager`: the module of the zoo, in inference mode;
- `ONNX Runtime fp32`: the same module through PyTorch's own ONNX exporter;
- `litert-torch fp32`: `litert_torch.convert` of the module as it is; left out, with the error, where it fails.

`ratio` is to the fastest of the others. Needs `pip install 'mvtool[all,peers]'`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from contest import Contestant, executorch, measure, median_ms, one_core, print_table, summary, tflite

MODELS = ("x3d_xs", "x3d_s", "x3d_m", "tvn_1")


def ours(model: str, builds: Path) -> list[Contestant]:
    """The artifacts of the build of `model`, converted where there is none."""
    from mvtool.converters.pipeline import convert

    folder = builds / model
    if not all(
        list(folder.glob(f"*_{precision}.{ending}")) for precision in ("fp32", "int8") for ending in ("tflite", "pte")
    ):
        print(f"converting {model} to {folder}", flush=True)
        convert(model, targets=("tflite", "executorch"), precisions=("fp32", "int8"), out=folder)
    found = [tflite(f"mvtool {path.name}", path) for path in sorted(folder.glob("*.tflite"))]
    return found + [executorch(f"mvtool {path.name}", path) for path in sorted(folder.glob("*.pte"))]


def others(model: str, scratch: Path) -> list[Contestant]:
    """Other ways to run the module; one that fails is reported and left out."""
    import torch

    from mvtool.converters import source

    loaded = source.load(model)
    clip = torch.from_numpy(np.random.default_rng(0).random(loaded.inputs[0].shape, np.float32))
    found = []
    for make in (eager, onnx_runtime, plain_litert):
        try:
            found.append(make(model, loaded.module, clip, scratch))
        except Exception as error:  # noqa: BLE001 - the failure is what is shown
            first = (str(error).splitlines() or [""])[0]
            print(f"{model}: {make.__name__} is left out: {type(error).__name__}: {first[:160]}")
    if not found:
        raise SystemExit(f"{model}: nothing to compare with; install the peers with pip install 'mvtool[all,peers]'")
    return found


def eager(model: str, module: Any, clip: Any, scratch: Path) -> Contestant:
    """The module in PyTorch."""
    import torch

    torch.set_num_threads(1)

    def call() -> object:
        with torch.inference_mode():
            return module(clip)

    return Contestant("PyTorch eager", call, "", "")


def onnx_runtime(model: str, module: Any, clip: Any, scratch: Path) -> Contestant:
    """The module through PyTorch's exporter in ONNX Runtime."""
    import onnxruntime
    import torch

    path = scratch / "model.onnx"
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(module, (clip,), path, dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: clip.numpy()}
    return Contestant("ONNX Runtime fp32", lambda: session.run(None, feed), "", "")


def plain_litert(model: str, module: Any, clip: Any, scratch: Path) -> Contestant:
    """The module through litert-torch, without any pass of mvtool; its compiler may end the process, so it gets its own."""
    path = scratch / "plain.tflite"
    command = [sys.executable, __file__, model, "--emit-plain", str(path)]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    if run.returncode < 0:
        raise RuntimeError(f"ended by {signal.Signals(-run.returncode).name}")
    if run.returncode:
        told = [line for line in run.stderr.splitlines() if re.match(r"\w*Error: ", line)]
        raise RuntimeError(told[-1] if told else f"exit {run.returncode}")
    return tflite("litert-torch fp32", path)


def emit_plain(model: str, path: Path) -> None:
    """Convert the module as it is with litert-torch."""
    import litert_torch
    import torch

    from mvtool.converters import source

    loaded = source.load(model)
    litert_torch.convert(loaded.module, (torch.zeros(loaded.inputs[0].shape),)).export(str(path))


def contest(model: str, builds: Path, blocks: int, calls: int) -> list[dict[str, object]]:
    """Time all contestants of one model."""
    with tempfile.TemporaryDirectory() as scratch:
        peers, mine = others(model, Path(scratch)), ours(model, builds)
        measure([*peers, *mine], blocks, calls, warm_calls=1)
    best = min(map(median_ms, peers))
    return [summary(contestant, best) for contestant in (*peers, *mine)]


def main() -> int:
    """Run the contest of every model and print one table each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--builds", type=Path, default=Path("build"))
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--emit-plain", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.emit_plain:
        emit_plain(arguments.models[0], arguments.emit_plain)
        return 0
    warnings.simplefilter("ignore")
    one_core()
    results: dict[str, list[dict[str, object]]] = {}
    for model in arguments.models:
        results[model] = contest(model, arguments.builds, arguments.blocks, arguments.calls)
        print(f"\n{model}, milliseconds per clip, one thread")
        print_table(results[model])
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
