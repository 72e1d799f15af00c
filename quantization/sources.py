"""Reading the user's calibration data: videos, images per clip, or arrays.

folder of videos        one clip per file
folder of folders       one clip per subfolder, its images in the order of their names
folder of images        one clip
.npy (T, H, W, C)       uint8: camera frames, preprocessed like a video; float: preprocessed frames
.npy (steps, *input)    logical inputs of a model with one input, in its own type
.npz                    one such array per model input, by name
folder of .npy/.npz     one clip per file
motion:NAME=VALUE,...   generated clips, see `mvtool.datasets.motion`
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from mvtool.datasets.spec import is_generator, parse
from mvtool.errors import VideoError
from mvtool.ports import AnyArray, InputPort
from mvtool.program import ModelInfo
from mvtool.quantization.calibration import STREAM_STEPS, CalibrationSet, Clip

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".3gp", ".gif"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
ARRAY_SUFFIXES = frozenset({".npy", ".npz"})

MAX_CLIPS = 32
MAX_STEPS = 100
"""Steps of one clip of a stream: ranges of a settled stream move little, and conversion time is linear in them."""
MAX_WINDOWS = 4
"""Clips of T frames that a model without state takes from one video, or more until they hold `WINDOW_FRAMES`."""
WINDOW_FRAMES = 64
"""Frames that make ranges of a model of few frames: four neighbouring frames of one video are one picture."""

WHOLE_TYPES = frozenset({"int32", "int64", "uint8", "bool"})
"""Types of model inputs that do not hold real numbers."""

RANDOM_SEED = 20_240_229
RANDOM_STEPS = 64
RANDOM_VALUES = 2**24
"""Random numbers for a model without state, so that large clips fit into memory; at least `MAX_WINDOWS` inputs."""

Frames = NDArray[np.float32]


def load_calibration(
    path: Path | None, info: ModelInfo, inputs: Sequence[InputPort], *, stream: bool = True
) -> CalibrationSet:
    """Read calibration clips for a model.

    Args:
        path: Folder, file or generator of the forms above. None takes generated clips for a model that names them, the bundled clip
            for another one whose only input is a video frame, and seeded random inputs for every other model, normal numbers or 0
            and 1 for an input of whole numbers; the last two leave a note.
        info: Preprocessing and frames per step.
        inputs: The model's inputs in port order.
        stream: The model carries state: clips shorter than `STREAM_STEPS` are then played to and fro, because
            state ranges of fewer steps are not trusted.

    Raises:
        VideoError: Nothing usable is there, or it does not fit the model.
    """
    if path is None and info.calibration is not None:
        path = Path(info.calibration)
    if path is None and not _is_video_model(info, inputs):
        return _random(inputs, stream)
    if path is None:
        found = _bundled(info, inputs, stream)
    elif is_generator(str(path)):
        found = _generated(str(path), info, inputs, stream)
    else:
        clips, notes = _clips(Path(path), info, inputs, stream)
        found = CalibrationSet(clips, origin=Path(path).name, notes=notes)
    return found.extended(STREAM_STEPS) if stream else found


def clip_of_frames(frames: Iterable[Frames], port: InputPort, *, stream: bool = True) -> Clip:
    """Cut preprocessed frames `(H, W, C)` into the steps of a model with one video input.

    A video shorter than one step is played to and fro; a rest shorter than a step is dropped.

    Raises:
        VideoError: A frame's size is not the model's, or the input has no frame layout.
    """
    per_step = _frames_per_step(port)
    limit = per_step * (MAX_STEPS if stream else max(MAX_WINDOWS, WINDOW_FRAMES // per_step))
    taken = list(itertools.islice(frames, limit))
    if not taken:
        return ()
    if len(taken) < per_step:
        there_and_back = taken + taken[-2:0:-1]
        taken = list(itertools.islice(itertools.cycle(there_and_back), per_step))
    starts = range(0, len(taken) - per_step + 1, per_step)
    return tuple((_to_logical(np.stack(taken[start : start + per_step]), port),) for start in starts)


def _is_video_model(info: ModelInfo, inputs: Sequence[InputPort]) -> bool:
    return len(inputs) == 1 and inputs[0].image and info.preprocessing is not None


def _frames_per_step(port: InputPort) -> int:
    layout = port.logical_layout or ""
    if sorted(layout.replace("N", "").replace("T", "")) != ["C", "H", "W"] or len(layout) != len(port.logical_shape):
        raise VideoError(
            f"Input {port.name!r} has layout {port.logical_layout!r} and shape {port.logical_shape}; video frames need "
            "a layout of the letters N, C, T, H, W. Calibrate with .npy arrays of the input's shape."
        )
    return port.logical_shape[layout.index("T")] if "T" in layout else 1


def _to_logical(frames: Frames, port: InputPort) -> NDArray[np.float32]:
    layout = port.logical_layout or ""
    order = [letter for letter in layout if letter != "N"]
    held = frames if "T" in order else frames[0]
    letters = "THWC" if "T" in order else "HWC"
    moved = held.transpose([letters.index(letter) for letter in order])
    if moved.size != int(np.prod(port.logical_shape)):
        raise VideoError(
            f"Calibration frames of size {frames.shape[2]}x{frames.shape[1]} do not fill input {port.name!r} of shape "
            f"{port.logical_shape} ({port.logical_layout}). Preprocess them to the model's size, or give videos."
        )
    return np.ascontiguousarray(moved.reshape(port.logical_shape), dtype=np.float32)


def _bundled(info: ModelInfo, inputs: Sequence[InputPort], stream: bool) -> CalibrationSet:
    folder = files("mvtool").joinpath("data")
    names = sorted(entry.name for entry in folder.iterdir() if Path(entry.name).suffix in VIDEO_SUFFIXES)
    if not names:
        raise VideoError("The bundled calibration clip is not installed. Give your own with --calibration.")
    with as_file(folder.joinpath(names[0])) as clip:
        frames = _video_frames(clip, info)
        steps = clip_of_frames(frames, inputs[0], stream=stream)
    note = (
        "Calibrated on the bundled clip only: int8 accuracy on your videos may suffer. "
        "Give a folder of typical videos with --calibration."
    )
    return CalibrationSet((steps,), bundled=True, origin=names[0], notes=(note,))


def _generated(spec: str, info: ModelInfo, inputs: Sequence[InputPort], stream: bool) -> CalibrationSet:
    from mvtool import preprocessing

    if not _is_video_model(info, inputs) or info.preprocessing is None:
        raise VideoError(
            f"The model {info.name!r} takes no video frames; calibrate with .npy arrays in place of {spec}."
        )
    contract, videos = info.preprocessing, parse(spec)
    clips = tuple(
        clip_of_frames(
            (preprocessing.apply(contract, frame) for frame in videos.frames_of(index)), inputs[0], stream=stream
        )
        for index in range(min(len(videos), MAX_CLIPS))
    )
    return CalibrationSet(clips, origin=spec)


def _random(inputs: Sequence[InputPort], stream: bool) -> CalibrationSet:
    generator = np.random.default_rng(RANDOM_SEED)
    values = sum(math.prod(port.logical_shape) for port in inputs)
    windows = min(RANDOM_STEPS, max(MAX_WINDOWS, RANDOM_VALUES // max(values, 1)))
    count = RANDOM_STEPS if stream else windows
    steps = tuple(tuple(_random_input(port, generator) for port in inputs) for _ in range(count))
    note = (
        "Calibrated on random inputs, because the model does not take video frames: int8 ranges are a guess. "
        "Give .npy arrays of real inputs with --calibration."
    )
    return CalibrationSet((steps,), bundled=True, origin="random", notes=(note,))


def _random_input(port: InputPort, generator: np.random.Generator) -> AnyArray:
    if port.dtype in WHOLE_TYPES:
        # 0 and 1 are valid for a flag, a class index and a token alike.
        return generator.integers(0, 2, port.logical_shape).astype(port.dtype)
    return generator.standard_normal(port.logical_shape, dtype=np.float32)


def _clips(
    path: Path, info: ModelInfo, inputs: Sequence[InputPort], stream: bool
) -> tuple[tuple[Clip, ...], tuple[str, ...]]:
    if not path.exists():
        raise VideoError(f"The calibration path {path} does not exist. Give a folder of videos, images or .npy arrays.")
    sources = _sources(path)
    if not sources:
        raise VideoError(
            f"{path} holds no calibration data; expected videos ({_listed(VIDEO_SUFFIXES)}), images "
            f"({_listed(IMAGE_SUFFIXES)}), subfolders of images, or .npy/.npz arrays."
        )
    notes = (f"{MAX_CLIPS} of {len(sources)} calibration clips are used.",) if len(sources) > MAX_CLIPS else ()
    chosen = [sources[i * len(sources) // MAX_CLIPS] for i in range(MAX_CLIPS)] if notes else sources
    return tuple(_clip(source, info, inputs, stream) for source in chosen), notes


def _sources(path: Path) -> list[Path]:
    """Files and image folders that are one clip each, in the order of their names."""
    if path.is_file():
        return [path]
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    folders = [entry for entry in entries if entry.is_dir() and _images(entry)]
    movies = [entry for entry in entries if entry.suffix.lower() in VIDEO_SUFFIXES | ARRAY_SUFFIXES]
    return sorted([*folders, *movies]) or ([path] if _images(path) else [])


def _images(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES)


def _clip(source: Path, info: ModelInfo, inputs: Sequence[InputPort], stream: bool) -> Clip:
    if source.suffix.lower() in ARRAY_SUFFIXES:
        return _array_clip(source, info, inputs, stream)
    if not _is_video_model(info, inputs):
        raise VideoError(
            f"{source.name} is a video or an image folder, but the model {info.name!r} takes "
            f"{[(port.name, port.logical_shape) for port in inputs]}. Calibrate with .npy or .npz arrays."
        )
    clip = clip_of_frames(_video_frames(source, info), inputs[0], stream=stream)
    if not clip:
        raise VideoError(f"{source.name} holds no frame. Remove it from the calibration folder.")
    return clip


def _video_frames(source: Path, info: ModelInfo) -> Iterator[Frames]:
    from mvtool import preprocessing, video

    if info.preprocessing is None:
        raise VideoError(f"The model {info.name!r} declares no preprocessing; calibrate with .npy arrays.")
    for frame in video.frames(source, frame_rate=info.frame_rate):
        yield preprocessing.apply(info.preprocessing, frame.image)


def _array_clip(source: Path, info: ModelInfo, inputs: Sequence[InputPort], stream: bool) -> Clip:
    loaded = _load(source)
    if not isinstance(loaded, dict):
        return _single_array(loaded, source, info, inputs, stream)
    stacks = loaded
    missing = [port.name for port in inputs if port.name not in stacks]
    if missing:
        raise VideoError(f"{source.name} lacks the inputs {missing}; it holds {sorted(stacks)}.")
    columns = [_stack(stacks[port.name], source, port) for port in inputs]
    return tuple(itertools.islice(zip(*columns, strict=False), MAX_STEPS))


def _load(source: Path) -> AnyArray | dict[str, AnyArray]:
    try:
        loaded = np.load(source, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise VideoError(f"{source.name} cannot be read as an array: {error}. Write it with numpy.save.") from error


def _single_array(array: AnyArray, source: Path, info: ModelInfo, inputs: Sequence[InputPort], stream: bool) -> Clip:
    from mvtool import preprocessing

    if len(inputs) != 1:
        raise VideoError(
            f"{source.name} is one array, but the model takes {[port.name for port in inputs]}. "
            "Give an .npz with one array per input name."
        )
    port = inputs[0]
    if array.shape[1:] == port.logical_shape and (array.dtype != np.uint8 or port.dtype in WHOLE_TYPES):
        return tuple((step,) for step in _stack(array, source, port)[:MAX_STEPS])
    if not (_is_video_model(info, inputs) and array.ndim == 4 and array.shape[-1] == 3):
        raise VideoError(
            f"{source.name} holds {array.dtype} of shape {array.shape}; expected (steps, "
            f"{', '.join(map(str, port.logical_shape))}) of {port.dtype}, or video frames (T, H, W, 3)."
        )
    contract = info.preprocessing
    if array.dtype == np.uint8 and contract is not None:
        frames: Iterable[Frames] = (preprocessing.apply(contract, frame) for frame in array.view(np.uint8))
    else:
        frames = iter(array.astype(np.float32))
    return clip_of_frames(frames, port, stream=stream)


def _stack(array: AnyArray, source: Path, port: InputPort) -> AnyArray:
    if array.shape[1:] != port.logical_shape or not len(array):
        raise VideoError(
            f"{source.name} holds shape {array.shape} for input {port.name!r}; expected (steps, "
            f"{', '.join(map(str, port.logical_shape))})."
        )
    if port.dtype not in WHOLE_TYPES:
        return np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype.kind not in "iub":
        raise VideoError(
            f"{source.name} holds {array.dtype} for input {port.name!r} of type {port.dtype}; save whole numbers, for "
            f"example with .astype({port.dtype!r})."
        )
    return np.ascontiguousarray(array)


def _listed(suffixes: frozenset[str]) -> str:
    return ", ".join(sorted(suffixes))
