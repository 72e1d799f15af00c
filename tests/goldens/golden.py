"""Reads golden files, and makes the tensors and clips they were computed from (rule version 1)."""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

FOLDER = Path(__file__).parent
TENSORFLOW_TAIL = "/.ATTRIBUTES/VARIABLE_VALUE"
GAIN = 1.05
TAU = 2.0 * math.pi


@dataclass(frozen=True)
class Golden:
    """One golden file."""

    name: str
    content: dict[str, Any]

    @property
    def variant(self) -> str:
        return str(self.content["variant"])

    def tensors(self) -> dict[str, Array]:
        """Checkpoint key, without TensorFlow's tail, to tensor; checked against the file's crc32."""
        tail = TENSORFLOW_TAIL if self.content["tensorflow"] else ""
        arrays, crc = {}, 0
        for entry in self.content["tensors"]:
            array = fill(entry["name"] + tail, entry["shape"], self.content["salt"])
            crc = zlib.crc32(np.ascontiguousarray(array, "<f4").tobytes(), crc)
            arrays[entry["name"]] = array
        assert crc == self.content["crc32"], f"{self.name}: the fill rule gives other tensors here"
        return arrays

    def clip(self) -> Array:
        """The input (1, 3, T, H, W), RGB in 0..1; checked against the file's crc32."""
        size = self.content["input"]
        frames = video(size["frames"], size["height"], size["width"], self.content["salt"])
        assert zlib.crc32(frames.tobytes()) == size["crc32"], f"{self.name}: the clip differs here"
        scaled = frames.astype(np.float32) / np.float32(255.0)
        return np.ascontiguousarray(scaled.transpose(3, 0, 1, 2)[None])


def load(name: str) -> Golden:
    """The golden `folder/file` without its ending."""
    with gzip.open(FOLDER / f"{name}.json.gz", "rt") as file:
        return Golden(name, json.load(file))


def _uniform(text: str, count: int) -> NDArray[np.float64]:
    # The raw words of PCG64 are the part of numpy's generators that is guaranteed to stay the same.
    words = np.random.PCG64(zlib.crc32(text.encode())).random_raw(count)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _parts(name: str) -> tuple[str, str]:
    bare = re.sub(r":\d+$", "", name.removesuffix(TENSORFLOW_TAIL))
    return bare, re.split(r"[./]", bare)[-1]


def fill(name: str, shape: list[int], salt: str) -> Array:
    """Tensor of a checkpoint key."""
    bare, leaf = _parts(name)
    if leaf in ("num_batches_tracked", "save_counter", "global_step") or leaf.endswith("_frame_count"):
        return np.full(shape, 100.0, np.float32)
    u = _uniform(f"{salt}:{name}", math.prod(shape)).reshape(shape)
    if not shape:
        return np.asarray(0.3 + 0.4 * u if "pos_enc" in bare else 0.5 + u, np.float32)
    if leaf in ("moving_variance", "running_var"):
        return (0.5 + u).astype(np.float32)
    if leaf == "gamma" or (leaf == "weight" and len(shape) == 1):
        return (0.8 + 0.4 * u).astype(np.float32)
    if leaf in ("kernel", "depthwise_kernel", "weight"):
        return (GAIN * math.sqrt(3.0 / _fan_in(leaf, shape)) * (2.0 * u - 1.0)).astype(np.float32)
    assert leaf in ("moving_mean", "running_mean", "beta", "bias"), name
    return (0.2 * (2.0 * u - 1.0)).astype(np.float32)


def _fan_in(leaf: str, shape: list[int]) -> int:
    if leaf == "weight":
        return math.prod(shape[1:])
    return math.prod(shape[:2] if leaf == "depthwise_kernel" else shape[:-1])


def video(frames: int, height: int, width: int, salt: str) -> NDArray[np.uint8]:
    """Clip (frames, height, width, 3): per colour two waves and a blinking level, a disc, and noise."""
    text = f"{salt}:video:{height}x{width}"
    p, shape = _uniform(text, 64), (height, width, 3)
    still = _uniform(f"{text}:still", math.prod(shape)).reshape(shape) - 0.5
    clip = np.empty((frames, *shape), np.uint8)
    for t in range(frames):
        image = np.stack([_colour(p[16 * c : 16 * c + 16], height, width, t) for c in range(3)], axis=2)
        disc = _disc(p[48:53], height, width, t)
        image[disc] = 1.0 - image[disc]
        fresh = _uniform(f"{text}:{t}", math.prod(shape)).reshape(shape)
        image += 0.1 * still + 0.1 * (fresh - 0.5)
        clip[t] = np.clip(np.floor(image * 255.0 + 0.5), 0, 255).astype(np.uint8)
    return clip


def _colour(q: NDArray[np.float64], height: int, width: int, t: int) -> NDArray[np.float64]:
    y, x = np.arange(height)[:, None] / height, np.arange(width)[None, :] / width
    wave: Any = 0.0
    for fy, fx, speed, phase in (q[0:4], q[4:8]):
        wave = wave + np.sin(TAU * ((1 + 4 * fy) * y + (1 + 4 * fx) * x + (0.1 + 0.3 * speed) * t + phase))
    level = math.sin(TAU * (t * (0.07 + 0.2 * q[8]) + q[9]))
    image: NDArray[np.float64] = 0.5 + 0.14 * wave + 0.16 * level
    return image


def _disc(q: NDArray[np.float64], height: int, width: int, t: int) -> NDArray[np.bool_]:
    y, x = np.arange(height)[:, None] / height, np.arange(width)[None, :] / width
    cy = 0.5 + 0.4 * math.sin(TAU * (q[0] + t * (0.04 + 0.08 * q[1])))
    cx = 0.5 + 0.4 * math.sin(TAU * (q[2] + t * (0.04 + 0.08 * q[3])))
    inside: NDArray[np.bool_] = (y - cy) ** 2 + (x - cx) ** 2 < (0.12 + 0.08 * q[4]) ** 2
    return inside
