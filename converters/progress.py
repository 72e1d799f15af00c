"""Progress of a conversion, as the pipeline tells it to whoever listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


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
