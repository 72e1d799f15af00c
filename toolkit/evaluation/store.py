"""Answers on disk, so that an interrupted evaluation goes on where it was.

FOLDER/task.json            what is evaluated
FOLDER/shards/000032.npz    answers to the clips from number 32 on
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mvtool.errors import UsageError
from mvtool.evaluation.task import Shard, Task
from mvtool.files import write_atomic

TASK, SHARDS = "task.json", "shards"


class Store:
    """The answers of one evaluation.

    Args:
        folder: Made if it is not there.
        task: What is evaluated.

    Raises:
        UsageError: The folder holds another evaluation.
    """

    def __init__(self, folder: Path, task: Task) -> None:
        """Write what is evaluated, or check that it is the same."""
        self._folder = folder
        (folder / SHARDS).mkdir(parents=True, exist_ok=True)
        written = folder / TASK
        document = {"key": task.key, **asdict(task)}
        if written.exists() and _key(written) != task.key:
            raise UsageError(
                f"{folder} holds another evaluation: another build, data set, number of clips or frames, or version of mvtool. "
                "Give another folder with --out, or remove that one."
            )
        write_atomic(written, (json.dumps(document, indent=1) + "\n").encode())

    def has(self, clips: range) -> bool:
        """Whether the answers to these clips are here."""
        return self._path(clips.start).exists()

    def add(self, shard: Shard) -> None:
        """Keep answers, once; the file appears with all of them or not at all."""
        stream = io.BytesIO()
        np.savez_compressed(stream, **shard._asdict())
        write_atomic(self._path(shard.first), stream.getvalue())

    def read(self, parts: Iterable[range]) -> list[Shard]:
        """The answers to all parts, in their order.

        Raises:
            UsageError: A file is broken or of other clips.
        """
        return [self._shard(clips) for clips in parts]

    def _shard(self, clips: range) -> Shard:
        path = self._path(clips.start)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                shard = Shard(clips.start, *(arrays[name] for name in Shard._fields[1:]))
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(f"{path} cannot be read: {error}. Remove it; its clips are then played again.") from error
        if len(shard.steps) != len(clips):
            raise UsageError(f"{path} holds {len(shard.steps)} clips, expected {len(clips)}. Remove it.")
        return shard

    def _path(self, first: int) -> Path:
        return self._folder / SHARDS / f"{first:06d}.npz"


def _key(path: Path) -> object:
    try:
        return json.loads(path.read_text()).get("key")
    except (ValueError, AttributeError):
        return None
