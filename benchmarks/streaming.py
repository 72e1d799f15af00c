"""MoViNet streams beside the official TensorFlow Model Garden and plain litert-torch, in one run, one thread.

    python benchmarks/streaming.py [a0 a1 a2] --builds build --json streaming.json

Contestants for each model, all pinned to one core, one frame per call at the model's published size:

- mvtool's TFLite and ExecuTorch artifacts in fp32 and int8, converted here unless they are there, once as `mvtool convert` writes
  them (`shift`) and once with `--state-layout ring --autotune` (`ring`), which the goals are asked of;
- `Model Garden`: its own export and int8 recipe (`benchmarks/model_garden_peer.py`), made in an environment of its own with
  `tf-models-official` (`--peer-python` names the Python of one that is there);
- `litert-torch`: the same weights through `litert_torch.convert`, as it is and with 2D convolutions written by hand, see `stream_latency.py`;
- `int8 product`: four 1x1 convolutions of 512 channels, mvtool's int8 TFLite of `mvtool.bench.roofline`; the model's multiply-adds at its speed are the floor.

They take turns in blocks of calls, because single alternating calls evict each other's caches. `cold` is the median of single calls that alternate. The goals are printed with
what was found; it ends with 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from contest import Contestant, executorch, measure, median_ms, one_core, print_table, summary, tflite
from stream_latency import plain_conversions

from mvtool.bench import roofline
from mvtool.bench.subjects import count_macs
from mvtool.build import Build
from mvtool.converters.program_io import load_program
from mvtool.datasets.motion import MotionVideos
from mvtool.ports import Precision, Runtime

MODELS = ("a0", "a1", "a2")
PEER_PACKAGES = ("tf-models-official==2.20.0", "tensorflow==2.20.*")
SIZES = (172, 224)
CALIBRATION_CLIPS, CALIBRATION_FRAMES = 20, 12
FP32, INT8 = Precision.FP32, Precision.INT8
FLOOR = "int8 product"
LAYOUTS = {"shift": ("", ()), "ring": ("_ring", ("--state-layout", "ring", "--autotune"))}
"""How the artifacts are converted: suffix of the folder, and options."""


@dataclass(frozen=True)
class Goal:
    """What is asked of a ratio.

    Attributes:
        what: In words.
        found: The ratio.
        limit: It may be so large.
    """

    what: str
    found: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether it is met."""
        return self.found <= self.limit


def ours(model: str, builds: Path) -> dict[str, Build]:
    """The builds of a model by their layout, converted where there is none."""
    found = {}
    for layout, (suffix, options) in LAYOUTS.items():
        folder = builds / f"movinet_{model}_stream{suffix}"
        if not (folder / "manifest.json").exists():
            command = [sys.executable, "-m", "mvtool", "convert", f"movinet_{model}_stream", "--int8", *options]
            subprocess.run([*command, "--target", "tflite,executorch", "--out", str(folder)], check=True)
        found[layout] = Build.load(folder)
    return found


def peer_files(models: Sequence[str], folder: Path, python: Path | None) -> dict[str, Path]:
    """Model Garden's files by contestant, made where they are not there."""
    files = {f"Model Garden {m} {p}": folder / f"model_garden_{m}_{p}.tflite" for m in models for p in ("fp32", "int8")}
    missing = [
        model for model in models if not all(files[f"Model Garden {model} {p}"].exists() for p in ("fp32", "int8"))
    ]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        frames = folder / "calibration.npz"
        np.savez(frames, **{str(size): _clips(size) for size in SIZES})
        program = Path(__file__).with_name("model_garden_peer.py")
        command = [str(python or _environment(folder / "environment")), str(program), str(folder)]
        subprocess.run([*command, "--frames", str(frames), "--models", *missing], check=True)
    return files


def _environment(folder: Path) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"Installing {', '.join(PEER_PACKAGES)} into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEER_PACKAGES], check=True)
    return python


def _clips(size: int) -> np.ndarray:
    videos = MotionVideos(clips=CALIBRATION_CLIPS, frames=CALIBRATION_FRAMES, size=size, split="train")
    return np.stack([videos.frames_of(index) for index in range(CALIBRATION_CLIPS)]).astype(np.float32) / 255


def cold(contestants: Sequence[Contestant], rounds: int) -> list[float]:
    """Median milliseconds of single calls that alternate."""
    times: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        for contestant, row in zip(contestants, times, strict=True):
            began = time.perf_counter_ns()
            contestant.call()
            row.append((time.perf_counter_ns() - began) / 1e6)
    return [statistics.median(row) for row in times]


def contest(
    model: str, builds: Mapping[str, Build], peers: Mapping[str, Path], blocks: int, calls: int
) -> list[dict[str, object]]:
    """Time all contestants of one model."""
    product = roofline.product(Runtime.TFLITE, roofline.cache_folder())
    with tempfile.TemporaryDirectory() as scratch:
        plain = plain_conversions(builds["shift"].folder, Path(scratch))
        contestants = [tflite(name, path) for name, path in peers.items() if f" {model} " in name]
        contestants += [tflite(name, path) for name, path in plain.items()]
        opened = {Runtime.TFLITE: tflite, Runtime.EXECUTORCH: executorch}
        for layout, build in builds.items():
            for entry in build.manifest.artifacts:
                if entry.runtime in opened and entry.precision in (FP32, INT8):
                    name = f"mvtool {entry.runtime} {entry.precision} {layout}"
                    contestants.append(opened[entry.runtime](name, build.path(entry)))
        contestants.append(tflite(FLOOR, product.path(product.artifact(Runtime.TFLITE, INT8))))
        measure(contestants, blocks, calls)
        single = cold(contestants, 5 * blocks)
    base = median_ms(contestants[0])
    return [{**summary(c, base), "cold_ms": ms} for c, ms in zip(contestants, single, strict=True)]


def goals(model: str, build: Build, rows: Sequence[Mapping[str, object]]) -> list[Goal]:
    """What is asked of the artifacts of one model, in the layout of `build`."""
    ms = {str(row["name"]): float(str(row["median_ms"])) for row in rows}
    fp32, int8 = ms["mvtool tflite fp32 ring"], ms["mvtool tflite int8 ring"]
    plain = ms.get("litert-torch as it is", ms["litert-torch 2D fp32"])
    found = [
        Goal("TFLite int8 beside Model Garden's int8", int8 / ms[f"Model Garden {model} int8"], 0.15),
        Goal("TFLite int8 beside our fp32", int8 / fp32, 0.60),
        Goal("TFLite fp32 beside Model Garden's fp32", fp32 / ms[f"Model Garden {model} fp32"], 0.75),
        Goal("TFLite fp32 beside plain litert-torch", fp32 / plain, 0.55),
        Goal("ExecuTorch fp32 beside our TFLite", ms["mvtool executorch fp32 ring"] / fp32, 1.2),
        Goal("ExecuTorch int8 beside our TFLite", ms["mvtool executorch int8 ring"] / int8, 1.3),
    ]
    macs = count_macs(build)
    floor = ms[FLOOR] * macs / roofline.MACS
    if model == "a0":
        found.append(
            Goal(f"TFLite int8 beside its {macs / 1e6:.1f} M multiply-adds alone, {floor:.3f} ms", int8 / floor, 4.0)
        )
    return found + sizes(build)


def sizes(build: Build) -> list[Goal]:
    """Bytes of the TFLite and ExecuTorch files beside what their weights need, the embedded manifest apart."""
    state = load_program(build.path(build.manifest.program)).exported.state_dict.values()
    weights = sum(tensor.numel() for tensor in state)
    channels = sum(tensor.shape[0] for tensor in state if tensor.dim() > 1)
    allowed = {FP32: 1.02 * 4 * weights + 100e3, INT8: weights + 28 * channels + 100e3}
    found = []
    for entry in build.manifest.artifacts:
        if entry.runtime in (Runtime.TFLITE, Runtime.EXECUTORCH) and entry.precision in allowed:
            embedded = len(entry.ports.model_dump_json(by_alias=True).encode())
            size = build.path(entry).stat().st_size - embedded
            found.append(Goal(f"{entry.file}, {size / 1e6:.2f} MB", size / allowed[entry.precision], 1.0))
    return found


def main() -> int:
    """Run the contest of every model, print a table and the goals of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--builds", type=Path, default=Path("build"))
    parser.add_argument("--peers", type=Path, default=Path("build/model_garden"))
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    peers = peer_files(arguments.models, arguments.peers, arguments.peer_python)
    builds = {model: ours(model, arguments.builds) for model in arguments.models}
    if hasattr(os, "sched_setaffinity"):
        one_core()
    document, met = {}, True
    for model, layouts in builds.items():
        rows = contest(model, layouts, peers, arguments.blocks, arguments.calls)
        found = goals(model, layouts["ring"], rows)
        print(f"\nMoViNet-{model.upper()}-Stream, milliseconds per frame, one thread")
        print_table(rows)
        for row in rows:
            print(f"  cold, single calls in turns: {row['name']} {row['cold_ms']:.2f} ms")
        for goal in found:
            print(f"  {'holds ' if goal.holds else 'MISSED'} {goal.what}: {goal.found:.3f}, at most {goal.limit:g}")
        met = met and all(goal.holds for goal in found)
        document[model] = {"rows": rows, "goals": [{**asdict(goal), "holds": goal.holds} for goal in found]}
        if arguments.json:
            arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
