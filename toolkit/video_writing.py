"""Writing frames as a video file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvtool.extras import require
from mvtool.files import atomic_path


def write(target: Path, frames: Iterable[NDArray[np.uint8]], *, rate: int, quality: int) -> None:
    """Encode frames as H.264 in MP4.

    Args:
        target: Name ending in `.mp4`.
        frames: `(H, W, 3)` RGB bytes, all of one size with even sides, at least one.
        rate: Frames per second.
        quality: Constant rate factor of x264: 18 is hardly told from the frames, 26 is small.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    av = require("av", "to encode a video")
    options = {"crf": str(quality), "preset": "slow", "threads": "1"}
    flags = {"movflags": "faststart"}
    with atomic_path(target) as partial, av.open(str(partial), "w", format="mp4", options=flags) as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt = "yuv420p"
        for index, frame in enumerate(frames):
            if index == 0:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
