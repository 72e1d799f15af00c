"""From a decoded frame to the real values of the frame port, as the port manifest describes it.

The resize is the antialiased bilinear filter with half-pixel centres: an output pixel `i` of an axis
scaled by `s = in / out` lies at `(i + 0.5) * s` and gathers the input pixels around it with a triangle of
half width `max(s, 1)`, normalised to sum 1. Pillow's `BILINEAR` on mode `F` and `tf.image.resize(...,
antialias=True)` compute the same function; `torch.nn.functional.interpolate(..., antialias=True)` too.

Sums are taken tap by tap in float32 in a fixed order, never by a BLAS, so that the same frame gives the
same bytes in every process and with any number of threads.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mvtool.errors import VideoError
from mvtool.ports import Preprocessing

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]


def plain(height: int, width: int) -> Preprocessing:
    """For a model whose contract nobody stated: RGB in 0..1, the centre of the frame.

    The shorter side becomes the longer side of the input, so that the crop fits every shape of video.

    Args:
        height: Of the model's input, pixels.
        width: Of the model's input, pixels.
    """
    return Preprocessing(resize_short_side=max(height, width), crop=(height, width))


def apply(preprocessing: Preprocessing, frame: ByteArray) -> FloatArray:
    """Resize, crop and scale one frame.

    Args:
        preprocessing: Contract of the model.
        frame: Decoded frame `(H, W, 3)`, RGB, 0..255.

    Returns:
        `(crop_h, crop_w, 3)` real values in the model's colour order, C-contiguous.

    Raises:
        VideoError: The frame is no RGB image of bytes, or the crop is larger than the resized frame.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise VideoError(
            f"A frame has shape {tuple(frame.shape)} and type {frame.dtype}; expected (height, width, 3) of uint8."
        )
    pixels = crop_resized(frame, preprocessing.resize_short_side, preprocessing.crop)
    return normalise(preprocessing, pixels)


def normalise(preprocessing: Preprocessing, pixels: FloatArray) -> FloatArray:
    """Turn RGB values in 0..255 into the real values of the frame port.

    Args:
        preprocessing: Contract of the model.
        pixels: `(..., 3)` RGB, 0..255.
    """
    if preprocessing.colour == "BGR":
        pixels = pixels[..., ::-1]
    low, high = preprocessing.range
    values: FloatArray = pixels / np.float32(255.0)
    if (low, high) != (0.0, 1.0):
        values = np.multiply(values, np.float32(high - low)) + np.float32(low)
    if any(preprocessing.mean):
        values = values - np.asarray(preprocessing.mean, np.float32)
    if any(value != 1.0 for value in preprocessing.std):
        values = np.divide(values, np.asarray(preprocessing.std, np.float32))
    return np.ascontiguousarray(values, dtype=np.float32)


def resized_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Size after scaling the shorter side to `short_side` pixels; the longer side is rounded down.

    Rounding down is what TensorFlow Model Garden's `resize_smallest` and torchvision's `Resize` do.

    Example:
        >>> resized_size(256, 340, 172)
        (172, 228)
    """
    shorter = min(height, width)
    return height * short_side // shorter, width * short_side // shorter


def crop_resized(frame: ByteArray, short_side: int, crop: tuple[int, int]) -> FloatArray:
    """Resize the shorter side to `short_side` and cut the centre, computing only what is kept.

    Args:
        frame: `(H, W, 3)` bytes.
        short_side: Pixels.
        crop: Height and width in pixels.

    Returns:
        `(crop_h, crop_w, 3)` values in 0..255, not rounded.

    Raises:
        VideoError: The crop does not fit.
    """
    height, width = frame.shape[:2]
    resized = resized_size(height, width, short_side)
    if crop[0] > resized[0] or crop[1] > resized[1]:
        raise VideoError(
            f"A frame of {width}x{height} pixels becomes {resized[1]}x{resized[0]} with a short side of {short_side}; "
            f"the model crops {crop[1]}x{crop[0]} from it. Use a video whose shape contains the crop."
        )
    if resized == (height, width) == crop:
        return frame.astype(np.float32)
    columns = _taps(width, resized[1], (resized[1] - crop[1]) // 2, crop[1])
    rows = _taps(height, resized[0], (resized[0] - crop[0]) // 2, crop[0])
    # Horizontal first on the rows that are needed: the order of Pillow, and the smaller intermediate.
    first, last = int(rows[0].min()), int(rows[0].max()) + 1
    wide = _gather(frame[first:last].transpose(1, 0, 2), *columns).transpose(1, 0, 2)
    pixels = _gather(wide, rows[0] - first, rows[1])
    clipped: FloatArray = np.clip(pixels, np.float32(0.0), np.float32(255.0))
    return clipped


def _gather(values: NDArray[np.generic], indices: NDArray[np.intp], weights: FloatArray) -> FloatArray:
    """Weighted sum over the first axis: `out[i] = sum_k weights[i, k] * values[indices[i, k]]`."""
    total = np.zeros((len(indices), *values.shape[1:]), np.float32)
    for tap in range(indices.shape[1]):
        total += values[indices[:, tap]].astype(np.float32) * weights[:, tap, None, None]
    return total


@lru_cache(maxsize=64)
def _taps(size: int, resized: int, start: int, count: int) -> tuple[NDArray[np.intp], FloatArray]:
    """Input positions and weights `(count, taps)` of the outputs `start .. start + count` of one axis."""
    scale = size / resized
    radius = max(scale, 1.0)
    centres = (np.arange(start, start + count) + 0.5) * scale
    first = np.floor(centres - radius + 0.5).astype(np.intp)
    positions = first[:, None] + np.arange(int(np.ceil(2 * radius)) + 1)
    weights = np.maximum(0.0, 1.0 - np.abs((positions + 0.5 - centres[:, None]) / radius))
    weights[(positions < 0) | (positions >= size)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(positions, 0, size - 1), weights.astype(np.float32)
