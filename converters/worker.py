"""The process that does one job: `python -m mvtool.converters.worker FOLDER`.

Standard output carries `WorkerLine`s and nothing else; what frameworks print goes to standard error.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mvtool.build import CalibrationEntry
from mvtool.converters.jobs import JOB_FILE, RESULT_FILE, Job, JobResult, RewriteLine, WorkerLine
from mvtool.converters.lazy_code import code_when_wanted
from mvtool.converters.progress import timing_parts
from mvtool.errors import ConversionError, MvtoolError, StorageError
from mvtool.parent import end_with_parent
from mvtool.ports import Runtime

if TYPE_CHECKING:
    from mvtool.build import Trial
    from mvtool.converters.recipe import Forms
    from mvtool.converters.targets import Emitted
    from mvtool.program import StreamProgram

_remembered: dict[str, StreamProgram] = {}


class Stages:
    """Tells the parent of stages, and keeps their times."""

    def __init__(self, lines: IO[str]) -> None:
        """Write to `lines`."""
        self._lines = lines
        self.current = "start"
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self._inside = (0.0, 0.0)
        self.notes: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage, without its parts, which are stages too; a failure leaves it as the current one."""
        outer, self.current = self.current, name
        self._send(WorkerLine(stage=name, status="start"))
        began, used, noted = time.perf_counter(), time.process_time(), len(self.notes)
        before, self._inside = self._inside, (0.0, 0.0)
        with timing_parts(self.stage):
            yield
        wall, cpu = time.perf_counter() - began, time.process_time() - used
        inside, self._inside = self._inside, (before[0] + wall, before[1] + cpu)
        self.seconds[name] = round(self.seconds.get(name, 0.0) + wall - inside[0], 3)
        self.cpu_seconds[name] = round(self.cpu_seconds.get(name, 0.0) + cpu - inside[1], 3)
        message = "; ".join(self.notes[noted:]) or None
        times = {"seconds": round(wall - inside[0], 3), "cpu_seconds": round(cpu - inside[1], 3)}
        self._send(WorkerLine(stage=name, status="done", message=message, **times))
        self.current = outer

    def note(self, message: str) -> None:
        """A remark for the user."""
        self.notes.append(message)

    def failed(self, error: BaseException) -> None:
        """Send the error that ends the job."""
        known = StorageError.of(error) if isinstance(error, OSError) else error
        text = str(known) if isinstance(known, MvtoolError) else f"{type(error).__name__}: {error}"
        kind = type(known).__name__ if isinstance(known, MvtoolError) else None
        self._send(WorkerLine(stage=self.current, status="failed", message=text, error=kind))

    def _send(self, line: WorkerLine) -> None:
        self._lines.write(line.model_dump_json() + "\n")
        self._lines.flush()


def main(folder: str) -> int:
    """Do the job in `folder`; 0 when `result.json` is there."""
    end_with_parent()
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    stages = Stages(lines)
    try:
        job = Job.model_validate_json((Path(folder) / JOB_FILE).read_bytes())
        result = run(job, stages)
    except Exception as error:  # noqa: BLE001 - the parent turns whatever it is into one clear message
        traceback.print_exc()
        stages.failed(error)
        return 1
    (Path(folder) / RESULT_FILE).write_text(result.model_dump_json(by_alias=True))
    return 0


def remember(folder: str) -> None:
    """Load the program of jobs that forked copies of this process will do."""
    from mvtool.converters.program_io import load_program

    _remembered[folder] = load_program(folder)


def run(job: Job, stages: Stages) -> JobResult:
    """Do one job in this process."""
    with stages.stage("load"):
        import torch

        from mvtool.converters.program_io import load_program

        torch.set_num_threads(job.threads)
        program = _remembered.get(job.program) or load_program(job.program)
    if job.kind == "calibrate":
        return _calibrate(job, program, stages)
    with code_when_wanted():
        return _emit(job, program, stages)


def _calibrate(job: Job, program: StreamProgram, stages: Stages) -> JobResult:
    from mvtool.quantization.shared import save_shared
    from mvtool.quantization.sources import load_calibration

    with stages.stage("calibrate"):
        clips = None if job.clips is None else Path(job.clips)
        calibration = load_calibration(clips, program.info, program.inputs, stream=program.is_stream)
        record = None if job.output is None else Path(job.output)
        save_shared(program, calibration, Path(_given(job.calibration)), record)
    entry = CalibrationEntry(
        origin=calibration.origin,
        bundled=calibration.bundled,
        clips=len(calibration.clips),
        steps=calibration.steps,
        notes=calibration.notes,
    )
    return JobResult(
        calibration=entry, notes=tuple(stages.notes), seconds=stages.seconds, cpu_seconds=stages.cpu_seconds
    )


def _emit(job: Job, captured: StreamProgram, stages: Stages) -> JobResult:
    from mvtool.converters.targets import golden_limit

    made = _made(job, captured, stages)
    program, emitted = made.program, made.emitted
    with stages.stage("golden"):
        limit = golden_limit(job, captured, emitted)
    rewrites = tuple(
        RewriteLine(
            name=r.name,
            changed=r.changed,
            max_difference=r.max_difference,
            details=r.details,
            left_alone=r.left_alone,
        )
        for r in program.rewrites
    )
    return JobResult(
        ports=emitted.ports,
        delegation=emitted.delegation,
        golden_limit=limit,
        rewrites=rewrites,
        forms=made.forms,
        trials=made.trials,
        notes=tuple(stages.notes),
        seconds=stages.seconds,
        cpu_seconds=stages.cpu_seconds,
    )


@dataclass(frozen=True)
class Made:
    """A written artifact.

    Attributes:
        program: Lowered.
        emitted: What the emitter says.
        forms: Of single operators.
        trials: What was timed to choose them.
    """

    program: StreamProgram
    emitted: Emitted
    forms: Forms
    trials: tuple[Trial, ...] = ()


def _made(job: Job, captured: StreamProgram, stages: Stages) -> Made:
    if job.tune and job.target is Runtime.COREML:
        stages.note("no forms were timed: Core ML runs on Apple's systems only")
    elif job.tune:
        from mvtool.converters.autotune import Tuning

        return Tuning(job, captured, artifact, stages).run()
    return artifact(job, captured, stages)


def artifact(job: Job, captured: StreamProgram, stages: Stages) -> Made:
    """Write the artifact of a captured program, in the forms that the job names."""
    from mvtool.converters.lowering import lower
    from mvtool.converters.recipe import recipe_for
    from mvtool.converters.targets import EMITTERS
    from mvtool.quantization.layers import Layers

    if job.target is None or job.precision is None:
        raise ConversionError("An emit job needs a target and a precision.")
    with stages.stage("lower"):
        program = lower(captured, replace(recipe_for(job.target, job.precision), forms=job.forms), job.layout)
    exact = Layers.of(captured).weights(program, job.float_layers)
    return Made(program, EMITTERS[job.target](job, program, exact, stages), job.forms)


def _given(value: str | None) -> str:
    if value is None:
        raise ConversionError("The job lacks a path that its kind needs.")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
