"""int8 that loses no more accuracy than allowed: layers return to float, most costly first, until the drop holds.

    evaluate -> [rank layers -> emit with the first 1, 2, 4, ... in float -> evaluate -> halve the interval]

Every artifact is evaluated itself, as a file, on the same clips as the float model. How many layers are needed is found by doubling and
then halving, which takes it for granted that another float layer does no harm.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from mvtool.build import PROGRAM_FOLDER, AccuracyControl, ControlTrial, FloatLayer, artifact_file_name
from mvtool.converters.jobs import Job, JobResult
from mvtool.converters.progress import Listener, StageEvent, stage
from mvtool.converters.supervisor import JobFailure, Outcome
from mvtool.datasets.spec import parse
from mvtool.errors import UsageError, VerificationError
from mvtool.evaluation import workers
from mvtool.evaluation.evaluate import final_answers
from mvtool.evaluation.statistics import Interval, paired_drop
from mvtool.evaluation.task import REFERENCE, Subject, task_of
from mvtool.files import sha256_of
from mvtool.ports import PortManifest, Precision, Runtime
from mvtool.quantization.shared import load_shared
from mvtool.threads import single_threaded_torch

if TYPE_CHECKING:
    from mvtool.program import StreamProgram
    from mvtool.quantization.sensitivity import Sensitivity

Emit = Callable[[Job], Outcome]
EVALUATE: Final = "evaluate"


@dataclass(frozen=True)
class Goal:
    """What must hold.

    Attributes:
        max_drop: Largest drop of top-1 after the last step of a clip beside the float model, a share such as 0.01.
        dataset: Specification of the clips that it is counted on, see `mvtool.datasets.spec`.
    """

    max_drop: float
    dataset: str

    @classmethod
    def of(cls, max_drop: float | None, dataset: str | None) -> Goal | None:
        """The goal, or None where none is given.

        Raises:
            UsageError: One is given without the other, or the drop is no share.
            VideoError: The data set cannot be read.
        """
        if max_drop is None and dataset is None:
            return None
        if max_drop is None or dataset is None:
            raise UsageError(
                "--max-drop and --evaluation belong together: the drop is counted on the evaluation clips."
            )
        if not 0 <= max_drop < 1:
            raise UsageError(f"--max-drop got {max_drop:g}; expected a share, 0.01 for one point.")
        parse(dataset)
        return cls(max_drop, dataset)


def fewest(most: int, holds: Callable[[int], bool]) -> int | None:
    """The smallest number of `1..most` for which `holds` is true, if it is true for all above; None if for none.

    Example:
        >>> fewest(50, lambda number: number >= 11)
        11
        >>> fewest(50, lambda number: False)
    """
    low, high = 0, 1
    while not holds(min(high, most)):
        low, high = high, 2 * high
        if low >= most:
            return None
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


class Judge:
    """Counts the drop of files beside the float model, on the same clips.

    Args:
        goal: Names the clips.
        folder: The build that is being made.
        parallel: Processes that play clips.
        tell: Told of every evaluation.
    """

    def __init__(self, goal: Goal, folder: Path, parallel: int, tell: Listener) -> None:
        """Nothing is played yet."""
        self._goal, self._folder, self._parallel, self._tell = goal, folder, parallel, tell
        self._base: dict[str, NDArray[np.bool_]] = {}
        self.clips = 0

    def drop(self, ports: PortManifest, new: Subject, base: Subject) -> Interval:
        """Drop of one file of a model with these ports beside another.

        Raises:
            UsageError: The data set does not fit the model.
            VideoError: A clip cannot be read.
            RuntimeLoadError: The file cannot be executed.
        """
        if base.name not in self._base:
            self._base[base.name] = self._right(ports, base)
        before = self._base[base.name]
        after = self._right(ports, new)
        self.clips = len(before)
        return paired_drop(int((before & ~after).sum()), int((after & ~before).sum()), len(before))

    def subject(self, name: str, file: str) -> Subject:
        """A file of the build."""
        return Subject(name, file, sha256_of(self._folder / file))

    def _right(self, ports: PortManifest, subject: Subject) -> NDArray[np.bool_]:
        runtime, _, precision = subject.name.partition(" ")
        with stage(self._tell, EVALUATE, runtime, precision):
            task = task_of(ports, [subject], self._goal.dataset)
            ranks = final_answers(task, self._folder, workers=workers.local(self._parallel))
        return np.asarray(ranks[0] == 0)


@dataclass
class Control:
    """Holds a goal for the int8 artifacts of a build that is being made.

    Attributes:
        goal: What must hold.
        program: As captured.
        folder: The build folder, with artifacts and captured program.
        shared: Folder of the calibration that all artifacts share.
        emit: Writes an artifact anew, to where the job says.
        tell: Told of every stage.
        parallel: Processes that play clips.
    """

    goal: Goal
    program: StreamProgram
    folder: Path
    shared: Path
    emit: Emit
    tell: Listener
    parallel: int

    def __post_init__(self) -> None:
        """A judge of its own."""
        self._judge = Judge(self.goal, self.folder, self.parallel, self.tell)

    def hold(self, jobs: Mapping[str, Job], outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
        """The outcomes with int8 artifacts for which the goal holds, or failures in their place.

        Core ML artifacts are executed by an evaluator that takes seconds for a frame. They take over the layers of the runtime that needs
        most, if another one is there.
        """
        done = {name: o for name, o in outcomes.items() if isinstance(o, JobResult) and o.ports is not None}
        int8 = {name: o for name, o in done.items() if jobs[name].precision is Precision.INT8}
        judged = [name for name in int8 if jobs[name].target is not Runtime.COREML] or list(int8)
        found: dict[str, Outcome] = {}
        for name in judged:
            base = next((o for o in done.values() if _is_base(o, jobs[name])), None)
            found[name] = self._refit(jobs[name], int8[name], base)
        most: tuple[Runtime, AccuracyControl] | None = max(
            (
                (o.ports.runtime, o.control)
                for o in found.values()
                if isinstance(o, JobResult) and o.ports and o.control
            ),
            key=lambda held: len(held[1].layers),
            default=None,
        )
        for name in int8.keys() - set(judged):
            found[name] = int8[name] if most is None else self._taken_over(jobs[name], int8[name], *most)
        return {**outcomes, **found}

    def _refit(self, job: Job, result: JobResult, base: JobResult | None) -> Outcome:
        beside = self._base(job, base)
        trials: list[ControlTrial] = []
        kept = result

        def holds(number: int) -> bool:
            nonlocal kept
            if number:
                kept = self._emitted(job, self._costly(number))
            ports = kept.ports
            assert ports is not None
            new = self._judge.subject(f"{ports.runtime} {ports.precision}", Path(str(job.output)).name)
            found = self._judge.drop(ports, new, beside)
            trials.append(ControlTrial(float_layers=number, drop=found.value, low=found.low, high=found.high))
            self._told(job, trials[-1])
            return found.value <= self.goal.max_drop

        try:
            number = 0 if holds(0) else fewest(len(self._sensitivity.layers), holds)
            if number is None:
                return self._missed(job, trials)
            if number != trials[-1].float_layers:
                kept = self._emitted(job, self._costly(number))
        except _EmitError as error:
            return error.failure
        return kept.model_copy(update={"control": self._record(beside.name, self._costly(number), trials)})

    def _taken_over(self, job: Job, result: JobResult, runtime: Runtime, control: AccuracyControl) -> Outcome:
        try:
            kept = self._emitted(job, control.layers) if control.layers else result
        except _EmitError as error:
            return error.failure
        return kept.model_copy(update={"control": control.model_copy(update={"trials": (), "as_in": runtime})})

    def _emitted(self, job: Job, layers: Sequence[FloatLayer]) -> JobResult:
        if job.simulation is not None:
            shutil.rmtree(job.simulation, ignore_errors=True)
        outcome = self.emit(job.model_copy(update={"float_layers": tuple(layer.name for layer in layers)}))
        if isinstance(outcome, JobFailure):
            raise _EmitError(outcome)
        return outcome

    def _costly(self, number: int) -> tuple[FloatLayer, ...]:
        layers = self._sensitivity.layers[:number] if number else ()
        return tuple(FloatLayer(name=layer.name, snr_db=layer.snr_db) for layer in layers)

    @cached_property
    def _sensitivity(self) -> Sensitivity:
        """Measured when first asked for: most artifacts hold as they are."""
        from mvtool.quantization.sensitivity import lowered_for_it, measure

        with stage(self.tell, "sensitivity"), single_threaded_torch():
            lowered = lowered_for_it(self.program)
            calibration, _ = load_shared(lowered, self.shared)
            return measure(self.program, lowered, calibration)

    def _base(self, job: Job, base: JobResult | None) -> Subject:
        """The float file of the same runtime, else the captured program."""
        if base is None or base.ports is None:
            return self._judge.subject(REFERENCE, PROGRAM_FOLDER)
        name = artifact_file_name(base.ports.model, base.ports.runtime, base.ports.precision)
        return self._judge.subject(f"{base.ports.runtime} {base.ports.precision}", name)

    def _record(self, base: str, layers: Sequence[FloatLayer], trials: Sequence[ControlTrial]) -> AccuracyControl:
        return AccuracyControl(
            dataset=self.goal.dataset,
            clips=self._judge.clips,
            base=base,
            max_drop=self.goal.max_drop,
            trials=tuple(trials),
            layers=tuple(layers),
        )

    def _told(self, job: Job, trial: ControlTrial) -> None:
        layers = f"{trial.float_layers} layers in float: " if trial.float_layers else ""
        message = f"{layers}{_points(trial)} on {self._judge.clips} clips"
        self.tell(StageEvent(str(job.target), str(job.precision), "accuracy", "done", message=message))

    def _missed(self, job: Job, trials: Sequence[ControlTrial]) -> JobFailure:
        """No number of layers is enough; the artifact is not kept."""
        path = Path(str(job.output))
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if job.simulation is not None:
            shutil.rmtree(job.simulation, ignore_errors=True)
        message = (
            f"With all {trials[-1].float_layers} layers in float it still loses {_points(trials[-1])} of accuracy on {self._judge.clips} clips of "
            f"{self.goal.dataset}, at most {100 * self.goal.max_drop:g} are allowed: inputs, states and sums stay int8. Give longer or "
            "more --calibration clips, more evaluation clips, or a larger --max-drop."
        )
        return JobFailure(job, "accuracy", message, VerificationError.__name__)


class _EmitError(Exception):
    """An artifact could not be written with other layers in float."""

    def __init__(self, failure: JobFailure) -> None:
        """Keep the failure."""
        super().__init__(failure.message)
        self.failure = failure


def _is_base(result: JobResult, job: Job) -> bool:
    ports = result.ports
    return ports is not None and ports.runtime is job.target and ports.precision is Precision.FP32


def _points(trial: ControlTrial) -> str:
    return f"{100 * trial.drop:.2f} points ({100 * trial.low:.2f} to {100 * trial.high:.2f})"
