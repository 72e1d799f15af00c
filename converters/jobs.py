"""What the pipeline asks of a worker process, and what the worker answers.

A job is a folder: `job.json` goes in, `result.json` comes out, and the worker tells of its stages in JSON
lines on standard output. Everything else that frameworks print goes to standard error and into `log.txt`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from mvtool.build import AccuracyControl, CalibrationEntry, Trial
from mvtool.converters.recipe import NO_FORMS, Forms
from mvtool.ports import Document, PortManifest, Precision, Runtime, StateLayout

JOB_FILE = "job.json"
RESULT_FILE = "result.json"
LOG_FILE = "log.txt"


class Job(Document):
    """One piece of work for a process of its own.

    Attributes:
        kind: `calibrate` reads clips; `emit` writes one artifact.
        program: Folder of the captured program.
        calibration: File of the calibration set: written by `calibrate`, read by int8 `emit`.
        clips: The user's calibration data; None for the bundled clip.
        target: Runtime of the artifact.
        precision: Precision of the artifact.
        layout: How it holds queues of past frames.
        output: Artifact to write, or the record of state ranges.
        simulation: Folder for the quantized PyTorch program, where the target has one.
        float_layers: Layers that stay float in an int8 artifact, see `mvtool.quantization.layers`.
        forms: Of single operators, where they differ from the recipe's.
        tune: Time the forms of operators and choose.
        threads: Threads for the framework.
    """

    kind: Literal["calibrate", "emit"]
    program: str
    calibration: str | None = None
    clips: str | None = None
    target: Runtime | None = None
    precision: Precision | None = None
    layout: StateLayout = StateLayout.SHIFT
    output: str | None = None
    simulation: str | None = None
    float_layers: tuple[str, ...] = ()
    forms: Forms = NO_FORMS
    tune: bool = False
    threads: int = 1

    @property
    def label(self) -> str:
        """How messages name the job."""
        return (
            self.kind
            if self.target is None
            else f"{self.target.value} {self.precision.value if self.precision else ''}"
        )


class RewriteLine(Document):
    """A `RewriteReport` on its way between processes."""

    name: str
    changed: int
    max_difference: float
    details: tuple[str, ...]
    left_alone: tuple[str, ...]


class JobResult(Document):
    """What a worker leaves.

    Attributes:
        ports: Port manifest of the artifact.
        rewrites: What each rewrite did.
        delegation: What the emitter found out about delegation.
        golden_limit: Error that a quantized artifact may have on the golden file; None where it is not finite.
        calibration: What was calibrated on, from a job of that kind.
        forms: Of single operators, as the artifact has them.
        trials: What was timed to choose them.
        control: Set by the parent: which layers stay float and why.
        notes: Remarks for the user.
        seconds: Wall time per stage.
        cpu_seconds: Processor time per stage.
    """

    ports: PortManifest | None = None
    rewrites: tuple[RewriteLine, ...] = ()
    delegation: dict[str, JsonValue] = Field(default_factory=dict)
    golden_limit: float | None = None
    calibration: CalibrationEntry | None = None
    forms: Forms = NO_FORMS
    trials: tuple[Trial, ...] = ()
    control: AccuracyControl | None = None
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = Field(default_factory=dict)
    cpu_seconds: dict[str, float] = Field(default_factory=dict)


class WorkerLine(Document):
    """One line of a worker's standard output.

    Attributes:
        stage: Stage of the work.
        status: `failed` comes with the message and class of the error.
        seconds: With `done`.
        cpu_seconds: With `done`.
        message: Remark, or the text of the error.
        error: Class name of an mvtool error, so that the parent raises the same.
    """

    stage: str
    status: Literal["start", "done", "failed"]
    seconds: float | None = None
    cpu_seconds: float | None = None
    message: str | None = None
    error: str | None = None
