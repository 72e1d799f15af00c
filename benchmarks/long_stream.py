"""Artifacts of a stream over 20,000 frames beside the PyTorch stream: error and memory at the start and at the end.

    python benchmarks/long_stream.py build/movinet_nano_motion [--frames 20000] [--json FILE]

The frames are one endless generated clip at the size of the model. For windows of 100 frames around frame 300 and at the end it prints the
signal to noise ratio of the logits against the PyTorch stream of the build, how often the most probable class is the same, and the
resident memory of its process at the end beside that after 1,000 frames and at half time. Core ML is left out where this is no Mac: its reference evaluator would take hours.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvtool import preprocessing, runtimes
from mvtool.build import Build
from mvtool.converters.program_io import load_program
from mvtool.datasets.motion import MotionVideos
from mvtool.ports import Runtime
from mvtool.running import default_preprocessing, image_port, scores_port, to_logical
from mvtool.runtimes.pytorch import open_program
from mvtool.session import Session
from mvtool.verification.bounds import snr_db

WINDOW, EARLY = 100, 300
PART = 500
"""Frames that are drawn at once; each part is a clip of its own, and the stream goes on over the cuts, as a camera's would."""


def frames(count: int, size: int) -> Iterator[NDArray[np.uint8]]:
    """An endless video of objects that come one after the other."""
    parts = -(-count // PART)
    videos = MotionVideos(clips=parts, frames=PART, size=size)
    for part in range(parts):
        yield from videos.frames_of(part)[: count - part * PART]


def logits(session: Session, count: int) -> tuple[NDArray[np.float64], list[int]]:
    """Scores `(frames, classes)` and the resident memory in bytes after every part."""
    port, output = image_port(session.manifest), scores_port(session.manifest)
    contract = session.manifest.preprocessing or default_preprocessing(port)
    session.reset()
    # Taken at once, so that rows that are kept do not look like a runtime that grows.
    rows, memory = np.ones((count, math.prod(output.logical_shape))), []
    for index, frame in enumerate(frames(count, contract.crop[0])):
        seen = to_logical(preprocessing.apply(contract, frame)[None], port)
        rows[index] = session.step(seen)[output.name].reshape(-1)
        if (index + 1) % PART == 0:
            memory.append(resident_bytes())
    return rows, memory


def logits_of(path: Path, opener: str, count: int) -> tuple[NDArray[np.float64], list[int]]:
    """The same for a file on disk."""
    session = runtimes.open_file(path) if opener == "file" else open_program(load_program(path))
    return logits(session, count)


def resident_bytes() -> int:
    """VmRSS of this process."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def main() -> None:
    """Run every artifact, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    build = Build.load(arguments.build)
    count = arguments.frames
    context = multiprocessing.get_context("spawn")

    def play(path: Path, opener: str) -> tuple[NDArray[np.float64], list[int]]:
        """In a process of its own, so that its memory is nobody else's."""
        with ProcessPoolExecutor(1, context) as pool:
            return pool.submit(logits_of, path, opener, count).result()

    expected, _ = play(build.path(build.manifest.program), "program")
    windows = {f"frame {EARLY}": slice(EARLY - WINDOW, EARLY), f"frame {count}": slice(count - WINDOW, count)}
    document = []
    for entry in build.manifest.artifacts:
        if entry.runtime is Runtime.COREML:
            continue
        found, memory = play(build.path(entry), "file")
        row = {
            "artifact": f"{entry.runtime} {entry.precision}",
            "growth after 1000 frames kB": (memory[-1] - memory[1]) // 1024,
            "growth after half kB": (memory[-1] - memory[len(memory) // 2]) // 1024,
        }
        for name, window in windows.items():
            same = float((found[window].argmax(1) == expected[window].argmax(1)).mean())
            row |= {f"{name} snr_db": snr_db(found[window], expected[window]), f"{name} same_top1": same}
        document.append(row)
        told = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
        )
        print(told, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
