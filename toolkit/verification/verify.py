"""`verify`: execute every artifact of a build and hold it against the trained model."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mvtool.build import PROGRAM_FOLDER, SUFFIX_OF_RUNTIME, ArtifactEntry, Build, FileEntry, tool_versions
from mvtool.errors import MvtoolError
from mvtool.files import sha256_of, size_of
from mvtool.golden import read_golden
from mvtool.ports import Precision
from mvtool.session import Session
from mvtool.verification import bounds, frames
from mvtool.verification.lockstep import Progress, Replayed, replay_all
from mvtool.verification.messages import ALL_SLOTS, Job
from mvtool.verification.process import Worker
from mvtool.verification.report import (
    BUILD_CHECKS,
    ArtifactReport,
    Check,
    CheckResult,
    Verification,
    failed,
    passed,
    required_checks,
    settle,
)
from mvtool.verification.store import FrameStore

DEFAULT_TIMEOUT_S = 600.0


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
        save: Write the result into the build manifest.
        progress: Told what goes on.

    Returns:
        The report; `passed` says whether everything holds.

    Raises:
        ManifestError: The build manifest is missing, malformed, or names files outside the folder.
        MissingExtraError: torch is not installed.
    """
    start = time.monotonic()
    build = Build.load(path)
    checks = [_reference_files(build), _listed(build)]
    try:
        reference = _open_reference(build)
    except MvtoolError as error:
        verification = _unreadable(build, checks, error, start)
    else:
        verification = _with_reference(
            build, reference, checks, _Options(frames_replayed, threads, timeout_s, progress or _silent), start
        )
    if save:
        build.with_verification(verification).save()
    return verification


class _Options:
    def __init__(self, frames_replayed: int, threads: int, timeout_s: float, progress: Progress) -> None:
        self.frames = frames_replayed
        self.threads = threads
        self.timeout_s = timeout_s
        self.progress = progress


def _silent(activity: str, done: int, total: int) -> None:
    del activity, done, total


def _open_reference(build: Build) -> Session:
    from mvtool.converters.program_io import load_program
    from mvtool.runtimes.pytorch import open_program

    return open_program(load_program(build.path(build.manifest.program)))


def _with_reference(
    build: Build, reference: Session, checks: list[CheckResult], options: _Options, start: float
) -> Verification:
    with _single_threaded_torch(), tempfile.TemporaryDirectory(prefix="mvtool-verify-") as folder:
        checks = [*checks, _golden_file(build, reference)]
        steps = frames.steps_for(bool(reference.manifest.states), reference.manifest.frames_per_step, options.frames)
        store = FrameStore(Path(folder) / "frames", reference.manifest, ALL_SLOTS)
        source = frames.FrameSource(reference.manifest.inputs, reference.manifest.preprocessing)
        with ExitStack() as stack:
            workers = []
            for entry in build.manifest.artifacts:
                worker = Worker(
                    _job(build, entry, reference, Path(folder) / "frames", steps, options), options.timeout_s
                )
                stack.callback(worker.close)
                workers.append(worker)
            replayed = replay_all(reference, source, store, workers, steps, options.progress)
            checks.append(_inputs(replayed, reference))
            reports = [_report(build, e, w, steps) for e, w in zip(build.manifest.artifacts, workers, strict=True)]
    return _verification(build, checks, reports, replayed, start)


@contextmanager
def _single_threaded_torch() -> Iterator[None]:
    """One thread for the reference: the workers need the other cores, and the caller gets its setting back."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _job(build: Build, entry: ArtifactEntry, reference: Session, store: Path, steps: int, options: _Options) -> Job:
    simulations = {simulation.name: simulation for simulation in build.manifest.simulations}
    simulation = simulations.get(entry.simulation) if entry.simulation is not None else None
    return Job(
        artifact=build.path(entry),
        entry_json=entry.model_dump_json(by_alias=True),
        reference_json=reference.manifest.to_json(),
        simulation=build.path(simulation) if simulation else None,
        golden=build.path(build.manifest.golden),
        tolerance=build.manifest.golden.tolerances.get(entry.precision),
        store=store,
        steps=steps,
        threads=options.threads,
    )


def _reference_files(build: Build) -> CheckResult:
    entries = (build.manifest.program, *build.manifest.simulations)
    try:
        for entry in entries:
            build.check_hash(entry)
    except MvtoolError as error:
        return failed(Check.REFERENCE_FILES, str(error))
    return passed(Check.REFERENCE_FILES, f"{len(entries)} saved PyTorch programs have the hashes of the manifest")


def _listed(build: Build) -> CheckResult:
    listed = {entry.file for entry in build.manifest.artifacts}
    suffixes = tuple(SUFFIX_OF_RUNTIME.values())
    present = {entry.name for entry in build.folder.iterdir() if entry.name.endswith(suffixes)}
    if not listed:
        return failed(Check.LISTED, "the build manifest lists no artifact")
    if unlisted := sorted(present - listed):
        return failed(Check.LISTED, f"{', '.join(unlisted)} lies in the build folder but is not in the build manifest")
    return passed(Check.LISTED, f"{len(listed)} artifacts, no others in the folder")


def _golden_file(build: Build, reference: Session) -> CheckResult:
    try:
        build.check_hash(build.manifest.golden)
        golden = read_golden(build.path(build.manifest.golden))
        reference.reset()
        steps = [golden.step(reference.manifest, index) for index in range(golden.frames)]
        error = max(golden.error(reference.step(*step), index) for index, step in enumerate(steps))
    except (MvtoolError, KeyError, ValueError) as fault:
        return failed(Check.GOLDEN_FILE, f"{type(fault).__name__}: {fault}")
    found = {"worst": error, "limit": bounds.FP32_LIMIT}
    text = f"the PyTorch stream gives the golden outputs of {golden.frames} frames with error {error:.3g}"
    if golden.frames != build.manifest.golden.frames or not error <= bounds.FP32_LIMIT:
        return failed(
            Check.GOLDEN_FILE, f"{text}; expected {build.manifest.golden.frames} frames, {bounds.FP32_LIMIT:g}", **found
        )
    return passed(Check.GOLDEN_FILE, text, **found)


def _inputs(replayed: Replayed, reference: Session) -> CheckResult:
    stream = bool(reference.manifest.states)
    shown = replayed.steps * (reference.manifest.frames_per_step if stream else 1)
    least, distinct = (frames.STREAM_FRAMES, frames.MIN_DISTINCT_FRAMES) if stream else (frames.CLIPS, frames.CLIPS)
    unit = "frames" if stream else "clips"
    text = f"{shown} {unit} in {replayed.steps} steps, {replayed.distinct} of them different"
    needed = -(-distinct // reference.manifest.frames_per_step) if stream else distinct
    if shown < least or replayed.distinct < needed:
        return failed(Check.INPUTS, f"{text}; a verification takes {least} {unit}, {distinct} of them different")
    return passed(Check.INPUTS, text)


def _size(path: Path, entry: FileEntry) -> CheckResult:
    if not path.exists():
        return failed(Check.SIZE, f"{entry.file} is missing")
    size = size_of(path)
    if size < entry.bytes:
        return failed(Check.SIZE, f"truncated: {size} bytes, the build manifest says {entry.bytes}")
    if size > entry.bytes:
        return failed(Check.SIZE, f"too long: {size} bytes, the build manifest says {entry.bytes}")
    return passed(Check.SIZE, f"{size} bytes")


def _hash(path: Path, entry: FileEntry) -> CheckResult:
    digest = sha256_of(path) if path.exists() else "nothing"
    if digest != entry.sha256:
        return failed(
            Check.SHA256,
            f"wrong hash: {digest[:12]}..., the build manifest says {entry.sha256[:12]}...: not the file that was written",
        )
    return passed(Check.SHA256, digest)


def _report(build: Build, entry: ArtifactEntry, worker: Worker, steps: int) -> ArtifactReport:
    path = build.path(entry)
    required = required_checks(entry.precision, bool(entry.ports.states))
    found = [_size(path, entry), _hash(path, entry), *worker.results]
    if worker.blame:
        missing = [check for check in required if check not in {result.check for result in found}]
        found += [failed(missing[0], worker.reason)] if missing else []
    return ArtifactReport(
        file=entry.file,
        runtime=entry.runtime,
        precision=entry.precision,
        engine=worker.engine,
        sha256=sha256_of(path) if path.exists() else None,
        frames=min(worker.acknowledged, steps),
        checks=settle(required, found, worker.reason or "a check before it failed"),
        seconds=round(worker.seconds, 3),
        snr=worker.snr if entry.precision is Precision.INT8 else (),
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
    build: Build, checks: Sequence[CheckResult], reports: Sequence[ArtifactReport], replayed: Replayed, start: float
) -> Verification:
    return Verification(
        model=build.manifest.model.name,
        frames=replayed.steps,
        distinct_inputs=replayed.distinct,
        checks=settle(BUILD_CHECKS, checks, f"{PROGRAM_FOLDER} cannot be loaded"),
        artifacts=tuple(reports),
        seconds=round(time.monotonic() - start, 3),
        tools=dict(tool_versions()),
    )
