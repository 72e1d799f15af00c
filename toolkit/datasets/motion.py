"""Labelled synthetic video whose classes differ by motion only.

A textured object moves over a moving textured background; the label says how the object moves. By construction one frame tells
nothing about the label: whatever a class sets in motion (place, angle, size) goes round in a circle and starts at a random
point of it, so at every frame it has the same uniform distribution in every class.

    place   on a torus: what leaves at one edge enters at the other
    angle   of the object
    size    a phase of 0 to 1; the object is drawn with a second one inside that is half its size, the outer one fading out and the
            inner one fading in while both grow, so that the end of the circle looks like its start

Every clip depends on the specification and its index alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mvtool.errors import UsageError

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
"""Frames `(T, H, W, 3)`, RGB."""


class Axis(Enum):
    """What a motion changes; the value is the row of `_paths`."""

    X = 0
    Y = 1
    ANGLE = 2
    SIZE = 3


Event = tuple[Axis, int]
"""What moves, and its sense: to the right, down, clockwise and nearer are positive."""

MOTIONS: Final[dict[str, tuple[Event, ...]]] = {
    "moves right": ((Axis.X, 1),),
    "moves left": ((Axis.X, -1),),
    "moves up": ((Axis.Y, -1),),
    "moves down": ((Axis.Y, 1),),
    "turns clockwise": ((Axis.ANGLE, 1),),
    "turns counterclockwise": ((Axis.ANGLE, -1),),
    "approaches": ((Axis.SIZE, 1),),
    "retreats": ((Axis.SIZE, -1),),
    "moves right, then down": ((Axis.X, 1), (Axis.Y, 1)),
    "moves down, then right": ((Axis.Y, 1), (Axis.X, 1)),
    "turns clockwise, then back": ((Axis.ANGLE, 1), (Axis.ANGLE, -1)),
    "turns counterclockwise, then back": ((Axis.ANGLE, -1), (Axis.ANGLE, 1)),
}
"""Label to what the object does, one event after the other."""

SPEEDS: Final[dict[Axis, tuple[float, float]]] = {
    Axis.X: (0.05, 0.1),
    Axis.Y: (0.05, 0.1),
    Axis.ANGLE: (0.25, 0.5),
    Axis.SIZE: (0.12, 0.24),
}
"""Lowest and highest change per frame: share of the picture, radians, share of a doubling in size."""
DRIFT: Final = 0.01
"""Highest speed, in pictures per frame, of an object that does something else than move."""
BACKGROUND_DRIFT: Final = 0.03
SWITCH: Final = (0.35, 0.65)
"""Where in the clip the second event may begin."""
RADIUS: Final = (0.2, 0.26)
"""Mean radius of the smaller drawn object at phase 0.5, in pictures; the larger one has twice as much."""
TEXELS: Final = 64
"""Height and width of a texture, a power of two."""
BACKGROUND_CONTRAST: Final = 0.5
SURFACE_SCALE: Final = 1.25
"""Periods of the object's texture per picture, before it is zoomed."""
ANGLES: Final = 1024
GRAIN: Final = 2.0
"""Standard deviation of the noise of the camera, of 255 levels."""
SPLITS: Final = ("train", "validation", "test")


@dataclass(frozen=True)
class MotionVideos:
    """The clips of one specification.

    Attributes:
        clips: How many; the label of clip `i` is `i` modulo the number of labels.
        frames: Per clip.
        size: Height and width in pixels.
        split: `train`, `validation` or `test`; no clip is in two of them.
        seed: Another seed gives other clips of the same kind.
    """

    clips: int = 2000
    frames: int = 16
    size: int = 64
    split: str = "test"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn.

        Raises:
            UsageError: A number out of its range, or an unknown split.
        """
        for name, value, low, high in (
            ("clips", self.clips, 1, 10**9),
            ("frames", self.frames, 1, 10**6),
            ("size", self.size, 16, 1024),
            ("seed", self.seed, 0, 2**32 - 1),
        ):
            if not low <= value <= high:
                raise UsageError(f"motion: {name} is {value}; expected {low} to {high}.")
        if self.split not in SPLITS:
            raise UsageError(f"motion: the split is {self.split!r}; expected one of {', '.join(SPLITS)}.")

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(MOTIONS)

    def __len__(self) -> int:
        """Number of clips."""
        return self.clips

    def label(self, index: int) -> int:
        """Class of clip `index`."""
        return index % len(MOTIONS)

    def name(self, index: int) -> str:
        """Number and label of clip `index`."""
        return f"{self.split} clip {index}, {self.labels[self.label(index)]}"

    def frames_of(self, index: int, frame_rate: float | None = None) -> Pixels:
        """Draw clip `index`.

        Args:
            index: Which.
            frame_rate: Of no meaning here: speeds are per frame.

        Returns:
            Bytes `(T, H, W, 3)`, RGB.
        """
        random = np.random.default_rng((self.seed, SPLITS.index(self.split), index))
        events = tuple(MOTIONS.values())[self.label(index)]
        return _draw(random, _paths(random, events, self.frames), self.size)


def _paths(random: np.random.Generator, events: tuple[Event, ...], frames: int) -> Floats:
    """Place x, y (in pictures), angle (radians) and phase of the size at every frame, `(4, T)`."""
    speed = np.zeros((len(Axis), frames))
    switches = [0, frames]
    if len(events) == 2:
        switches.insert(1, round(frames * random.uniform(*SWITCH)))
    for (axis, sense), begin, end in zip(events, switches[:-1], switches[1:], strict=True):
        speed[axis.value, begin:end] += sense * random.uniform(*SPEEDS[axis])
    if not {Axis.X, Axis.Y} & {axis for axis, _ in events}:
        speed[: Axis.ANGLE.value] += _drift(random, DRIFT)
    start = random.uniform(0, (1.0, 1.0, 2 * np.pi, 1.0))
    paths: Floats = (start[:, None] + speed.cumsum(axis=1)).astype(np.float32)
    return paths


def _drift(random: np.random.Generator, fastest: float) -> NDArray[np.float64]:
    """A velocity (x, y) in a random direction, as a column."""
    direction, speed = random.uniform(0, 2 * np.pi), random.uniform(0, fastest)
    return speed * np.array([[np.cos(direction)], [np.sin(direction)]])


def _draw(random: np.random.Generator, paths: Floats, size: int) -> Pixels:
    frames = paths.shape[1]
    start, drift = random.uniform(0, 1, (2, 1)), _drift(random, BACKGROUND_DRIFT)
    moved = (start + drift * np.arange(frames)).astype(np.float32)
    backdrop, surface = _texture(random, BACKGROUND_CONTRAST), _texture(random, 1.0)
    outline = _outline(random)
    drawn = np.empty((frames, size, size, 3), np.uint8)
    # One frame after the other, so that all of it stays in the cache: a whole clip at once takes twice the time.
    for frame in range(frames):
        picture = backdrop.coloured(_rolled(backdrop.shares, moved[:, frame], size).reshape(-1))
        _put(picture, surface, outline, paths[:, frame], size)
        grain = random.standard_normal((size * size, 1), dtype=np.float32)
        picture = picture * 255 + (GRAIN * grain + np.float32(0.5))
        drawn[frame] = np.clip(picture, 0, 255, out=picture).reshape(size, size, 3)
    return drawn


def _put(picture: Floats, surface: _Texture, outline: _Outline, pose: Floats, size: int) -> None:
    """Draw the object, the outer one and the one inside, over `picture` (H W, 3)."""
    pixels = _pixels(size)
    across, down = _around(pixels - pose[0])[None, :], _around(pixels - pose[1])[:, None]
    cosine, sine = np.cos(pose[2]), np.sin(pose[2])
    turned = cosine * across + sine * down, cosine * down - sine * across
    for older in (1, 0):
        age = pose[3] % 1 + older
        zoom = np.exp2(np.float32(0.5) - age)
        u, v = turned[0] * zoom, turned[1] * zoom
        distance = np.hypot(u, v).ravel()
        here = np.flatnonzero(distance < outline.radii.max() + zoom / size)
        u, v, distance = u.ravel().take(here), v.ravel().take(here), distance.take(here)
        inside = (outline.radius(u, v) - distance) * (size / zoom) + np.float32(0.5)
        covered = np.clip(inside, 0, 1) * np.sin(np.float32(0.5 * np.pi) * age) ** 2
        seen = surface.coloured(_sampled(surface.shares, SURFACE_SCALE * u, SURFACE_SCALE * v))
        under = picture.take(here, axis=0)
        under += covered[:, None] * (seen - under)
        picture[here] = under


@cache
def _pixels(size: int) -> Floats:
    """Centres of the pixels of a row, in pictures."""
    return (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)


@dataclass(frozen=True)
class _Outline:
    """A closed curve around the origin.

    Attributes:
        radii: In pictures, at `ANGLES` angles that divide a whole turn.
    """

    radii: Floats

    def radius(self, u: Floats, v: Floats) -> Floats:
        """Distance of the curve from the origin in the direction of each point."""
        turns = np.arctan2(v, u) * np.float32(0.5 / np.pi)
        nearest: Floats = self.radii[np.rint(turns * ANGLES).astype(np.int32) % ANGLES]
        return nearest


def _outline(random: np.random.Generator) -> _Outline:
    """A circle with deviations of 2, 3 and 4 periods."""
    angles = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    waves = [random.uniform(0.05, 0.2) * np.cos(n * angles + random.uniform(0, 2 * np.pi)) for n in (2, 3, 4)]
    return _Outline((random.uniform(*RADIUS) * (1 + np.sum(waves, axis=0))).astype(np.float32))


@dataclass(frozen=True)
class _Texture:
    """A seamless pattern in two colours.

    Attributes:
        shares: Of the second colour, `(TEXELS, TEXELS)` in 0..1.
        colours: `(2, 3)`, RGB in 0..1.
    """

    shares: Floats
    colours: Floats

    def coloured(self, shares: Floats) -> Floats:
        """Colours `(..., 3)` of shares `(...)`."""
        mixed: Floats = self.colours[0] + shares[..., None] * (self.colours[1] - self.colours[0])
        return mixed


def _texture(random: np.random.Generator, contrast: float) -> _Texture:
    """Noise of 1 to 4 periods per picture, in a dark and a light colour; `contrast` 1 takes them as they are, 0 their mean."""
    frequency = np.hypot(np.fft.fftfreq(TEXELS)[:, None], np.fft.rfftfreq(TEXELS)[None, :]) * TEXELS
    noise = np.fft.rfft2(random.standard_normal((TEXELS, TEXELS)))
    pattern = np.fft.irfft2(noise * ((frequency >= 1) & (frequency <= 4)), (TEXELS, TEXELS))
    shares = 0.5 + 0.5 * np.tanh(1.5 * pattern / pattern.std())
    colours = np.stack([random.uniform(0.0, 0.45, 3), random.uniform(0.55, 1.0, 3)])
    colours = colours.mean(0) + contrast * (colours - colours.mean(0))
    return _Texture(shares.astype(np.float32), colours.astype(np.float32))


def _around(distance: Floats) -> Floats:
    """The shorter way round a circle of length 1: -0.5 to 0.5."""
    shorter: Floats = (distance + np.float32(0.5)) % np.float32(1.0) - np.float32(0.5)
    return shorter


def _rolled(texture: Floats, moved: Floats, size: int) -> Floats:
    """The texture over the whole picture, moved by (x, y): `(H, W)`."""
    left, right, dx = _neighbours(_pixels(size) - moved[0])
    top, bottom, dy = _neighbours(_pixels(size) - moved[1])
    rows: Floats = texture[top] * (1 - dy[:, None]) + texture[bottom] * dy[:, None]
    picture: Floats = (rows[:, left] * (1 - dx) + rows[:, right] * dx).astype(np.float32, copy=False)
    return picture


def _sampled(texture: Floats, u: Floats, v: Floats) -> Floats:
    """Bilinear samples `(N,)` of a texture that repeats with period 1."""
    left, right, dx = _neighbours(u)
    top, bottom, dy = _neighbours(v)
    flat, top, bottom = texture.ravel(), top * TEXELS, bottom * TEXELS
    upper, lower = flat.take(top + left), flat.take(bottom + left)
    upper += dx * (flat.take(top + right) - upper)
    lower += dx * (flat.take(bottom + right) - lower)
    upper += dy * (lower - upper)
    return upper


def _neighbours(places: Floats) -> tuple[NDArray[np.int32], NDArray[np.int32], Floats]:
    """The texel before each place, the one behind it, and how far the place is from the first to the second."""
    at = places * np.float32(TEXELS)
    floor = np.floor(at)
    first = floor.astype(np.int32) & (TEXELS - 1)
    return first, (first + 1) & (TEXELS - 1), at - floor
