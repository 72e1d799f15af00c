"""Deterministic inputs to replay: moving pictures for video models, seeded noise for others.

The pictures are drawn here instead of decoded from a file so that verify needs no video library and
gives the same bytes on every machine: integer phases, one table of sines, eight bits per channel. Each
frame differs from every other within thousands of frames, since the periods of its parts are coprime.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvtool.errors import UsageError
from mvtool.ports import AnyArray, InputPort, Preprocessing
from mvtool.preprocessing import normalise

STREAM_FRAMES = 300
CLIP_FRAMES = 8
MIN_CLIPS = 2
MIN_DISTINCT_FRAMES = 100

_PHASES = 1024
_SINES = np.rint(127.0 * np.sin(2 * np.pi * np.arange(_PHASES) / _PHASES)).astype(np.int32)
# Steps per frame of the three gratings of a channel, odd so that each visits all 1024 phases.
_SPEEDS = ((7, 13, 29), (11, 17, 31), (5, 19, 37))
_SCENE_FRAMES = 75
_UNIT_RANGE = Preprocessing(resize_short_side=1, crop=(1, 1))


@dataclass(frozen=True)
class FrameSource:
    """Inputs of a model, by step.

    Attributes:
        inputs: Ports that are not state.
        preprocessing: Value range of pictures; without it they lie in 0..1.
        seed: Changes everything.
    """

    inputs: tuple[InputPort, ...]
    preprocessing: Preprocessing | None = None
    seed: int = 0

    def step(self, index: int) -> tuple[AnyArray, ...]:
        """The logical inputs of step `index`, counted from 0."""
        return tuple(self._input(port, number, index) for number, port in enumerate(self.inputs))

    def steps(self, count: int) -> Iterator[tuple[AnyArray, ...]]:
        """The first `count` steps."""
        return (self.step(index) for index in range(count))

    def _input(self, port: InputPort, number: int, index: int) -> AnyArray:
        if port.image and port.logical_layout:
            return logical_picture(self.pictures(port, index), port, self.preprocessing)
        generator = np.random.default_rng([self.seed, number, index])
        if port.quantization is None and port.dtype in ("int32", "int64", "bool"):
            # 0 and 1 are valid for a flag, a class index and a token alike.
            return generator.integers(0, 2, port.logical_shape).astype(port.dtype)
        return generator.standard_normal(port.logical_shape, np.float32)

    def pictures(self, port: InputPort, index: int) -> NDArray[np.uint8]:
        """Camera bytes of a picture port for step `index`.

        Returns:
            `(T, H, W, 3)` RGB, `(1, H, W, 3)` for a port without time axis.

        Raises:
            UsageError: The port does not hold three-channel pictures.
        """
        lengths = dict(zip(port.logical_layout or "", port.logical_shape, strict=True))
        if lengths.get("C") != 3 or lengths.get("N", 1) != 1 or not {"H", "W"} <= set(lengths):
            raise UsageError(
                f"Input {port.name!r} is a picture of layout {port.logical_layout} {port.logical_shape}; "
                "expected three channels, height, width and a batch of one."
            )
        count = lengths.get("T", 1)
        return np.stack([picture(self.seed + index * count + t, lengths["H"], lengths["W"]) for t in range(count)])


def logical_picture(
    frames: NDArray[np.uint8], port: InputPort, preprocessing: Preprocessing | None
) -> NDArray[np.float32]:
    """Camera bytes `(T, H, W, 3)` as the logical tensor of a picture port, real values."""
    real = normalise(preprocessing or _UNIT_RANGE, frames.astype(np.float32))
    order = [letter for letter in port.logical_layout or "" if letter in "THWC"]
    if "T" in order:
        arranged = real.transpose(["THWC".index(letter) for letter in order])
    else:
        arranged = real[0].transpose(["HWC".index(letter) for letter in order])
    return np.ascontiguousarray(arranged.reshape(port.logical_shape))


def picture(index: int, height_px: int, width_px: int) -> NDArray[np.uint8]:
    """Frame `index` of an endless video: gratings that drift, under a moving bright square.

    Every 75 frames the scene cuts to gratings of other directions, as a video does.

    Returns:
        `(H, W, 3)` RGB.
    """
    scene = index // _SCENE_FRAMES
    rows = np.arange(height_px, dtype=np.int64)[:, None] * 1024 // max(height_px, 1)
    columns = np.arange(width_px, dtype=np.int64)[None] * 1024 // max(width_px, 1)
    channels = []
    for number, (fast, slow, third) in enumerate(_SPEEDS):
        along, across = 2 + (scene + number) % 5, 1 + (scene * 3 + number) % 7
        first = _SINES[(rows * along + columns * across + index * fast) % _PHASES]
        second = _SINES[(columns * (across + 4) - rows * (along + 6) + index * slow) % _PHASES]
        light = _SINES[(index * third + 341 * number) % _PHASES]
        channels.append(128 + (first * 5 + second * 3 + light * 2) // 10)
    image: NDArray[np.int64] = np.stack(np.broadcast_arrays(*channels), axis=-1)
    _draw_square(image, index)
    return np.clip(image, 0, 255).astype(np.uint8)


def _draw_square(image: NDArray[np.int64], index: int) -> None:
    height, width = image.shape[:2]
    side = max(2, min(height, width) // 5)
    top, left = (index * 3) % max(1, height - side), (index * 5) % max(1, width - side)
    image[top : top + side, left : left + side] += np.array([90, -60, 40])


def digest(arrays: Sequence[AnyArray]) -> bytes:
    """A short fingerprint of arrays, to count different ones."""
    hasher = hashlib.blake2b(digest_size=16)
    for array in arrays:
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.digest()


def steps_for(stream: bool, frames_per_step: int, frames: int = STREAM_FRAMES) -> int:
    """Steps that replay `frames` frames of a stream.

    Calls of a model without state do not depend on each other, so `CLIP_FRAMES` frames do, in at least `MIN_CLIPS` clips.
    """
    if stream:
        return -(-frames // frames_per_step)
    return max(MIN_CLIPS, -(-CLIP_FRAMES // frames_per_step))


def step_noun(stream: bool, frames_per_step: int) -> str:
    """What one step takes, in a word."""
    if frames_per_step == 1:
        return "frame"
    return "step" if stream else "clip"
