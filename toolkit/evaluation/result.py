"""The result of an evaluation (`mvtool.evaluation/1`): counts, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from mvtool.evaluation.statistics import Interval, paired_drop, share
from mvtool.evaluation.task import REFERENCE, Shard, Task
from mvtool.ports import Document

EVALUATION_SCHEMA = "mvtool.evaluation/1"
TOP = (1, 5)


class Share(Document):
    """A share of clips, or the difference of two, with its 95 % interval; all of 1.

    Attributes:
        value: The share.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, interval: Interval) -> Share:
        """As a document."""
        return cls(value=interval.value, low=interval.low, high=interval.high)


class Accuracy(Document):
    """Right answers of one subject at one moment.

    Attributes:
        clips: That last so long.
        top1: Share whose true class was held most probable; Wilson's interval.
        top5: Share whose true class was among the five most probable.
    """

    clips: int = Field(ge=1)
    top1: Share
    top5: Share


class SubjectAccuracy(Document):
    """Right answers of one subject.

    Attributes:
        name: `tflite int8`, ..., or `pytorch fp32` for the captured program.
        sha256: Of the file.
        final: After the last step of each clip.
        steps: After step 0, 1, ... of the clips that last so long.
    """

    name: str
    sha256: str
    final: Accuracy
    steps: tuple[Accuracy, ...]


class Drop(Document):
    """How much less often `new` is right than `base` at one moment, on the same clips.

    Attributes:
        clips: Compared.
        only_base: Clips that `base` alone got right.
        only_new: Clips that `new` alone got right.
        drop: Of the top-1 share, positive where `new` is worse; interval of Bonett and Price for paired answers.
    """

    clips: int = Field(ge=1)
    only_base: int
    only_new: int
    drop: Share


class Comparison(Document):
    """Two subjects on the same clips.

    Attributes:
        base: Name of the one.
        new: Name of the other.
        final: After the last step.
        steps: After each step.
    """

    base: str
    new: str
    final: Drop
    steps: tuple[Drop, ...]


class Evaluation(Document):
    """What `mvtool evaluate` found.

    Attributes:
        schema_id: Always `mvtool.evaluation/1`; the JSON key is `schema`.
        model: Name of the model.
        dataset: Specification of the data set.
        clips: Number of clips.
        clips_sha256: Of their names and labels.
        frames_per_step: Frames that one step consumes.
        version: Of mvtool.
        subjects: Accuracy of each.
        comparisons: int8 with fp32 of its runtime, and each artifact with the captured program where that was evaluated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_id: Literal["mvtool.evaluation/1"] = Field(default="mvtool.evaluation/1", alias="schema")
    model: str
    dataset: str
    clips: int = Field(ge=1)
    clips_sha256: str
    frames_per_step: int = Field(ge=1)
    version: str
    subjects: tuple[SubjectAccuracy, ...]
    comparisons: tuple[Comparison, ...]


def result(task: Task, shards: Sequence[Shard], frames_per_step: int) -> Evaluation:
    """Count the answers.

    Args:
        task: What was evaluated.
        shards: All of it.
        frames_per_step: Of the model.
    """
    ranks, final = _table(shards), final_ranks(shards)
    subjects = [
        SubjectAccuracy(
            name=subject.name,
            sha256=subject.sha256,
            final=_accuracy(final[place]),
            steps=tuple(_accuracy(column) for column in ranks[place].T),
        )
        for place, subject in enumerate(task.subjects)
    ]
    names = [subject.name for subject in task.subjects]
    comparisons = [
        Comparison(
            base=names[base],
            new=names[new],
            final=_drop(final[base], final[new]),
            steps=tuple(map(_drop, ranks[base].T, ranks[new].T)),
        )
        for base, new in _pairs(names)
    ]
    return Evaluation(
        model=task.model,
        dataset=task.dataset,
        clips=task.clips,
        clips_sha256=task.clips_sha256,
        frames_per_step=frames_per_step,
        version=task.version,
        subjects=tuple(subjects),
        comparisons=tuple(comparisons),
    )


def final_ranks(shards: Sequence[Shard]) -> NDArray[np.int32]:
    """Rank of the true class after the last step of each clip, 0 for the most probable one: `(subjects, clips)`."""
    ranks = _table(shards)
    return ranks[:, np.arange(ranks.shape[1]), np.concatenate([shard.steps for shard in shards]).astype(int) - 1]


def _table(shards: Sequence[Shard]) -> NDArray[np.int32]:
    """Ranks `(subjects, clips, steps)`; -1 where a clip is over."""
    longest = max(int(shard.steps.max()) for shard in shards)
    rows = []
    for shard in shards:
        clip = np.full((len(shard.ranks), len(shard.steps), longest), -1, np.int32)
        clip[:, np.arange(longest) < shard.steps[:, None]] = shard.ranks
        rows.append(clip)
    return np.concatenate(rows, axis=1)


def _accuracy(ranks: NDArray[np.int32]) -> Accuracy:
    known = ranks[ranks >= 0]
    one, five = (Share.of(share(int((known < top).sum()), len(known))) for top in TOP)
    return Accuracy(clips=len(known), top1=one, top5=five)


def _drop(base: NDArray[np.int32], new: NDArray[np.int32]) -> Drop:
    known = base >= 0
    right, other = base[known] == 0, new[known] == 0
    lost, won, clips = int((right & ~other).sum()), int((~right & other).sum()), int(known.sum())
    return Drop(clips=clips, only_base=lost, only_new=won, drop=Share.of(paired_drop(lost, won, clips)))


def _pairs(names: Sequence[str]) -> list[tuple[int, int]]:
    """int8 and fp16 against fp32 of the same runtime, and everything against the captured program."""
    pairs = []
    for new, name in enumerate(names):
        runtime, _, precision = name.partition(" ")
        base = f"{runtime} fp32"
        if precision != "fp32" and base in names:
            pairs.append((names.index(base), new))
        if name != REFERENCE and REFERENCE in names:
            pairs.append((names.index(REFERENCE), new))
    return pairs
