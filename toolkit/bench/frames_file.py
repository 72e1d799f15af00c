"""Frames of a real video as the stored arrays that an artifact's ports take, in a file that the runner reads."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from mvtool import demo_clip, preprocessing, video
from mvtool.bench.plan import InputFile
from mvtool.errors import VideoError
from mvtool.ports import AnyArray, PortManifest
from mvtool.running import default_preprocessing, grouped, to_logical
from mvtool.verification.frames import FrameSource

MAX_CALLS = 32
MAX_BYTES = 64 << 20
DRAWN = "drawn"
"""Where the inputs of a model that takes no video come from: seeded noise and drawn pictures."""


@dataclass(frozen=True)
class Feed:
    """What an artifact is fed with.

    Attributes:
        origin: Name of the video.
        steps: Logical inputs by call, one per entry of the manifest's `inputs`.
    """

    origin: str
    steps: tuple[tuple[AnyArray, ...], ...]

    def write(self, ports: PortManifest, folder: Path) -> tuple[InputFile, ...]:
        """Write one file per input that is no state, named `input_<port>.bin`."""
        files = []
        for number, port in enumerate(ports.inputs):
            name = f"input_{port.name}.bin"
            with (folder / name).open("wb") as stream:
                for step in self.steps:
                    stream.write(port.encode(step[number]).tobytes())
            files.append(InputFile(name, len(self.steps)))
        return tuple(files)


def feed(ports: PortManifest, source: str | None = None) -> Feed:
    """Inputs for as many calls as are worth having: at most 32, and at most 64 MiB.

    Args:
        ports: Port manifest of the artifact.
        source: Video, image folder or `.npy` file; the bundled clip if not given.

    Raises:
        VideoError: The video cannot be used, or is too short for one call.
        MissingExtraError: The packages that decode videos are not installed.
    """
    size = sum(port.size_bytes for port in ports.inputs)
    calls = max(1, min(MAX_CALLS, MAX_BYTES // max(1, size)))
    if len(ports.inputs) != 1 or not _takes_video(ports):
        return Feed(DRAWN, tuple(FrameSource(ports.inputs, ports.preprocessing).steps(calls)))
    place = source or str(demo_clip.path())
    steps = tuple(islice(_from_video(ports, place), calls))
    if not steps:
        raise VideoError(f"{place} holds no frame. Give a longer video with --video.")
    return Feed(Path(place).name, steps)


def _takes_video(ports: PortManifest) -> bool:
    port = ports.inputs[0]
    lengths = dict(zip(port.logical_layout or "", port.logical_shape, strict=True)) if port.logical_layout else {}
    return port.image and lengths.get("C") == 3 and {"H", "W"} <= set(lengths)


def _from_video(ports: PortManifest, place: str) -> list[tuple[AnyArray, ...]]:
    port = ports.inputs[0]
    contract = ports.preprocessing or default_preprocessing(port)
    count = ports.frames_per_step
    frames = video.frames(place, frame_rate=ports.frame_rate, limit=MAX_CALLS * count)
    steps: list[tuple[AnyArray, ...]] = []
    for group in grouped(frames, count):
        images = np.stack([preprocessing.apply(contract, frame.image) for frame in group])
        steps.append((to_logical(images, port),))
    return steps
