"""Evaluating a build: plan, play what has not been played yet, count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvtool.build import Build
from mvtool.evaluation.result import Evaluation, final_ranks, result
from mvtool.evaluation.store import Store
from mvtool.evaluation.task import Task, plan, shards
from mvtool.evaluation.workers import Workers, local
from mvtool.files import write_atomic
from mvtool.ports import Precision, Runtime

RESULT = "evaluation.json"
CLIPS_PER_SHARD = 32
"""Answers to so many clips are kept at once: what an interruption can lose, times the number of processes."""

Progress = Callable[[int, int], None]


def evaluate(
    build: Build,
    artifacts: Sequence[tuple[Runtime, Precision]],
    dataset: str,
    out: Path,
    *,
    reference: bool = False,
    clips: int | None = None,
    frames: int | None = None,
    workers: Workers | None = None,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Accuracy of artifacts of a build on labelled videos, all on the same clips.

    Args:
        build: The build.
        artifacts: Which of it.
        dataset: Specification, see `mvtool.datasets.spec`.
        out: Folder for the answers; what it holds already is not played again.
        reference: Evaluate the captured PyTorch program too.
        clips: Only the first so many.
        frames: Play at most so many frames of each clip.
        workers: Where the clips are played; this process if not given.
        progress: Told how many clips are done, of how many.

    Raises:
        UsageError: The data set does not fit the model, or `out` holds another evaluation.
        VideoError: The data set or a clip cannot be read.
        RuntimeLoadError: An artifact cannot be executed.
    """
    for runtime, precision in artifacts:
        build.check_hash(build.artifact(runtime, precision))
    task = plan(build, artifacts, dataset, reference=reference, clips=clips, frames=frames)
    store, parts = Store(out, task), shards(task, CLIPS_PER_SHARD)
    missing = [part for part in parts if not store.has(part)]
    done = task.clips - sum(map(len, missing))
    progress(done, task.clips)
    for shard in (workers or local(1))(task, build.folder, missing):
        store.add(shard)
        done += len(shard.steps)
        progress(done, task.clips)
    found = result(task, store.read(parts), build.artifact(*artifacts[0]).ports.frames_per_step)
    write_atomic(out / RESULT, (found.model_dump_json(by_alias=True, indent=1) + "\n").encode())
    return found


def final_answers(task: Task, folder: Path, *, workers: Workers | None = None) -> NDArray[np.int32]:
    """Rank of the true class after the last step of each clip, without a store: `(subjects, clips)`.

    Args:
        task: What is evaluated.
        folder: Holds the subjects' files.
        workers: Where the clips are played; this process if not given.

    Raises:
        VideoError: A clip cannot be read.
        RuntimeLoadError: A subject cannot be executed.
    """
    found = (workers or local(1))(task, folder, shards(task, CLIPS_PER_SHARD))
    return final_ranks(sorted(found, key=lambda part: part.first))
