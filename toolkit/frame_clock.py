"""When a frame is shown, and which frame belongs to which step of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_GAP_S = 600.0
"""A longer jump between two time stamps is a fault of the file, not a picture that stood still."""
MAX_STEP_BACK_S = 1.0
"""A time stamp this far behind starts a new count; a smaller step back is a fault of the muxer."""
NOMINAL_RATE = 25.0
"""Frames per second assumed where neither the file nor the model names a rate."""
ROUNDING_S = 1e-6
"""Two times this close are one: rounded stamps must not add a step at the very end."""


@dataclass(frozen=True)
class Frame:
    """One decoded frame.

    Attributes:
        index: Number of the frame among those given, from 0.
        time_s: Seconds since the first frame of the source.
        image: `(H, W, 3)` RGB bytes, upright.
    """

    index: int
    time_s: float
    image: NDArray[np.uint8]


class FrameClock:
    """Seconds since the first frame; steps over missing, repeated and absurd time stamps.

    Args:
        rate: Frames per second where a time stamp is missing.
    """

    def __init__(self, rate: float) -> None:
        self.last_s = 0.0
        self._interval_s = 1.0 / rate
        self._origin_s: float | None = None
        self._last_pts_s = self._last_dts_s = -np.inf
        self._faulty_pts = self._faulty_dts = 0

    def tick(self, pts_s: float | None, dts_s: float | None = None) -> float:
        """Time of the next frame, never before the previous one.

        Args:
            pts_s: Presentation time stamp in the file.
            dts_s: Decoding time stamp of the packet that the frame came with.
        """
        stamp = self._better(pts_s, dts_s)
        if self._origin_s is None:
            self._origin_s = stamp or 0.0
            return self.last_s
        time_s = self.last_s + self._interval_s if stamp is None else stamp - self._origin_s
        if not self.last_s - MAX_STEP_BACK_S < time_s <= self.last_s + MAX_GAP_S:
            self._origin_s += time_s - (self.last_s + self._interval_s)
            time_s = self.last_s + self._interval_s
        self.last_s = max(self.last_s, time_s)
        return self.last_s

    def _better(self, pts_s: float | None, dts_s: float | None) -> float | None:
        """The stamp that went backwards less often: the rule of FFmpeg's `best_effort_timestamp`.

        AVI files with packed B-frames carry presentation stamps in the wrong order.
        """
        if dts_s is not None:
            self._faulty_dts += dts_s <= self._last_dts_s
            self._last_dts_s = dts_s
        if pts_s is not None:
            self._faulty_pts += pts_s <= self._last_pts_s
            self._last_pts_s = pts_s
        if pts_s is not None and (self._faulty_pts <= self._faulty_dts or dts_s is None):
            return pts_s
        return dts_s


def sample(decoded: Iterator[Frame], frame_rate: float | None) -> Iterator[Frame]:
    """For each step the frame whose time is nearest to `step / frame_rate`; ties take the earlier one.

    Args:
        decoded: Frames in order of time.
        frame_rate: Steps per second; None passes every frame.
    """
    if frame_rate is None:
        yield from decoded
        return
    step, held, interval_s = 0, None, 1.0 / NOMINAL_RATE
    for frame in decoded:
        if held is not None:
            between_s = frame.time_s - held.time_s
            while step / frame_rate <= held.time_s + between_s / 2:
                yield held
                step += 1
            interval_s = between_s or interval_s
        held = frame
    # The last frame stays on the screen as long as the one before it did.
    while held is not None and step / frame_rate < held.time_s + interval_s - ROUNDING_S:
        yield held
        step += 1
