"""Puts the manifest and the golden file beside the artifacts of a build."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from mvtool.build import (
    GOLDEN_FILE,
    PROGRAM_FOLDER,
    REFERENCE_FOLDER,
    STATE_RANGES_FILE,
    ArtifactEntry,
    Build,
    BuildManifest,
    CalibrationEntry,
    ConversionTimes,
    GoldenEntry,
    ModelProvenance,
    RequestedArtifact,
    RewriteEntry,
    SimulationEntry,
    WeightsProvenance,
    artifact_file_name,
    describe,
    tool_versions,
)
from mvtool.converters.jobs import JobResult
from mvtool.converters.recipe import recipe_for
from mvtool.golden import make_golden, tolerances, write_golden
from mvtool.ports import Precision, Runtime

if TYPE_CHECKING:
    from mvtool.converters.source import Source
    from mvtool.program import StreamProgram


def assemble(
    source: Source,
    program: StreamProgram,
    folder: Path,
    results: Mapping[str, JobResult],
    options: Mapping[str, object],
    requested: Sequence[tuple[Runtime, Precision]],
    calibration: CalibrationEntry | None = None,
    times: Callable[[], ConversionTimes | None] = lambda: None,
) -> None:
    """Write `golden.npz` and `manifest.json` into `folder`, which holds the artifacts already.

    Args:
        source: Where the model came from.
        program: As captured.
        folder: The build folder.
        results: Results of the emit jobs.
        options: Options of the conversion that all artifacts share.
        requested: Target and precision of each artifact that was to be written.
        calibration: Of the int8 artifacts.
        times: What the conversion has cost, asked when all else is done.
    """
    from mvtool.runtimes.pytorch import open_program

    golden = make_golden(open_program(program))
    write_golden(golden, folder / GOLDEN_FILE)
    artifacts = tuple(artifact_entry(folder, program.info.name, result) for result in results.values())
    simulations = tuple(_simulation(folder, a.simulation) for a in artifacts if a.simulation is not None)
    if calibration is not None and program.is_stream:
        calibration = calibration.model_copy(update={"state_ranges": describe(folder, STATE_RANGES_FILE)})
    limits = tolerances(_quantized_limits(results.values()))
    manifest = BuildManifest(
        model=_provenance(source, program),
        options={key: _json(value) for key, value in options.items()},
        calibration=calibration,
        requested=tuple(RequestedArtifact(runtime=target, precision=precision) for target, precision in requested),
        artifacts=artifacts,
        program=describe(folder, PROGRAM_FOLDER),
        simulations=simulations,
        golden=GoldenEntry(**describe(folder, GOLDEN_FILE).model_dump(), frames=golden.frames, tolerances=limits),
        times=times(),
        tools=dict(tool_versions()),
    )
    Build(folder, manifest).save()


def artifact_entry(folder: Path, model: str, result: JobResult) -> ArtifactEntry:
    """The manifest's entry of an artifact that lies in `folder`."""
    ports = result.ports
    if ports is None:
        raise ValueError("the job wrote no artifact")
    name = f"{ports.runtime.value}_{ports.precision.value}"
    simulated = (folder / REFERENCE_FOLDER / name).is_dir()
    recipe = replace(recipe_for(ports.runtime, ports.precision), forms=result.forms)
    return ArtifactEntry(
        **describe(folder, artifact_file_name(model, ports.runtime, ports.precision)).model_dump(),
        runtime=ports.runtime,
        precision=ports.precision,
        ports=ports,
        recipe=recipe.described(),
        rewrites=tuple(RewriteEntry(**line.model_dump()) for line in result.rewrites),
        delegation=result.delegation,
        control=result.control,
        simulation=name if simulated else None,
        seconds=result.seconds,
        trials=result.trials,
        cpu_seconds=result.cpu_seconds,
    )


def _simulation(folder: Path, name: str) -> SimulationEntry:
    return SimulationEntry(**describe(folder, f"{REFERENCE_FOLDER}/{name}").model_dump(), name=name)


def _provenance(source: Source, program: StreamProgram) -> ModelProvenance:
    weights = tuple(
        WeightsProvenance(
            file_name=Path(file.path).name,
            sha256=file.sha256,
            naming=file.naming,
            gate=None if file.gate is None else str(file.gate),
        )
        for file in source.weights
    )
    return ModelProvenance(
        name=program.info.name,
        source=source.origin,
        sha256=source.sha256,
        untrained=program.info.untrained,
        weights=weights,
    )


def _quantized_limits(results: Iterable[JobResult]) -> dict[Precision, float]:
    """For each quantized precision the widest tolerance that any simulation of the build needs."""
    limits: dict[Precision, float] = {}
    for result in results:
        if result.ports is None or not result.ports.precision.quantized:
            continue
        own = math.inf if result.golden_limit is None else result.golden_limit
        found = max(limits.get(result.ports.precision, 0.0), own)
        # Three significant digits: the same build on another machine gives the same number.
        limits[result.ports.precision] = float(f"{found:.3g}")
    return {precision: limit for precision, limit in limits.items() if math.isfinite(limit)}


def _json(value: object) -> JsonValue:
    if isinstance(value, Enum):
        return str(value.value)
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
