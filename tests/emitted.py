"""Writing one artifact in the test's own process, without the supervisor."""

from __future__ import annotations

from pathlib import Path

from mvtool.build import artifact_file_name
from mvtool.converters.jobs import Job
from mvtool.converters.lowering import lower
from mvtool.converters.recipe import recipe_for
from mvtool.converters.targets import EMITTERS, Emitted
from mvtool.ports import Precision, Runtime, StateLayout
from mvtool.program import StreamProgram
from mvtool.quantization.shared import save_shared
from mvtool.quantization.sources import load_calibration


class Quiet:
    """Stages that nobody watches."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, name: str) -> Quiet:
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None

    def note(self, message: str) -> None:
        self.notes.append(message)


def write(
    program: StreamProgram,
    target: Runtime,
    precision: Precision,
    folder: Path,
    layout: StateLayout = StateLayout.SHIFT,
) -> Path:
    """Emit one artifact in this process."""
    return emitted(program, target, precision, folder, layout)[0]


def emitted(
    program: StreamProgram,
    target: Runtime,
    precision: Precision,
    folder: Path,
    layout: StateLayout = StateLayout.SHIFT,
) -> tuple[Path, Emitted]:
    """Emit one artifact in this process; the file, and what its emitter says of it."""
    shared = folder / "shared"
    if precision is Precision.INT8:
        save_shared(program, load_calibration(None, program.info, program.inputs), shared)
    output = folder / artifact_file_name(program.info.name, target, precision)
    job = Job(
        kind="emit",
        program="",
        target=target,
        precision=precision,
        output=str(output),
        calibration=str(shared),
        simulation=str(folder / "simulation"),
    )
    lowered = lower(program, recipe_for(target, precision), layout)
    return output, EMITTERS[target](job, lowered, frozenset(), Quiet())  # type: ignore[arg-type]
