"""Playing the clips in several processes of this computer, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any, Final

from mvtool.errors import RuntimeLoadError, UsageError
from mvtool.evaluation.task import Shard, Task, evaluate_shard, packed, unpacked
from mvtool.extras import require

Workers = Callable[[Task, Path, Sequence[range]], Iterator[Shard]]
"""Plays parts of the clips, given the folder of the build, and gives their answers in any order, each once."""
REACHABLE_S: Final = 10.0
DEATHS: Final = 3
"""So many times a part may take its process with it before it is given up."""


def local(jobs: int) -> Workers:
    """Processes of this computer.

    A process that is killed, by the system for want of memory for instance, is replaced, and its part is played again.

    Args:
        jobs: How many; 1 plays in this process.
    """

    def play(task: Task, folder: Path, parts: Sequence[range]) -> Iterator[Shard]:
        if jobs == 1:
            yield from (evaluate_shard(task, folder, clips) for clips in parts)
            return
        left = {clips.start: clips for clips in parts}
        deaths = 0
        while left:
            try:
                for shard in _pool(task, folder, list(left.values()), jobs):
                    del left[shard.first]
                    deaths = 0
                    yield shard
            except BrokenProcessPool as error:
                deaths += 1
                if deaths == DEATHS:
                    raise RuntimeLoadError(
                        f"A process that plays clips was killed {DEATHS} times in a row without finishing any, perhaps for want of "
                        "memory. Give fewer --jobs; the answers so far are kept."
                    ) from error

    return play


def _pool(task: Task, folder: Path, parts: Sequence[range], jobs: int) -> Iterator[Shard]:
    # Runtimes have threads, which a fork would copy in the middle of their work.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(parts)), mp_context=context)
    try:
        waiting = iter(parts)
        running = {pool.submit(evaluate_shard, task, folder, clips) for clips in islice(waiting, 2 * jobs)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            yield from _results(finished)
            running |= {pool.submit(evaluate_shard, task, folder, clips) for clips in islice(waiting, len(finished))}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _results(finished: Iterable[Future[Shard]]) -> Iterator[Shard]:
    for future in finished:
        yield future.result()


def on_ray(address: str) -> Workers:
    """Tasks of a Ray cluster, which has mvtool installed on every node.

    The files of the build travel with the task; a data set on disk must lie at the same path on all nodes. A worker that dies is
    replaced by Ray, and its part played again; this computer keeps what comes back, so no clip is lost or counted twice.

    Args:
        address: Of the cluster, `auto` for the one of this computer, or `local` to start one.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: Nobody answers at the address; raised when the clips are to be played.
    """
    ray: Any = require("ray", "to distribute an evaluation")

    def play(task: Task, folder: Path, parts: Sequence[range]) -> Iterator[Shard]:
        _check_reachable(address)
        ray.init(address=address, log_to_driver=False, ignore_reinit_error=True)
        try:
            remote = ray.remote(max_retries=DEATHS, num_cpus=1)(_play_archive)
            archive = ray.put(packed(task, folder))
            running = [remote.remote(task, archive, clips) for clips in parts]
            while running:
                (finished, *_), running = ray.wait(running, num_returns=1)
                yield ray.get(finished)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise RuntimeLoadError(
                f"The Ray cluster lost a part of the evaluation more than {DEATHS} times: {error}. Look at its workers' memory and logs; "
                "the answers so far are kept."
            ) from error
        finally:
            ray.shutdown()

    return play


def _check_reachable(address: str) -> None:
    """Ray itself asks for minutes before it gives up on an address where nobody is."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), REACHABLE_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(
            f"No Ray cluster answers at {address!r}: {error}. Start one with `ray start --head`, or give its address as HOST:PORT."
        ) from error


def _play_archive(task: Task, archive: bytes, clips: range) -> Shard:
    return evaluate_shard(task, unpacked(archive), clips)
