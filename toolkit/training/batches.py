"""Batches of labelled clips in an order that depends on the seed and the step alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mvtool.datasets.base import LabelledVideos
from mvtool.ports import Preprocessing
from mvtool.preprocessing import apply

ENDLESS = 10**7
"""So many clips are not seen twice. They are taken in their own order: a shuffled list of them would not fit into memory, and those of
the generator have their labels in turns, from which a small network learns in half the steps that batches drawn at random take."""


@dataclass(frozen=True)
class Order:
    """Which clip comes when: every epoch is a permutation of its own.

    Attributes:
        count: Number of clips.
        seed: Of the permutations.
    """

    count: int
    seed: int

    def __call__(self, position: int) -> int:
        """Index of the clip at a position, counted from the start of training."""
        epoch, place = divmod(position, self.count)
        return place if self.count >= ENDLESS else int(self._permutation(epoch)[place])

    def _permutation(self, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.random.default_rng((self.seed, epoch)).permutation(self.count)


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    def __init__(
        self, videos: LabelledVideos, preprocessing: Preprocessing, positions: range, batch: int, order: Order
    ):
        self._videos, self._preprocessing = videos, preprocessing
        self._positions, self._batch, self._order = positions, batch, order

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, at: int) -> tuple[Tensor, Tensor]:
        first = self._positions[at] * self._batch
        indices = [self._order(place) for place in range(first, first + self._batch)]
        return stacked(self._videos, indices, self._preprocessing)


def stacked(videos: LabelledVideos, indices: list[int], preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """Clips `(N, 3, T, H, W)` as the model sees them, and labels `(N,)`."""
    clips = [np.stack([apply(preprocessing, frame) for frame in videos.frames_of(index)]) for index in indices]
    labels = [videos.label(index) for index in indices]
    return torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3), torch.tensor(labels)


def batches(
    videos: LabelledVideos, preprocessing: Preprocessing, *, steps: range, batch: int, seed: int, workers: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of the given steps, prepared by other processes while the model trains.

    Args:
        videos: All of one length.
        preprocessing: Contract of the model.
        steps: Numbers of the steps; the same number gives the same batch.
        batch: Clips per step.
        seed: Of the order.
        workers: Processes that prepare clips; 0 prepares them in this one.

    Yields:
        Clips `(N, 3, T, H, W)` and labels `(N,)`.
    """
    source = _Batches(videos, preprocessing, steps, batch, Order(len(videos), seed))
    if workers == 0:
        yield from DataLoader(source, batch_size=None)
        return
    # A fork would copy the threads of other frameworks in the middle of their work.
    yield from DataLoader(
        source, batch_size=None, num_workers=workers, prefetch_factor=4, multiprocessing_context="spawn"
    )
