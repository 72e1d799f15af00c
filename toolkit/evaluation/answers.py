"""What a model answers to one clip, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvtool import preprocessing
from mvtool.errors import VideoError
from mvtool.running import default_preprocessing, grouped, image_port, scores_port, softmax, to_logical
from mvtool.session import Session

Whole = NDArray[np.uint16]


class Answers(NamedTuple):
    """Answers to one clip after every step.

    Attributes:
        ranks: `(steps,)`, how many classes were held to be more probable than the true one; 0 is a right answer.
        predicted: `(steps,)`, the most probable class.
    """

    ranks: Whole
    predicted: Whole


def answer(session: Session, frames: Iterable[NDArray[np.uint8]], label: int, limit: int | None = None) -> Answers:
    """Play a clip to a model, from its reset state.

    A model with state answers for the whole video so far. One without answers for each group of frames on its own; its answer so far
    is then the mean of their probabilities.

    Args:
        session: Any runtime; it is reset.
        frames: Decoded frames `(H, W, 3)`, RGB.
        label: True class, a position among the scores.
        limit: Frames to play at most.

    Raises:
        VideoError: There is no frame.
        RuntimeLoadError: A score is not a finite number.
    """
    ranks, predicted = [], []
    for probabilities in _so_far(session, islice(frames, limit)):
        ranks.append(rank(probabilities, label))
        predicted.append(int(probabilities.argmax()))
    if not ranks:
        raise VideoError("The video gave no frame.")
    return Answers(np.asarray(ranks, np.uint16), np.asarray(predicted, np.uint16))


def rank(scores: NDArray[np.float64], label: int) -> int:
    """Classes before `label` in the order of falling scores; equal scores, which int8 gives, stand in the order of the classes.

    Example:
        >>> rank(np.array([0.2, 0.4, 0.4]), 2)
        1
    """
    return int((scores > scores[label]).sum() + (scores[:label] == scores[label]).sum())


def _so_far(session: Session, frames: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.float64]]:
    manifest = session.manifest
    port, output = image_port(manifest), scores_port(manifest)
    contract = manifest.preprocessing or default_preprocessing(port)
    total: NDArray[np.float64] | None = None
    session.reset()
    for group in grouped(frames, manifest.frames_per_step):
        seen = to_logical(np.stack([preprocessing.apply(contract, frame) for frame in group]), port)
        now = softmax(session.step(seen)[output.name], session.engine).astype(np.float64)
        total = now if total is None or manifest.states else total + now
        yield total
