"""Decoded frames of a video file, a camera, a folder of images or a NumPy array.

`frames` gives what a person would see: RGB bytes, turned upright where the file says that the camera was
held sideways, with the time since the first frame. Given a model's frame rate it gives one frame per
model step: the one whose time stamp is nearest to `step / frame_rate`, so frames are dropped or repeated,
and a variable frame rate is followed.
"""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvtool.errors import VideoError
from mvtool.extras import require
from mvtool.frame_clock import NOMINAL_RATE, ROUNDING_S, Frame, FrameClock, sample

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)
TEXT_FORMATS = frozenset({"adf", "bin", "idf", "tty", "xbin"})
"""FFmpeg's text-screen formats: they take any text file for a film of its letters."""
MIN_DECODED_SHARE = 0.9
"""A file that gives fewer of its announced frames is broken off; edit lists may hide a few."""
UNBOUNDED_MODES = {"I": "32-bit integers", "F": "floating-point numbers"}
"""Pillow's modes of grey values without an upper end."""

Source = str | Path | int


def frames(source: Source, *, frame_rate: float | None = None, limit: int | None = None) -> Iterator[Frame]:
    """Decode a source frame by frame.

    Args:
        source: Path or URL of a video, folder of images in natural order of their names, `.npy` file
            `(T, H, W, 3)` of RGB bytes, or a camera as its number (`0`). Images and arrays hold one
            frame per step, whatever `frame_rate` is.
        frame_rate: Steps per second of the model; None gives every frame.
        limit: Stop after so many frames.

    Raises:
        VideoError: The source is missing, empty, broken, broken off, or holds no pictures. A file that
            breaks off raises after its last whole frame.
        MissingExtraError: PyAV (or Pillow, for images) is not installed.
    """
    if frame_rate is not None and not (np.isfinite(frame_rate) and frame_rate > 0):
        raise VideoError(f"The frame rate is {frame_rate}; expected a positive number of frames per second.")
    if limit is not None and limit < 1:
        raise VideoError(f"The limit is {limit} frames; expected at least 1.")
    kind, place = _classify(source)
    if kind == "folder":
        found = _images(Path(place), frame_rate)
    elif kind == "array":
        found = _array(Path(place), frame_rate)
    else:
        found = sample(_decode(kind, place), frame_rate)
    return _numbered(found, limit)


def expected_steps(source: Source, *, frame_rate: float | None = None) -> int | None:
    """Number of frames that `frames` will give, as far as the source announces it; None if unknown.

    Raises:
        VideoError: The source is missing, empty or holds no pictures.
    """
    kind, place = _classify(source)
    if kind == "folder":
        return len(image_files(Path(place)))
    if kind == "array":
        return len(_open_array(Path(place)))
    if kind == "camera":
        return None
    with _open(kind, place) as container:
        stream = _video_stream(container, place)
        duration = _duration_s(container, stream)
        if frame_rate is None:
            return stream.frames or None
        return None if duration is None else max(1, math.ceil((duration - ROUNDING_S) * frame_rate))


def image_files(folder: Path) -> list[Path]:
    """Images of a folder in natural order: `frame2` before `frame10`."""
    found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    return sorted(found, key=_natural)


def clips(path: Source) -> list[Path]:
    """Sources to be read as one clip each: the path itself, or what a folder of clips holds.

    A folder is one clip if it holds images; otherwise its videos, `.npy` files and folders of images are
    the clips, in natural order.

    Raises:
        VideoError: The path is missing, or nothing in the folder can be read.
    """
    root = Path(path) if not isinstance(path, int) else Path(str(path))
    if not root.exists():
        raise VideoError(f"{root} does not exist. Give a video, a .npy file, or a folder of videos or images.")
    if root.is_file() or image_files(root):
        return [root]
    found = [p for p in sorted(root.iterdir(), key=_natural) if _is_clip(p)]
    if not found:
        raise VideoError(
            f"The folder {root} holds no clip. Expected videos ({_listed(VIDEO_SUFFIXES)}), .npy files, "
            f"or folders of images ({_listed(IMAGE_SUFFIXES)})."
        )
    return found


def _is_clip(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return bool(image_files(path)) if path.is_dir() else path.suffix.lower() in {*VIDEO_SUFFIXES, ".npy"}


def _listed(suffixes: Iterable[str]) -> str:
    return " ".join(sorted(suffixes))


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", path.name.lower())]


def _classify(source: Source) -> tuple[str, str]:
    """Kind of a source (`file`, `url`, `camera`, `folder`, `array`) and where it is."""
    text = str(source)
    path = Path(text)
    if "://" in text and not path.exists():
        return "url", text
    if path.is_char_device() or (text.isdecimal() and not path.exists()):
        return "camera", text
    if not path.exists():
        raise VideoError(
            f"{text} does not exist. Give a video file, a folder of images, a .npy file or a camera number."
        )
    if path.is_dir():
        return "folder", text
    if path.stat().st_size == 0:
        raise VideoError(f"{text} is an empty file of 0 bytes; expected a video. Copy or record it again.")
    return ("array" if path.suffix.lower() == ".npy" else "file"), text


def _numbered(found: Iterator[Frame], limit: int | None) -> Iterator[Frame]:
    with closing(found):  # type: ignore[type-var]  # all sources here are generators
        for index, frame in enumerate(found):
            yield replace(frame, index=index)
            if limit is not None and index + 1 >= limit:
                return


def _decode(kind: str, place: str) -> Iterator[Frame]:
    """Every frame of a container in order of presentation."""
    av = require("av", "to decode video")
    decoded = damaged = 0
    with _open(kind, place) as container:
        stream = _video_stream(container, place)
        clock = FrameClock(float(stream.average_rate or NOMINAL_RATE))
        try:
            for packet in container.demux(stream):
                try:
                    pictures = packet.decode()
                except av.FFmpegError as error:
                    damaged += 1
                    log.info("packet after frame %d of %s cannot be decoded: %s", decoded, place, error)
                    continue
                for picture in pictures:
                    yield Frame(decoded, clock.tick(*_stamps(picture)), _rgb(picture, place))
                    decoded += 1
        except av.FFmpegError as error:
            raise VideoError(
                f"Reading {place} failed after {decoded} frames ({clock.last_s:.2f} s): {error}. "
                "Copy the file again, or repair it, for example with: ffmpeg -i in.mp4 -c copy out.mp4"
            ) from error
        _check_whole(place, container, stream, decoded, damaged, clock.last_s)


def _check_whole(
    place: str, container: InputContainer, stream: VideoStream, decoded: int, damaged: int, last_s: float
) -> None:
    if not decoded:
        reason = f"{damaged} packets cannot be decoded" if damaged else "its video track is empty"
        raise VideoError(f"{place} gives no frame: {reason}. Expected at least one frame; record or copy it again.")
    missing = _missing(container, stream, decoded, last_s)
    if missing:
        raise VideoError(
            f"{place} is broken off: it announces {missing}, and only {decoded} frames ({last_s:.2f} s) can be "
            f"decoded; {damaged} packets were damaged. Copy the file again, or cut it to its whole part."
        )


def _missing(container: InputContainer, stream: VideoStream, decoded: int, last_s: float) -> str:
    """What the header announces beyond what was decoded; empty if nothing to speak of."""
    if stream.frames:
        missing = stream.frames - decoded > 1 and decoded < MIN_DECODED_SHARE * stream.frames
        return f"{stream.frames} frames" if missing else ""
    # Without a count there is the duration, which is that of the sound where there is any.
    duration = None if container.streams.audio else _duration_s(container, stream)
    frame_s = 1.0 / float(stream.average_rate or NOMINAL_RATE)
    return f"{duration:.2f} s" if duration and last_s + 2 * frame_s < MIN_DECODED_SHARE * duration else ""


def _duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration is not None else None  # AV_TIME_BASE is microseconds


def _open(kind: str, place: str) -> InputContainer:
    av = require("av", "to decode video")
    file, container_format = _camera(place) if kind == "camera" else (place, None)
    try:
        container: InputContainer = av.open(file, format=container_format)
    except (av.FFmpegError, OSError, ValueError) as error:
        if kind == "camera":
            raise VideoError(f"Camera {place} ({file}) cannot be opened: {error}. Is it connected and free?") from error
        raise VideoError(
            f"{place} cannot be read as a video: {error}. Expected a format that FFmpeg knows, complete from its "
            "first byte; an MP4 that lost its end cannot be opened at all."
        ) from error
    if container.format.name in TEXT_FORMATS:
        container.close()
        raise VideoError(f"{place} is a text file, not a video. Give a video file, a folder of images or a .npy file.")
    return container


def _camera(place: str) -> tuple[str, str]:
    """FFmpeg's device name and input format of a camera number on this system."""
    if sys.platform == "darwin":
        return place, "avfoundation"
    if sys.platform.startswith("linux"):
        return (f"/dev/video{place}" if place.isdecimal() else place), "v4l2"
    raise VideoError(f"Cameras cannot be read on {sys.platform}; expected Linux or macOS. Record a video file instead.")


def _video_stream(container: InputContainer, place: str) -> VideoStream:
    av = require("av", "to decode video")
    # The cover picture of a song is a video track of one frame.
    cover = av.stream.Disposition.attached_pic
    tracks = [s for s in container.streams.video if not s.disposition & cover]
    if not tracks:
        held = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise VideoError(f"{place} holds no video track, only {held}. Give a file with pictures.")
    return next((s for s in tracks if s.disposition & av.stream.Disposition.default), tracks[0])


def _stamps(picture: VideoFrame) -> tuple[float | None, float | None]:
    base = picture.time_base
    stamps = (picture.pts, picture.dts)
    pts, dts = (None if stamp is None or base is None else float(stamp * base) for stamp in stamps)
    return pts, dts


def _rgb(picture: VideoFrame, place: str) -> NDArray[np.uint8]:
    av = require("av", "to decode video")
    way = av.video.reformatter.Interpolation
    try:
        # Bit-exact, so that calibration on another processor sees the same pixels.
        image = picture.to_ndarray(
            format="rgb24", interpolation=way.BILINEAR | way.ACCURATE_RND | way.BITEXACT, threads=1
        )
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(
            f"The pixel format {picture.format.name} of {place} cannot be turned into RGB: {error}. "
            "Convert the video, for example with: ffmpeg -i in -pix_fmt yuv420p out.mp4"
        ) from error
    quarter_turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns))


def _images(folder: Path, frame_rate: float | None) -> Iterator[Frame]:
    files = image_files(folder)
    if not files:
        raise VideoError(
            f"The folder {folder} holds no image. Expected files named *{' *'.join(sorted(IMAGE_SUFFIXES))}."
        )
    require("PIL.Image", "to read images")
    for index, file in enumerate(files):
        yield Frame(index, index / (frame_rate or NOMINAL_RATE), _read_image(file))


def _read_image(file: Path) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file) as opened:
            upright = ImageOps.exif_transpose(opened)
            if _is_16_bit(upright.mode, opened.format):  # Pillow's own conversion would clip it
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            mode = upright.mode
            rgb = None if mode in UNBOUNDED_MODES else np.array(upright.convert("RGB"))
    # The PPM reader passes on what int() says of a damaged header.
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VideoError(f"The image {file} cannot be read: {error}. Replace or remove it.") from error
    if rgb is None:
        raise VideoError(
            f"The image {file} holds {UNBOUNDED_MODES[mode]}, and nothing says which of them is white; expected 8 or "
            "16 bits per channel. Scale its values to 0..255 and save them as bytes."
        )
    return rgb


def _is_16_bit(mode: str, file_format: str | None) -> bool:
    """Whether grey values go to 65535: Pillow's modes `I;16...`, and 32-bit integers that come from a PNM file."""
    return mode.startswith("I;16") or (mode == "I" and file_format == "PPM")


def _array(file: Path, frame_rate: float | None) -> Iterator[Frame]:
    for index, image in enumerate(_open_array(file)):
        yield Frame(index, index / (frame_rate or NOMINAL_RATE), np.array(image))


def _open_array(file: Path) -> NDArray[np.uint8]:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise VideoError(f"{file} cannot be read as a NumPy array: {error}. Save it with numpy.save.") from error
    if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8 or not array.size:
        raise VideoError(
            f"{file} holds an array of shape {array.shape} and type {array.dtype}; "
            "expected (frames, height, width, 3) of uint8 in RGB order."
        )
    return array  # type: ignore[no-any-return]
