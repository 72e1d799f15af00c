"""Try the candidate forms of operators on this machine and keep the fastest.

Some operators have several exact forms (`mvtool.converters.recipe`), and which is fastest depends on the kernels that the library
has for the machine. Each distinct operator is converted alone in every form, as the artifact would hold it, and the files take turns
in the runtime. A form replaces the recipe's only where it is faster by `LEAST_GAIN` and in `MOST_ROUNDS` of the rounds. Then the whole
artifact with the chosen forms is timed against the one without them, and kept only if it is faster too.
"""

from __future__ import annotations

import io
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from mvtool.build import SUFFIX_OF_RUNTIME, Trial
from mvtool.converters.capture import capture
from mvtool.converters.recipe import Forms, recipe_for
from mvtool.converters.spots import Spot, form_alone, spots, value_of
from mvtool.errors import MvtoolError
from mvtool.ports import AnyArray, Precision, Runtime
from mvtool.program import ModelInfo, StreamProgram
from mvtool.quantization.calibration import CalibrationSet
from mvtool.quantization.shared import save_shared
from mvtool.runtimes import module_of, runtime_of
from mvtool.runtimes.executorch import ExecuTorchExecutable
from mvtool.runtimes.litert import LiteRTExecutable

if TYPE_CHECKING:
    from mvtool.converters.jobs import Job
    from mvtool.converters.worker import Made, Stages

ROUNDS, BLOCK_S, WARM_CALLS = 24, 2e-3, 3
"""Turns of every candidate, seconds of counted calls in one, and calls before them that fill the caches again."""
LEAST_GAIN, WHOLE_GAIN, MOST_ROUNDS = 0.03, 0.0, 0.75
"""A form of an operator must be faster by so much, a whole artifact at all, and in so many of the rounds."""
CALIBRATION_CLIPS, CALIBRATION_STEPS = 2, 3
SHARED = "calibration"


@dataclass
class Times:
    """Microseconds per call of one candidate, one median per round."""

    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Over the rounds."""
        return statistics.median(self.rounds)

    def beats(self, other: Times, gain: float = LEAST_GAIN) -> bool:
        """Whether this one is faster by `gain`, beyond chance."""
        won = sum(mine < its for mine, its in zip(self.rounds, other.rounds, strict=True))
        return self.median < (1 - gain) * other.median and won >= MOST_ROUNDS * len(self.rounds)


class Tuning:
    """Makes the artifact of a job in the forms that are fastest here.

    Args:
        job: With its target, precision and state layout.
        captured: The program.
        make: `mvtool.converters.worker.artifact`.
        stages: Told what is timed.
    """

    def __init__(
        self, job: Job, captured: StreamProgram, make: Callable[[Job, StreamProgram, Stages], Made], stages: Stages
    ) -> None:
        """Nothing is timed yet."""
        self._job, self._captured, self._make, self._stages = job, captured, make, stages
        self._recipe = recipe_for(Runtime(str(job.target)), Precision(str(job.precision)))

    def run(self) -> Made:
        """Choose, convert, and compare with the artifact without these forms.

        Raises:
            ConversionError: The artifact cannot be written.
        """
        output = Path(str(self._job.output))
        with tempfile.TemporaryDirectory(dir=output.parent, prefix="autotune-") as scratch:
            with self._stages.stage("autotune"):
                forms, trials = self._choose(Path(scratch))
            if not forms:
                return replace(self._make(self._job, self._captured, self._stages), trials=trials)
            plain_job = self._elsewhere(Path(scratch), output.name, Forms())
            plain = self._make(plain_job, self._captured, self._silent())
            made = self._make(self._job.model_copy(update={"forms": forms}), self._captured, self._stages)
            with self._stages.stage("race"):
                before, after = race([Path(str(plain_job.output)), output])
            kept = after.beats(before, WHOLE_GAIN)
            pair = [_trial("whole", "recipe's", before, not kept), _trial("whole", "chosen", after, kept)]
            if not kept:
                made = plain
                self._take(plain_job)
            return replace(made, trials=(*trials, *pair))

    def _choose(self, folder: Path) -> tuple[Forms, tuple[Trial, ...]]:
        chosen: dict[str, dict[str, Any]] = {"temporal": {}, "pixels": {}}
        trials: list[Trial] = []
        groups: dict[tuple[object, ...], list[Spot]] = {}
        for spot in spots(self._captured, self._recipe, self._job.layout):
            groups.setdefault(spot.key, []).append(spot)
        for number, same in enumerate(groups.values()):
            spot = same[0]
            times, first = self._timed(spot, folder / str(number)), spot.forms[0]
            if first not in times:
                continue
            fastest = min(times, key=lambda form: times[form].median)
            best = fastest if times[fastest].beats(times[first]) else first
            trials += [_trial(spot.kind, form, found, form == best, same) for form, found in times.items()]
            if best != first:
                chosen[spot.kind].update({one.operator: value_of(spot.kind, best) for one in same})
        return Forms.model_validate(chosen), tuple(trials)

    def _timed(self, spot: Spot, folder: Path) -> dict[str, Times]:
        """Convert an operator alone in each of its forms, and time the files; a form that cannot be converted alone is left out."""
        folder.mkdir()
        files: dict[str, Path] = {}
        try:
            program = capture(spot.module, spot.inputs, ModelInfo(name=spot.kind), state_pairs=spot.states)
            save_shared(program, noise(program), folder / SHARED)
            for form in spot.forms:
                name = f"{form}{SUFFIX_OF_RUNTIME[self._recipe.target]}"
                forms = form_alone(spot, program, self._recipe, form)
                job = self._elsewhere(folder, name, forms, calibration=str(folder / SHARED), float_layers=())
                self._make(job, program, self._silent())
                files[form] = folder / name
        except MvtoolError as error:
            self._stages.note(
                f"{spot.layer or spot.operator} was timed in {', '.join(files) or 'no form'} only: {error}"
            )
        return dict(zip(files, race(list(files.values())), strict=True))

    def _silent(self) -> Stages:
        """Stages that nobody is told of."""
        return type(self._stages)(io.StringIO())

    def _elsewhere(self, folder: Path, name: str, forms: Forms, **more: object) -> Job:
        simulation = None if self._job.simulation is None else str(folder / f"{name}_simulation")
        files = {"output": str(folder / name), "simulation": simulation, "forms": forms, "tune": False}
        return self._job.model_copy(update={**files, **more})

    def _take(self, job: Job) -> None:
        """Put the files of another job in the place of this one's."""
        os.replace(str(job.output), str(self._job.output))
        if job.simulation is not None and self._job.simulation is not None:
            shutil.rmtree(self._job.simulation)
            shutil.move(job.simulation, self._job.simulation)


def _trial(
    kind: Literal["temporal", "pixels", "whole"], form: str, times: Times, chosen: bool, same: Sequence[Spot] = ()
) -> Trial:
    low, high = np.percentile(times.rounds, (25, 75))
    return Trial(
        kind=kind,
        operators=tuple(spot.operator for spot in same),
        layers=tuple(spot.layer for spot in same),
        what=same[0].what if same else "",
        form=form,
        us=times.median,
        low_us=float(low),
        high_us=float(high),
        chosen=chosen,
    )


def race(files: Sequence[Path]) -> list[Times]:
    """Time artifacts in turns."""
    calls = [_call(file) for file in files]
    counts = [max(1, round(BLOCK_S / _seconds(call, WARM_CALLS))) for call in calls]
    times = [Times() for _ in files]
    for number in range(ROUNDS):
        order = range(len(files)) if number % 2 == 0 else reversed(range(len(files)))
        for index in order:
            _seconds(calls[index], WARM_CALLS)
            took = [_seconds(calls[index], 1) for _ in range(counts[index])]
            times[index].rounds.append(1e6 * statistics.median(took))
    return times


def noise(program: StreamProgram) -> CalibrationSet:
    """Calibration of a single operator: only its time counts, so normal numbers do."""
    generator = torch.Generator().manual_seed(0)

    def step() -> tuple[AnyArray, ...]:
        return tuple(torch.randn(port.logical_shape, generator=generator).numpy() for port in program.inputs)

    clips = tuple(tuple(step() for _ in range(CALIBRATION_STEPS)) for _ in range(CALIBRATION_CLIPS))
    return CalibrationSet(clips, bundled=True, origin="normal numbers")


def _call(path: Path) -> Callable[[], object]:
    """A call of an artifact that does nothing but compute."""
    manifest = module_of(runtime_of(path)).read_manifest(path)
    generator = np.random.default_rng(0)
    arrays = [_array(generator, port.shape, port.dtype) for port in manifest.input_ports]
    if manifest.runtime is Runtime.TFLITE:
        return LiteRTExecutable(path, manifest, 1).repeated(arrays)
    return ExecuTorchExecutable(path, 1).repeated(arrays)


def _array(generator: np.random.Generator, shape: Sequence[int], dtype: str) -> np.ndarray[Any, Any]:
    if dtype == "int8":
        return generator.integers(-100, 100, shape, dtype=np.int8)
    return np.ones(shape, dtype) if np.dtype(dtype).kind in "iub" else generator.random(shape).astype(dtype)


def _seconds(call: Callable[[], object], times: int) -> float:
    """Seconds per call."""
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times
