"""Batches of labelled clips in an order that depends on the seed and the step alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mvtool.datasets.base import LabelledVideos
from mvtool.errors import VideoError
from mvtool.ports import Preprocessing
from mvtool.preprocessing import FloatArray, apply

ENDLESS = 10**7
"""So many clips are not seen twice. They are drawn one by one: a shuffled list of them would not fit into memory."""


@dataclass(frozen=True)
class Order:
    """Which clip comes when: every epoch is a permutation of its own.

    Attributes:
        count: Number of clips.
        seed: Of the permutations.
        in_order: So many clips at the start come in the order of the data set. Those of the generator have their labels in turns there, from
            which a network learns to see motion in half the steps; but batches that hold every label tell it, through their norms, which
            ones are still missing, so that it has to be weaned from them.
    """

    count: int
    seed: int
    in_order: int = 0

    def __call__(self, position: int) -> int:
        """Index of the clip at a position, counted from the start of training."""
        epoch, place = divmod(position, self.count)
        if position < self.in_order:
            return place
        if self.count >= ENDLESS:
            return int(np.random.default_rng((self.seed, position)).integers(self.count))
        return int(self._permutation(epoch)[place])

    def _permutation(self, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.random.default_rng((self.seed, epoch)).permutation(self.count)


@dataclass(frozen=True)
class Clips:
    """Labelled videos as a model is trained on them.

    Attributes:
        videos: Where they come from.
        preprocessing: Contract of the model.
        frames: Of each clip, its first; None for all.
        frame_rate: Frames per second, where the videos have a time of their own.
    """

    videos: LabelledVideos
    preprocessing: Preprocessing
    frames: int | None = None
    frame_rate: float | None = None

    def stacked(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Clips `(N, 3, T, H, W)` and labels `(N,)`.

        Raises:
            VideoError: A video has fewer frames, or other ones than the first.
        """
        clips: list[FloatArray] = []
        for index in indices:
            seen = islice(self.videos.frames_of(index, self.frame_rate), self.frames)
            clips.append(np.stack([apply(self.preprocessing, frame) for frame in seen]))
            wanted = self.frames or len(clips[0])
            if len(clips[-1]) != wanted:
                raise VideoError(
                    f"{self.videos.name(index)} has {len(clips[-1])} frames, {wanted} are needed: clips of a batch are equally long. "
                    "Train on fewer with --frames, or leave the video out."
                )
        labels = [self.videos.label(index) for index in indices]
        return torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3), torch.tensor(labels)


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, clips: Clips, positions: range, batch: int, order: Order) -> None:
        self._clips, self._positions, self._batch, self._order = clips, positions, batch, order

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, at: int) -> tuple[Tensor, Tensor]:
        first = self._positions[at] * self._batch
        return self._clips.stacked([self._order(place) for place in range(first, first + self._batch)])


def batches(
    clips: Clips, *, steps: range, batch: int, order: Order, workers: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of the given steps, prepared by other processes while the model trains.

    Args:
        clips: What is trained on.
        steps: Numbers of the steps; the same number gives the same batch.
        batch: Clips per step.
        order: Which clip comes when.
        workers: Processes that prepare clips; 0 prepares them in this one.

    Yields:
        Clips `(N, 3, T, H, W)` and labels `(N,)`.
    """
    source = _Batches(clips, steps, batch, order)
    if workers == 0:
        yield from DataLoader(source, batch_size=None)
        return
    # A fork would copy the threads of other frameworks in the middle of their work.
    yield from DataLoader(
        source, batch_size=None, num_workers=workers, prefetch_factor=4, multiprocessing_context="spawn"
    )
