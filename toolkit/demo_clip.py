"""The bundled video: ten seconds of moving shapes and textures, drawn and encoded by this module.

`python -m mvtool.demo_clip out.mp4` makes it anew. It exists so that the demo, the tests and the default
calibration have a really encoded file to decode, free of anybody's rights; no network is trained on such
pictures, so calibrate a product on its own clips.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvtool import video_writing

RATE = 25
WIDTH, HEIGHT = 320, 240
SCENE_FRAMES = 50

Image = NDArray[np.float64]
"""`(H, W, 3)` RGB, 0..1."""

_Y, _X = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)


def path() -> Path:
    """Where the bundled clip lies in the installed package."""
    return Path(str(files("mvtool") / "data" / "demo_clip.mp4"))


def bouncing(t: float) -> Image:
    """Coloured discs that bounce over a slowly turning gradient."""
    image = _gradient(t * 0.4, (0.15, 0.2, 0.35), (0.55, 0.6, 0.7))
    for number, colour in enumerate([(0.95, 0.3, 0.2), (0.2, 0.8, 0.35), (0.98, 0.8, 0.15), (0.5, 0.35, 0.9)]):
        x = 30 + 260 * _triangle(t * (0.31 + 0.11 * number) + 0.2 * number)
        y = 30 + 180 * _triangle(t * (0.53 - 0.07 * number) + 0.3 * number)
        image = _blend(image, colour, _disc(x, y, 18 + 6 * number))
    return image


def weave(t: float) -> Image:
    """A woven texture that turns and zooms."""
    angle, zoom = 0.5 * t, 0.10 + 0.05 * np.sin(1.7 * t)
    u = (np.cos(angle) * (_X - 160) - np.sin(angle) * (_Y - 120)) * zoom
    v = (np.sin(angle) * (_X - 160) + np.cos(angle) * (_Y - 120)) * zoom
    threads = np.sin(u) * np.sin(v)
    return np.stack([0.5 + 0.45 * np.sin(u), 0.5 + 0.4 * threads, 0.5 + 0.45 * np.cos(v)], axis=-1)


def pendulum(t: float) -> Image:
    """A pendulum that swings before scrolling hills, under a sun."""
    sky = _gradient(np.pi / 2, (0.45, 0.7, 0.95), (0.9, 0.92, 0.98))
    sky = _blend(sky, (1.0, 0.95, 0.6), _disc(260, 45, 24))
    for depth, colour in enumerate([(0.35, 0.5, 0.45), (0.2, 0.42, 0.25), (0.12, 0.3, 0.12)]):
        crest = 150 + 25 * depth + 14 * np.sin((_X + t * (25 + 35 * depth)) / (34 - 6 * depth))
        sky = _blend(sky, colour, np.clip(_Y - crest, 0, 1))
    swing = 0.9 * np.cos(2.6 * t)
    x, y = 160 + 130 * np.sin(swing), 10 + 130 * np.cos(swing)
    return _blend(_blend(sky, (0.1, 0.1, 0.1), _rod(160, 10, x, y)), (0.8, 0.1, 0.15), _disc(x, y, 22))


def rings(t: float) -> Image:
    """Two wave sources and the pattern where their rings meet."""
    first = np.hypot(_X - 90 - 30 * np.sin(t), _Y - 120)
    second = np.hypot(_X - 230, _Y - 120 - 40 * np.cos(1.3 * t))
    wave = np.sin(first / 7 - 7 * t) + np.sin(second / 9 - 5 * t)
    return np.stack([0.5 + 0.22 * wave, 0.45 + 0.2 * np.roll(wave, 9, axis=1), 0.55 - 0.2 * wave], axis=-1)


def walkers(t: float) -> Image:
    """Stick figures that walk past each other at night, in the rain."""
    image = _gradient(np.pi / 2, (0.05, 0.06, 0.15), (0.2, 0.2, 0.3))
    for number, colour in enumerate([(0.95, 0.85, 0.7), (0.5, 0.8, 0.95), (0.95, 0.55, 0.65)]):
        way = 1 if number % 2 == 0 else -1
        x = (160 + way * (t * 70 - 100) + 70 * number) % 380 - 30
        image = _blend(image, colour, _figure(x, 90 + 12 * number, 8 * t + number))
    drops = ((_X * 7 + (_Y - 260 * t) * 3) % 97 < 1.6) & ((_X // 5) % 3 == 0)
    return _blend(image, (0.6, 0.65, 0.8), 0.5 * drops)


SCENES: tuple[Callable[[float], Image], ...] = (bouncing, weave, pendulum, rings, walkers)


FRAMES = SCENE_FRAMES * len(SCENES)


def draw(index: int) -> NDArray[np.uint8]:
    """Frame `index` of 250, `(240, 320, 3)` RGB bytes; each differs from the one before."""
    scene, step = divmod(index, SCENE_FRAMES)
    grain = np.random.default_rng(index).normal(0, 0.006, (HEIGHT, WIDTH, 1))
    return np.rint(np.clip(SCENES[scene](step / RATE) + grain, 0, 1) * 255).astype(np.uint8)


def write(target: Path) -> None:
    """Encode the frames as H.264 in MP4.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    video_writing.write(target, map(draw, range(FRAMES)), rate=RATE, quality=26)


def _triangle(phase: float) -> float:
    return abs(phase % 2 - 1)


def _gradient(angle: float, start: tuple[float, ...], end: tuple[float, ...]) -> Image:
    along = (np.cos(angle) * (_X / WIDTH - 0.5) + np.sin(angle) * (_Y / HEIGHT - 0.5) + 0.5)[..., None]
    mixed: Image = (1 - along) * np.asarray(start) + along * np.asarray(end)
    return mixed


def _blend(image: Image, colour: tuple[float, ...], share: NDArray[np.float64]) -> Image:
    return image + share[..., None] * (np.asarray(colour) - image)


def _disc(x: float, y: float, radius: float) -> NDArray[np.float64]:
    covered: NDArray[np.float64] = np.clip(radius - np.hypot(_X - x, _Y - y) + 0.5, 0, 1)
    return covered


def _rod(x0: float, y0: float, x1: float, y1: float, thickness: float = 3.0) -> NDArray[np.float64]:
    """Share of each pixel that a line with round ends covers."""
    dx, dy = x1 - x0, y1 - y0
    along = np.clip(((_X - x0) * dx + (_Y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
    covered: NDArray[np.float64] = np.clip(thickness - np.hypot(_X - x0 - along * dx, _Y - y0 - along * dy), 0, 1)
    return covered


def _figure(x: float, y: float, phase: float) -> NDArray[np.float64]:
    stride, hip = 16 * np.sin(phase), y + 55
    parts = [_disc(x, y, 11), _rod(x, y + 10, x, hip, 5.0)]
    for side in (-1, 1):
        parts.append(_rod(x, hip, x + side * stride, hip + 45, 4.0))
        parts.append(_rod(x, y + 20, x - side * stride, y + 48))
    return np.asarray(np.maximum.reduce(parts))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m mvtool.demo_clip OUT.mp4")
    write(Path(sys.argv[1]))
