"""Small videos, encoded by PyAV when a test asks for them: whole ones and broken ones."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

COLOURS = ((220, 30, 30), (30, 200, 30), (40, 40, 220), (230, 220, 40))


def picture(index: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A flat colour that steps with `index`, with a white quarter in the upper left corner."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = COLOURS[index % len(COLOURS)]
    image[: height // 2, : width // 2] = 255
    return image


def encode(
    path: Path,
    frames: int = 20,
    *,
    size: tuple[int, int] = (48, 64),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rate: int = 10,
    stamps: Sequence[int] | None = None,
    muxer_options: dict[str, str] | None = None,
    audio_s: float = 0.0,
) -> Path:
    """Write a video whose frame `i` is `picture(i)`.

    Args:
        path: Target; its suffix chooses the container.
        frames: Number of frames.
        size: Height and width.
        codec: FFmpeg's name of the encoder.
        pixel_format: FFmpeg's name of the pixel format.
        rate: Frames per second.
        stamps: Time stamp of each frame in milliseconds, for a variable frame rate.
        muxer_options: Passed to the container.
        audio_s: Seconds of silence beside the pictures.
    """
    with av.open(str(path), "w", options=muxer_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": "12"} if codec == "libx264" else {})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = size
        stream.pix_fmt = pixel_format
        # The muxer may change the stream's own time base once it has written its header.
        base = Fraction(1, 1000) if stamps else Fraction(1, rate)
        stream.time_base = stream.codec_context.time_base = base
        sound = container.add_stream("aac", rate=8000, layout="mono") if audio_s else None
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index, *size), format="rgb24")
            frame.pts = stamps[index] if stamps else index
            frame.time_base = base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            _silence(container, sound, audio_s)
    return path


def audio_only(path: Path, seconds: float = 1.0) -> Path:
    """Write a sound file without pictures."""
    with av.open(str(path), "w") as container:
        _silence(container, container.add_stream("aac", rate=8000, layout="mono"), seconds)
    return path


def _silence(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    for start in range(0, int(8000 * seconds), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def cut(whole: Path, target: Path, share: float) -> Path:
    """Copy the first `share` of a file's bytes."""
    data = whole.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def rotate_mp4(whole: Path, target: Path) -> Path:
    """Copy an MP4 and mark it as filmed with the camera held sideways, as phones do.

    The track header keeps a 3x3 matrix of fixed-point numbers (ISO/IEC 14496-12, 8.3.2); this one turns
    the picture by 90 degrees clockwise for display.
    """
    one, minus = b"\x00\x01\x00\x00", b"\xff\xff\x00\x00"
    zero, last = bytes(4), b"\x40\x00\x00\x00"
    identity = one + zero * 3 + one + zero * 3 + last
    quarter = zero + one + zero + minus + zero * 4 + last
    data = whole.read_bytes()
    start = data.index(identity, data.index(b"tkhd"))
    target.write_bytes(data[:start] + quarter + data[start + len(identity) :])
    return target
