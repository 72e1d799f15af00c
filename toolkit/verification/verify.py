"""`verify`: execute every artifact of a build and hold it against the trained model."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from mvtool.build import PROGRAM_FOLDER, ArtifactEntry, Build, tool_versions
from mvtool.errors import MvtoolError
from mvtool.files import sha256_of
from mvtool.forking import Template
from mvtool.ports import PortManifest
from mvtool.session import Session
from mvtool.threads import single_threaded_torch
from mvtool.verification import frames
from mvtool.verification.build_checks import (
    check_golden_file,
    check_inputs,
    check_listed,
    check_reference_files,
    check_sha256,
    check_size,
)
from mvtool.verification.lockstep import Progress, Replayed, replay_all
from mvtool.verification.messages import ALL_SLOTS, Job
from mvtool.verification.process import Worker, template
from mvtool.verification.report import (
    BUILD_CHECKS,
    ArtifactReport,
    CheckResult,
    Verification,
    blame,
    required_checks,
    settle,
)
from mvtool.verification.store import FrameStore

DEFAULT_TIMEOUT_S = 600.0
log = logging.getLogger(__name__)


def verify(
    path: str | Path,
    *,
    frames_replayed: int = frames.STREAM_FRAMES,
    threads: int = 1,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    save: bool = True,
    progress: Progress | None = None,
) -> Verification:
    """Execute every artifact of a build, each in a process of its own, next to the PyTorch stream.

    Args:
        path: Build folder.
        frames_replayed: Video frames of a stream; fewer than 300 make the build fail.
        threads: Threads per artifact, where the runtime lets one choose.
        timeout_s: Silence of a worker process after which it counts as hung.
        save: Write the result into the build manifest; a warning is logged if the system refuses.
        progress: Told what goes on.

    Returns:
        The report; `passed` says whether everything holds.

    Raises:
        ManifestError: The build manifest is missing, malformed, or names files outside the folder.
        MissingExtraError: torch is not installed.
    """
    start = time.monotonic()
    build = Build.load(path)
    # It imports the runtimes while the reference program is loaded here.
    with template(entry.runtime for entry in build.manifest.artifacts) as forked:
        options = _Options(frames_replayed, threads, timeout_s, progress or _silent, forked)
        checks = [check_reference_files(build), check_listed(build)]
        try:
            reference = _open_reference(build)
        except MvtoolError as error:
            verification = _unreadable(build, checks, error, start)
        else:
            verification = _with_reference(build, reference, checks, options, start)
    if save:
        _save(build.with_verification(verification))
    return verification


def _save(build: Build) -> None:
    """Write the report into the build; one that can only be read is verified all the same."""
    try:
        build.save()
    except OSError as error:
        log.warning("The report is not saved in %s: %s. The verdict stands.", build.folder, error.strerror or error)


@dataclass(frozen=True)
class _Options:
    frames: int
    threads: int
    timeout_s: float
    progress: Progress
    template: Template | None


def _silent(activity: str, done: int, total: int) -> None:
    del activity, done, total


def _open_reference(build: Build) -> Session:
    from mvtool.converters.program_io import load_program
    from mvtool.runtimes.pytorch import open_program

    return open_program(load_program(build.path(build.manifest.program)))


def _with_reference(
    build: Build, reference: Session, checks: list[CheckResult], options: _Options, start: float
) -> Verification:
    manifest = reference.manifest
    steps = frames.steps_for(bool(manifest.states), manifest.frames_per_step, options.frames)
    with (
        single_threaded_torch(),
        tempfile.TemporaryDirectory(prefix="mvtool-verify-") as scratch,
        ExitStack() as stack,
    ):
        path = Path(scratch) / "frames"
        store = FrameStore(path, manifest, ALL_SLOTS)
        workers = []
        for entry in build.manifest.artifacts:
            job = make_job(build, entry, manifest, path, steps, options.threads)
            workers.append(Worker(job, options.timeout_s, options.template))
            stack.callback(workers[-1].close)
        # The workers load their artifacts meanwhile.
        checks = [*checks, check_golden_file(build, reference)]
        before = time.monotonic() - start
        source = frames.FrameSource(manifest.inputs, manifest.preprocessing)
        replayed = replay_all(reference, source, store, workers, steps, options.progress)
        checks.append(check_inputs(replayed, reference))
        reports = [_report(build, e, w, steps) for e, w in zip(build.manifest.artifacts, workers, strict=True)]
    noun = frames.step_noun(bool(manifest.states), manifest.frames_per_step)
    replayed = replace(replayed, stages={"reference": round(before, 3), **replayed.stages})
    return _verification(build, checks, reports, replayed, start, noun)


def make_job(build: Build, entry: ArtifactEntry, reference: PortManifest, store: Path, steps: int, threads: int) -> Job:
    """What a worker has to know to examine `entry`."""
    simulations = {simulation.name: simulation for simulation in build.manifest.simulations}
    simulation = simulations.get(entry.simulation) if entry.simulation is not None else None
    return Job(
        artifact=build.path(entry),
        entry_json=entry.model_dump_json(by_alias=True),
        reference_json=reference.to_json(),
        simulation=build.path(simulation) if simulation else None,
        golden=build.path(build.manifest.golden),
        tolerance=build.manifest.golden.tolerances.get(entry.precision),
        store=store,
        steps=steps,
        threads=threads,
    )


def _report(build: Build, entry: ArtifactEntry, worker: Worker, steps: int) -> ArtifactReport:
    path = build.path(entry)
    required = required_checks(entry.precision, bool(entry.ports.states))
    found = [check_size(path, entry), check_sha256(path, entry), *worker.results]
    if worker.blame:
        found.append(blame(required, found, worker.reason))
    return ArtifactReport(
        file=entry.file,
        runtime=entry.runtime,
        precision=entry.precision,
        engine=worker.engine,
        sha256=sha256_of(path) if path.exists() else None,
        frames=min(worker.acknowledged, steps),
        checks=settle(required, found, worker.reason or "a check before it failed"),
        seconds=round(worker.seconds, 3),
        snr=worker.snr if entry.precision.quantized else (),
    )


def _unreadable(build: Build, checks: Sequence[CheckResult], error: Exception, start: float) -> Verification:
    reports = [
        ArtifactReport(
            file=entry.file,
            runtime=entry.runtime,
            precision=entry.precision,
            checks=settle(
                required_checks(entry.precision, bool(entry.ports.states)), [], f"no reference program: {error}"
            ),
        )
        for entry in build.manifest.artifacts
    ]
    return _verification(build, checks, reports, Replayed(0, 0), start)


def _verification(
    build: Build,
    checks: Sequence[CheckResult],
    reports: Sequence[ArtifactReport],
    replayed: Replayed,
    start: float,
    step: str = "frame",
) -> Verification:
    return Verification(
        model=build.manifest.model.name,
        frames=replayed.steps,
        step=step,
        distinct_inputs=replayed.distinct,
        checks=settle(BUILD_CHECKS, checks, f"{PROGRAM_FOLDER} cannot be loaded"),
        artifacts=tuple(reports),
        seconds=round(time.monotonic() - start, 3),
        stages=dict(replayed.stages),
        tools=dict(tool_versions()),
    )
