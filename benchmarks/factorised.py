"""What the (2+1)D rewrite costs and saves: multiply-adds, states, latency and accuracy before and after, in one table.

    python benchmarks/factorised.py --model movinet_nano_stream_3d --weights trained_3d.safetensors \\
        [--rewrites 2plus1d 2plus1d:0.9 2plus1d:1] [--max-drop 0.01] [--recovered 2plus1d:1=recovered.safetensors] \\
        [--native movinet_nano_stream=native.safetensors] [--dataset motion:split=test,clips=2000] [--out DIR] [--json FILE] [--plot FILE]

Converted are the 3D model as it was trained, the same with every rewrite, with the rank that `--max-drop` chooses on other clips, with weights
that were tuned at a rank (`mvtool train --weights W --rewrite 2plus1d:RANK`), and a model that had (2+1)D kernels from the start. All files play the
same held-out clips, so drops beside the 3D model are paired. Latency is of TFLite on one thread of one core, all files in turns.

Builds in DIR that were made from the same weights are used again.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from contest import Contestant, measure, median_ms, one_core, summary, tflite
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mvtool.bench.subjects import count_macs
from mvtool.build import Build
from mvtool.evaluation.evaluate import final_answers
from mvtool.evaluation.statistics import Interval, paired_drop, share
from mvtool.evaluation.task import Subject, task_of
from mvtool.evaluation.workers import local
from mvtool.files import sha256_of
from mvtool.plotting import COLOURS
from mvtool.ports import Precision, Runtime

REWRITES = ("2plus1d", "2plus1d:0.98", "2plus1d:0.95", "2plus1d:0.9", "2plus1d:0.8", "2plus1d:2", "2plus1d:1")
SETTINGS = ("--resolution", "64", "--labels", "motion", "--num-classes", "12")
CALIBRATION = "motion:split=train,frames=64,clips=24"
VALIDATION = "motion:split=validation,clips=400"
MARKERS = "osD^v<>Ph*XpdH8+x1234"
PRECISIONS = (Precision.FP32, Precision.INT8)


@dataclass(frozen=True)
class Variant:
    """A line of the table.

    Attributes:
        name: For the table.
        model: Of the zoo.
        weights: Checkpoint.
        options: Further options of `mvtool convert`.
    """

    name: str
    model: str
    weights: Path
    options: tuple[str, ...] = ()

    def build(self, folder: Path) -> Build:
        """Convert, or load what was converted before."""
        out = folder / re.sub(r"[^a-z0-9.]+", "_", self.name.lower())
        made_of = " ".join([self.model, sha256_of(self.weights), *self.options])
        known = out.with_name(f"{out.name}.source")
        if not (known.exists() and known.read_text() == made_of):
            print(f"Converting: {self.name}", flush=True)
            command = [sys.executable, "-m", "mvtool", "convert", self.model, "--weights", str(self.weights), *SETTINGS]
            command += ["--int8", "--calibration", CALIBRATION, "--target", "tflite", *self.options, "--out", str(out)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            known.write_text(made_of)
        return Build.load(out)


def variants(arguments: argparse.Namespace) -> list[Variant]:
    """The 3D model first: everything is compared with it."""
    model, weights = arguments.model, arguments.weights
    found = [Variant("3D, as trained", model, weights)]
    found += [Variant(rewrite, model, weights, ("--rewrite", rewrite)) for rewrite in arguments.rewrites]
    if arguments.max_drop is not None:
        limit = ("--max-drop", str(arguments.max_drop), "--evaluation", VALIDATION)
        found.append(
            Variant(f"2plus1d, max drop {arguments.max_drop:g}", model, weights, ("--rewrite", "2plus1d", *limit))
        )
    for text in arguments.recovered:
        rewrite, _, path = text.partition("=")
        found.append(Variant(f"{rewrite}, tuned", model, Path(path), ("--rewrite", rewrite)))
    for text in arguments.native:
        name, _, path = text.partition("=")
        found.append(Variant(f"{name}, (2+1)D from the start", name, Path(path)))
    return found


def file_of(build: Build, precision: Precision) -> Path:
    """Its TFLite file."""
    return build.path(build.artifact(Runtime.TFLITE, precision))


def right_answers(builds: Sequence[Build], folder: Path, dataset: str) -> NDArray[np.bool_]:
    """Whether the most probable class after the last frame was the true one: `(2 * builds, clips)`, fp32 before int8."""
    files = [file_of(build, precision) for build in builds for precision in PRECISIONS]
    subjects = [Subject(str(index), str(file.relative_to(folder)), sha256_of(file)) for index, file in enumerate(files)]
    ports = builds[0].artifact(Runtime.TFLITE, Precision.FP32).ports
    return final_answers(task_of(ports, subjects, dataset), folder, workers=local(2)) == 0


def drop(base: NDArray[np.bool_], new: NDArray[np.bool_]) -> Interval:
    """Share of clips that `new` loses beside `base`."""
    return paired_drop(int((base & ~new).sum()), int((new & ~base).sum()), len(base))


def latencies(builds: Sequence[Build]) -> list[Contestant]:
    """Every file of every build, in turns, on one core."""
    contestants = [tflite(file_of(b, p).name, file_of(b, p)) for b in builds for p in PRECISIONS]
    one_core()
    measure(contestants, 20, 100)
    return contestants


def size(build: Build) -> dict[str, int]:
    """Multiply-adds of one call as captured, bytes of all states in both precisions."""
    states = {
        p.value: sum(s.input.size_bytes for s in build.artifact(Runtime.TFLITE, p).ports.states) for p in PRECISIONS
    }
    return {"macs": count_macs(build), **states}


def pairs_of(build: Build) -> list[str]:
    """What the rewrite did to each layer, as the manifest tells it."""
    entries = build.artifact(Runtime.TFLITE, Precision.FP32).rewrites
    return [line for entry in entries if entry.name == "2plus1d" for line in entry.details]


def plot(rows: Sequence[dict[str, Any]], target: Path) -> None:
    """Wrong answers against latency, each with its interval, its multiply-adds and states."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for index, row in enumerate(rows):
        wrong, low, high = (100 * (1 - row["top1"][end]) for end in ("value", "high", "low"))
        axes.errorbar(
            row["latency"][0]["median_ms"],
            wrong,
            yerr=[[wrong - low], [high - wrong]],
            fmt=MARKERS[index],
            color=COLOURS[index % len(COLOURS)],
            capsize=3,
            label=f"{row['name']}: {row['macs'] / 1e6:.1f} M multiply-adds, states {row['fp32'] / 1e3:.0f} kB",
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("TFLite fp32, milliseconds per frame")
    axes.set_ylabel("wrong answers (%), 95 % interval")
    axes.grid(alpha=0.3, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(target, dpi=110)


def main() -> None:
    """Convert, count, play, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--rewrites", nargs="*", default=list(REWRITES))
    parser.add_argument("--max-drop", type=float)
    parser.add_argument("--recovered", action="append", default=[], metavar="REWRITE=FILE")
    parser.add_argument("--native", action="append", default=[], metavar="MODEL=FILE")
    parser.add_argument("--dataset", default="motion:split=test,clips=2000")
    parser.add_argument("--out", type=Path, default=Path("build/factorised"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    rows = variants(arguments)
    builds = [row.build(arguments.out) for row in rows]
    print(f"Playing {arguments.dataset}", flush=True)
    right = right_answers(builds, arguments.out, arguments.dataset)
    timed = latencies(builds)
    document = []
    head = ("", "M multiply-adds", "states kB fp32", "int8", "ms fp32", "int8", "top-1 fp32 (%)", "drop", "drop int8")
    print(" | ".join(head))
    for index, (row, build) in enumerate(zip(rows, builds, strict=True)):
        fp32, int8 = right[2 * index], right[2 * index + 1]
        top1, lost, lost_int8 = share(int(fp32.sum()), len(fp32)), drop(right[0], fp32), drop(fp32, int8)
        told, times = size(build), timed[2 * index : 2 * index + 2]
        print(
            f"{row.name} | {told['macs'] / 1e6:.2f} | {told['fp32'] / 1e3:.1f} | {told['int8'] / 1e3:.1f} | "
            f"{median_ms(times[0]):.3f} | {median_ms(times[1]):.3f} | {_points(top1)} | {_points(lost)} | {_points(lost_int8)}"
        )
        document.append(
            {
                "name": row.name,
                **told,
                "top1": top1._asdict(),
                "drop_beside_3d": lost._asdict(),
                "int8_drop_beside_fp32": lost_int8._asdict(),
                "latency": [summary(one, median_ms(timed[0])) for one in times],
                "layers": pairs_of(build),
            }
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"dataset": arguments.dataset, "rows": document}, indent=1) + "\n")
    if arguments.plot:
        plot(document, arguments.plot)


def _points(interval: Interval) -> str:
    return f"{100 * interval.value:.2f} ({100 * interval.low:.2f} to {100 * interval.high:.2f})"


if __name__ == "__main__":
    main()
