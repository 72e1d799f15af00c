"""The two layouts of states against each other: latency of the native runner, which hands states on as an app does.

    python benchmarks/state_layouts.py --model movinet_a0_stream [--weights a0.pth] [--convert-option --num-classes=12] \\
        [--precision fp32,int8] [--runtime tflite,executorch] [--quick] [--out DIR] [--json FILE]

Converts the model to `--state-layout shift` and `ring` (builds in DIR are used again), lets `mvtool bench --device host --interleave`
measure all files in one run, launches in turns, and prints for every runtime and precision, in milliseconds: the median of the
runtime's call, of handing the state on, and of the whole step, with the ratio of the steps.

Every file was held against the host's session by `mvtool bench` before it was measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mvtool.bench.pairing import load
from mvtool.bench.record import Record
from mvtool.bench.statistics import step_ms
from mvtool.build import Build

LAYOUTS = ("shift", "ring")
NS_PER_MS = 1e6


def built(arguments: argparse.Namespace, layout: str) -> Path:
    """The build in `layout`, converted where there is none yet."""
    folder: Path = arguments.out / layout
    if not (folder / "manifest.json").exists():
        options = ["--target", arguments.runtime, "--precision", arguments.precision, "--state-layout", layout]
        options += ["--weights", str(arguments.weights)] if arguments.weights else []
        mvtool("convert", arguments.model, *options, *arguments.convert_option, "--out", str(folder))
    return folder


def mvtool(*words: str) -> None:
    """Run a command of mvtool, which must end well."""
    subprocess.run([sys.executable, "-m", "mvtool", *words], check=True, stdout=sys.stderr)


def row(record: Record) -> dict[str, float]:
    """Medians over all launches of one file."""
    columns = {
        "call_ms": [launch.samples.inference_ns for launch in record.launches],
        "state_ms": [launch.samples.state_ns for launch in record.launches],
    }
    found = {name: float(np.median(np.concatenate(parts))) / NS_PER_MS for name, parts in columns.items()}
    found["step_ms"] = float(np.median(np.concatenate([step_ms(launch) for launch in record.launches])))
    return found


def table(records: list[Record], builds: dict[str, Path]) -> list[dict[str, Any]]:
    """One row per runtime and precision, with both layouts and their ratio."""
    layouts = {
        entry.sha256: layout for layout, folder in builds.items() for entry in Build.load(folder).manifest.artifacts
    }
    found: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for record in records:
        key = (record.artifact.runtime.value, record.artifact.precision.value)
        found.setdefault(key, {})[layouts[record.artifact.sha256]] = row(record)
    rows = []
    for (runtime, precision), sides in found.items():
        ratio = sides["ring"]["step_ms"] / sides["shift"]["step_ms"]
        rows.append({"runtime": runtime, "precision": precision, **sides, "ratio": ratio})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    columns = ("call_ms", "state_ms", "step_ms")
    print(f"{'file':<24}{'layout':<8}{'call':>9}{'state':>9}{'step':>9}{'ring/shift':>12}")
    for found in rows:
        for layout in LAYOUTS:
            numbers = "".join(f"{found[layout][name]:9.4f}" for name in columns)
            last = f"{found['ratio']:12.3f}" if layout == "ring" else ""
            name = f"{found['runtime']} {found['precision']}"
            print(f"{name:<24}{layout:<8}{numbers}{last}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--convert-option", action="append", default=[])
    parser.add_argument("--runtime", default="tflite,executorch")
    parser.add_argument("--precision", default="fp32,int8")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("build/state_layouts"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    builds = {layout: built(arguments, layout) for layout in LAYOUTS}
    records = arguments.out / "bench"
    if records.exists():
        parser.error(f"{records} holds records of another run; move it away.")
    options = ["--device", "host", "--interleave", "--no-roofline", "--out", str(records)]
    mvtool("bench", *map(str, builds.values()), *options, *(["--quick"] if arguments.quick else []))
    rows = table(load([records]), builds)
    show(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
