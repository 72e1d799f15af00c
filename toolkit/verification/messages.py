"""What verify and its worker processes say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mvtool.verification.report import CheckResult, SignalToNoise

FRAME_SLOTS = 2
PROBE_BEFORE = FRAME_SLOTS
"""Slot whose states are set for the order check."""
PROBE_AFTER = FRAME_SLOTS + 1
"""Slot of the step that follows: its inputs, and what the reference makes of them."""
ALL_SLOTS = FRAME_SLOTS + 2


@dataclass(frozen=True)
class Job:
    """One artifact to examine.

    Attributes:
        artifact: File or folder.
        entry_json: Its `ArtifactEntry`.
        reference_json: Port manifest of the reference program.
        simulation: Folder of its quantized PyTorch program.
        golden: Golden file.
        tolerance: Of the golden file for this precision; `None` if the build states none.
        store: File of a `FrameStore` with `ALL_SLOTS` slots.
        steps: Number of steps to come.
        threads: Threads of the runtime.
    """

    artifact: Path
    entry_json: str
    reference_json: str
    simulation: Path | None
    golden: Path
    tolerance: float | None
    store: Path
    steps: int
    threads: int


@dataclass(frozen=True)
class Step:
    """Replay the inputs in `slot`; it is step `number`, counted from 1."""

    number: int
    slot: int


@dataclass(frozen=True)
class Finish:
    """All steps were sent and the probe slots are filled."""


@dataclass(frozen=True)
class Doing:
    """The worker starts something that may take its process down."""

    activity: str


@dataclass(frozen=True)
class Found:
    """A check is decided."""

    result: CheckResult


@dataclass(frozen=True)
class Ready:
    """The artifact is loaded and waits for steps."""

    engine: str


@dataclass(frozen=True)
class Stepped:
    """Step `number` was replayed and its slot may be written again."""

    number: int


@dataclass(frozen=True)
class Finished:
    """The worker is done, early if the artifact cannot be stepped.

    Attributes:
        snr: Of the free-running artifact against the reference.
        reason: Why remaining checks were not run; empty if all were.
        failed: The first of them failed for that reason.
        seconds: Processor time that the worker used.
    """

    snr: tuple[SignalToNoise, ...] = ()
    reason: str = ""
    failed: bool = False
    seconds: float = 0.0


Command = Step | Finish
Message = Doing | Found | Ready | Stepped | Finished
