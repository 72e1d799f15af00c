"""What a model answers to one clip, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from mvtool import preprocessing
from mvtool.errors import VideoError
from mvtool.running import FloatArray, default_preprocessing, grouped, image_port, scores_port, softmax, to_logical
from mvtool.session import Session

Whole = NDArray[np.uint16]


def prepared(session: Session, frames: Iterable[NDArray[np.uint8]], limit: int | None = None) -> list[FloatArray]:
    """Frames as the models of a build see them, once for all of its artifacts.

    Args:
        session: Any of them.
        frames: Decoded frames `(H, W, 3)`, RGB; no more are read than are needed.
        limit: Frames to play at most.

    Raises:
        VideoError: There is no frame.
    """
    manifest = session.manifest
    contract = manifest.preprocessing or default_preprocessing(image_port(manifest))
    found = [preprocessing.apply(contract, frame) for frame in islice(frames, limit)]
    if not found:
        raise VideoError("The video gave no frame. Remove it from the data set.")
    return found


def answer(session: Session, frames: Iterable[FloatArray], label: int) -> Whole:
    """Play a clip to a model, from its reset state.

    A model with state answers for the whole video so far. One without answers for each group of frames on its own; its answer so far
    is then the mean of their probabilities.

    Args:
        session: Any runtime; it is reset.
        frames: From `prepared`.
        label: True class, a position among the scores.

    Returns:
        `(steps,)`, how many classes were held to be more probable than the true one after every step; 0 is a right answer.

    Raises:
        RuntimeLoadError: A score is not a finite number.
    """
    return np.asarray([rank(probabilities, label) for probabilities in _so_far(session, frames)], np.uint16)


def rank(scores: NDArray[np.float64], label: int) -> int:
    """Classes before `label` in the order of falling scores; equal scores, which int8 gives, stand in the order of the classes.

    Example:
        >>> rank(np.array([0.2, 0.4, 0.4]), 2)
        1
    """
    return int((scores > scores[label]).sum() + (scores[:label] == scores[label]).sum())


def _so_far(session: Session, frames: Iterable[FloatArray]) -> Iterator[NDArray[np.float64]]:
    manifest = session.manifest
    port, output = image_port(manifest), scores_port(manifest)
    total: NDArray[np.float64] | None = None
    session.reset()
    for group in grouped(iter(frames), manifest.frames_per_step):
        seen = to_logical(np.stack(group), port)
        now = softmax(session.step(seen)[output.name], session.engine).astype(np.float64)
        total = now if total is None or manifest.states else total + now
        yield total
