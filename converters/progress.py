"""Progress of a conversion, as the pipeline tells it to whoever listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from mvtool.errors import MvtoolError


@dataclass(frozen=True)
class StageEvent:
    """One stage of a conversion began, ended or failed.

    Attributes:
        target: `tflite`, `coreml` or `executorch`; None for stages that all targets share.
        precision: `fp32`, `fp16` or `int8`; None for stages that all precisions share.
        stage: Name of the stage: `load`, `capture`, `lower`, `calibrate`, `quantize`, `emit`, ...
        status: What happened.
        seconds: Wall time of the stage, given with `done` and `failed`.
        message: What the stage found, or why it failed.
        cpu_seconds: Processor time of the stage, given with `done`.
    """

    target: str | None
    precision: str | None
    stage: str
    status: Literal["start", "done", "failed"]
    seconds: float | None = None
    message: str | None = None
    cpu_seconds: float | None = None


Listener = Callable[[StageEvent], None]


@contextmanager
def stage(tell: Listener, name: str, target: str | None = None, precision: str | None = None) -> Iterator[None]:
    """Tell of a stage that this process does itself."""
    tell(StageEvent(target, precision, name, "start"))
    began, used = time.perf_counter(), time.process_time()
    try:
        yield
    except MvtoolError as error:
        tell(StageEvent(target, precision, name, "failed", time.perf_counter() - began, str(error)))
        raise
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - used
    tell(StageEvent(target, precision, name, "done", seconds, cpu_seconds=cpu_seconds))


Part = Callable[[str], AbstractContextManager[None]]
_part: ContextVar[Part | None] = ContextVar("part", default=None)


def part(name: str) -> AbstractContextManager[None]:
    """A part of the stage that is going on, which is timed as a stage of its own where somebody times stages."""
    timed = _part.get()
    return nullcontext() if timed is None else timed(name)


@contextmanager
def timing_parts(timed: Part) -> Iterator[None]:
    """Let `timed` time the parts of what is done inside."""
    token = _part.set(timed)
    try:
        yield
    finally:
        _part.reset(token)
