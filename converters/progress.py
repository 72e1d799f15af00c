"""Progress of a conversion, as the pipeline tells it to whoever listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """

    target: str | None
    precision: str | None
    stage: str
    status: Literal["start", "done", "failed"]
    seconds: float | None = None
    message: str | None = None


Listener = Callable[[StageEvent], None]


@contextmanager
def stage(tell: Listener, name: str, target: str | None = None, precision: str | None = None) -> Iterator[None]:
    """Tell of a stage that this process does itself."""
    tell(StageEvent(target, precision, name, "start"))
    began = time.perf_counter()
    try:
        yield
    except MvtoolError as error:
        tell(StageEvent(target, precision, name, "failed", time.perf_counter() - began, str(error)))
        raise
    tell(StageEvent(target, precision, name, "done", time.perf_counter() - began))
