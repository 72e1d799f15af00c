"""What training and evaluation ask of labelled videos."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class LabelledVideos(Protocol):
    """Videos of which each has one label, read by their index in any order."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""

    def __len__(self) -> int:
        """Number of videos."""

    def label(self, index: int) -> int:
        """Class of a video."""

    def name(self, index: int) -> str:
        """What a person would call the video, for messages and tables."""

    def frames_of(self, index: int, frame_rate: float | None = None) -> Iterable[NDArray[np.uint8]]:
        """Decoded frames `(H, W, 3)`, RGB.

        Args:
            index: Which video.
            frame_rate: Frames per second to give, where the videos have a time of their own; None for all of them.
        """
