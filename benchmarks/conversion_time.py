"""What a conversion costs, verification included: MoViNet-A0-Stream, three targets, fp32 and int8.

`mvtool convert` and `mvtool verify` run one after the other, each as a process of its own, as a user starts them. Wall time is that of the
process; CPU time is that of the process and all its workers, and beside other work the figure to compare. The stages are those of the
manifest and of the report.

    python benchmarks/conversion_time.py [--model movinet_a0_stream] [--limit 90] [--json FILE]

It ends with 1 if the two commands together took longer than the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvtool.build import Build

LIMIT_S = 90.0


def timed(*arguments: str) -> dict[str, Any]:
    """Run `mvtool` and count the seconds of it and of its workers.

    Raises:
        SystemExit: It failed.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "mvtool", *arguments], check=False, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"mvtool {' '.join(arguments)} ended with {done.returncode}")
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}


def stages(build: Build) -> dict[str, dict[str, dict[str, float]]]:
    """Seconds and processor time of each stage: of what all artifacts share, and of each artifact."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    times = build.manifest.times
    if times is not None:
        found["for all artifacts"] = {name: stage.model_dump() for name, stage in times.stages.items()}
    for entry in build.manifest.artifacts:
        found[entry.file] = {
            name: {"seconds": seconds, "cpu_seconds": entry.cpu_seconds.get(name, 0.0)}
            for name, seconds in entry.seconds.items()
        }
    return found


def measure(model: str, folder: Path) -> dict[str, Any]:
    """Convert and verify in `folder`, and gather the times."""
    out = folder / model
    convert = timed("convert", model, "--int8", "--target", "tflite,executorch,coreml", "--out", str(out))
    verify = timed("verify", str(out))
    build = Build.load(out)
    verification = build.manifest.verification
    if verification is None or build.manifest.times is None:
        raise SystemExit("the build says neither its verification nor its times")
    return {
        "model": model,
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "convert": {**convert, "stages": stages(build), "reused": list(build.manifest.times.reused)},
        "verify": {
            **verify,
            "stages": verification.stages,
            "artifact_cpu_seconds": {report.file: report.seconds for report in verification.artifacts},
        },
        "total": {key: round(convert[key] + verify[key], 1) for key in ("seconds", "cpu_seconds")},
        "tools": verification.tools,
    }


def table(found: Mapping[str, Any], limit: float) -> str:
    """The times as a table in Markdown."""
    lines = ["| | wall s | CPU s | stages, wall s (CPU s) |", "|---|---|---|---|"]
    convert, verify, total = found["convert"], found["verify"], found["total"]
    lines.append(f"| convert | {convert['seconds']:.1f} | {convert['cpu_seconds']:.1f} | |")
    for name, parts in convert["stages"].items():
        sums = [sum(part[key] for part in parts.values()) for key in ("seconds", "cpu_seconds")]
        shown = " · ".join(f"{what} {t['seconds']:.1f} ({t['cpu_seconds']:.1f})" for what, t in parts.items())
        lines.append(f"| - {name} | {sums[0]:.1f} | {sums[1]:.1f} | {shown} |")
    shown = " · ".join(f"{what} {seconds:.1f}" for what, seconds in verify["stages"].items())
    lines.append(f"| verify | {verify['seconds']:.1f} | {verify['cpu_seconds']:.1f} | {shown} |")
    lines += [f"| - {name} | | {seconds:.1f} | |" for name, seconds in verify["artifact_cpu_seconds"].items()]
    lines.append(
        f"| **together** | **{total['seconds']:.1f}** | **{total['cpu_seconds']:.1f}** | limit {limit:g} s wall |"
    )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="movinet_a0_stream", help="name of `mvtool zoo`; its weights are untrained")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="wall seconds of both commands")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mvtool-conversion-time-") as scratch:
        found = {**measure(arguments.model, Path(scratch)), "limit_seconds": arguments.limit}
    print(table(found, arguments.limit))
    for line in found["convert"]["reused"]:
        print(f"reused: {line}")
    print(
        f"{found['cores']} cores, load average at the end {found['load_average'][0]:g} (beside other work only CPU time compares)"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if found["total"]["seconds"] > arguments.limit:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
