"""The reference stream and all artifacts, stepped together.

PyTorch computes step `n + 1` while the workers replay step `n`; a slot of the store is written again
only after every worker has acknowledged its frame, so each sees the same reference at the same frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from mvtool.ports import AnyArray
from mvtool.session import Session
from mvtool.verification.frames import FrameSource, digest
from mvtool.verification.messages import FRAME_SLOTS, PROBE_AFTER, PROBE_BEFORE, Finish, Step
from mvtool.verification.order import PROBE_FRAMES, perturbed
from mvtool.verification.process import Worker
from mvtool.verification.replay import logical_states
from mvtool.verification.store import Frame, FrameStore

STAGES = ("load artifacts", "replay", "order, reset and golden frames")
Progress = Callable[[str, int, int], None]
"""Called with what is going on, how many parts of it are done, and how many there are."""


@dataclass(frozen=True)
class Replayed:
    """What was replayed.

    Attributes:
        steps: Number of steps.
        distinct: How many different inputs they had.
        stages: Wall time of loading the artifacts, of the steps, and of the checks after them, in seconds.
    """

    steps: int
    distinct: int
    stages: Mapping[str, float] = field(default_factory=dict)


def replay_all(
    reference: Session,
    source: FrameSource,
    store: FrameStore,
    workers: Sequence[Worker],
    steps: int,
    progress: Progress,
) -> Replayed:
    """Drive `workers` through `steps` steps of the reference, then through the probe step."""
    clock = [time.monotonic()]
    for number, worker in enumerate(workers, start=1):
        worker.wait_ready()
        progress("loading artifacts", number, len(workers))
    clock.append(time.monotonic())
    seen: set[bytes] = set()
    rolled: Frame | None = None
    reference.reset()
    for number in range(1, steps + 1):
        inputs = source.step(number - 1)
        seen.add(digest(inputs))
        frame = _reference_step(reference, inputs)
        if number <= PROBE_FRAMES:
            rolled = frame
        for worker in workers:
            worker.wait_step(number - FRAME_SLOTS)
        slot = number % FRAME_SLOTS
        store.write(slot, frame)
        for worker in workers:
            worker.send(Step(number, slot))
        progress("replaying frames", number, steps)
    if rolled is not None:
        _write_probe(reference, source.step(steps), rolled, store)
    clock.append(time.monotonic())
    _finish(workers, progress)
    clock.append(time.monotonic())
    spent = [round(after - before, 3) for before, after in pairwise(clock)]
    return Replayed(steps, len(seen), dict(zip(STAGES, spent, strict=True)))


def _reference_step(reference: Session, inputs: tuple[AnyArray, ...]) -> Frame:
    outputs = reference.step(*inputs)
    return Frame(inputs, outputs, logical_states(reference.manifest, reference.state()))


def _write_probe(reference: Session, inputs: tuple[AnyArray, ...], rolled: Frame, store: FrameStore) -> None:
    states = perturbed(reference.manifest, rolled.states)
    ports = {binding.state: binding.input for binding in reference.manifest.states}
    store.write(PROBE_BEFORE, Frame(rolled.inputs, rolled.outputs, states))
    reference.set_state({name: ports[name].encode(array) for name, array in states.items()})
    store.write(PROBE_AFTER, _reference_step(reference, inputs))


def _finish(workers: Sequence[Worker], progress: Progress) -> None:
    for worker in workers:
        worker.send(Finish())
    for number, worker in enumerate(workers, start=1):
        worker.wait_finished()
        progress("checking order, reset and golden frames", number, len(workers))
