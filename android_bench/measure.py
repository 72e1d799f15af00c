"""What `mvtool bench` does: artifacts on this machine or on phones, to records in a folder."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from mvtool.android_bench import benchmark_model
from mvtool.android_bench.adb_devices import choose
from mvtool.android_bench.adb_program import find_program
from mvtool.android_bench.batch import Batch, Queue, Report, State
from mvtool.android_bench.given_runner import given_runner
from mvtool.android_bench.host import Host
from mvtool.android_bench.phone import Phone
from mvtool.android_bench.runners import build_runner, phone_executorch_runner
from mvtool.android_bench.toolchain import Target
from mvtool.bench.benching import bench, file_name
from mvtool.bench.cross_check import CrossCheck
from mvtool.bench.device import Device, Runner, Workspace
from mvtool.bench.profiles import Request
from mvtool.bench.record import Record
from mvtool.bench.roofline import Rooflines
from mvtool.bench.subjects import Subject
from mvtool.errors import MvtoolError, UsageError
from mvtool.ports import Runtime

JOURNAL: Final = ".mvtool-batch"
"""Not a name that ends in .json, so that a pattern for records does not match it."""
HOST: Final = "host"
ANDROID: Final = "android"

Tell = Callable[[str, str, int, int], None]
"""Told the device, what goes on there, how many launches are done, and how many there are."""


@dataclass(frozen=True)
class Tools:
    """Programs and libraries that the user gives.

    Attributes:
        runner: Runner compiled for the phone, for `runtime` of the only artifacts measured.
        library: Runtime library for the phone.
        ndk: Folder of the Android NDK.
        adb: The adb program.
        benchmark_model: Google's tool, compiled for the device.
    """

    runner: Path | None = None
    library: Path | None = None
    ndk: Path | None = None
    adb: Path | None = None
    benchmark_model: Path | None = None


@dataclass
class Measurement:
    """A job of a batch: one artifact, or several in turns.

    Attributes:
        subjects: The artifacts.
        request: How.
        out: Folder of the records.
        source: Video.
        rooflines: Measures the peaks of the device.
        tools: Google's tool, if it is run as well.
        tell: Told of the progress.
        error: What ended it.
    """

    subjects: tuple[Subject, ...]
    request: Request
    out: Path
    source: str | None
    rooflines: Rooflines | None
    tools: Tools
    tell: Callable[[str, int, int], None]
    error: MvtoolError | None = None

    @property
    def key(self) -> str:
        """Names of the artifacts, and a hash of their bytes and of what was asked for."""
        asked = [[s.artifact.sha256 for s in self.subjects], asdict(self.request), self.source]
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:12]
        return f"{' and '.join(subject.name for subject in self.subjects)} {digest}"

    def run(self, device: Device) -> Path:
        """Measure and write the records; the path of the first one."""
        try:
            records = list(
                bench(
                    self.subjects,
                    device,
                    self.request,
                    source=self.source,
                    roofline=self.rooflines,
                    cross_check=self._cross_check if self.tools.benchmark_model else None,
                    tell=self.tell,
                )
            )
        except MvtoolError as error:
            self.error = error
            raise
        paths = [self.out / file_name(record) for record in records]
        for record, path in zip(records, paths, strict=True):
            record.save(path)
        return paths[0]

    def _cross_check(self, space: Workspace, subject: Subject, runner: Runner) -> CrossCheck | None:
        program = self.tools.benchmark_model
        if program is None or subject.artifact.runtime is not Runtime.TFLITE:
            return None
        beside = () if runner.library is None else (runner.library,)
        return benchmark_model.run_in(space, program, subject.path, self.request.threads, beside=beside)


@dataclass(frozen=True)
class Outcome:
    """What a call of `measure` gave.

    Attributes:
        records: Files of the records, those of an earlier start of the batch included.
        reports: What became of each job.
    """

    records: tuple[Path, ...]
    reports: tuple[Report, ...] = field(default=())


def measure(
    subjects: Sequence[Subject],
    request: Request,
    *,
    devices: Sequence[str] = (HOST,),
    out: Path,
    source: str | None = None,
    tools: Tools | None = None,
    resume: bool = False,
    tell: Tell = lambda device, what, done, total: None,
) -> Outcome:
    """Measure artifacts on devices, several of which work at the same time.

    Args:
        subjects: The artifacts.
        request: How long, at what pace, on how many threads.
        devices: `host`, `android` for the only phone that is connected, or `android:SERIAL`.
        out: Folder of the records.
        source: Video that the frames come from.
        tools: What the user gives.
        resume: Go on with a batch in `out` that was interrupted.
        tell: Told of the progress, from several threads.

    Raises:
        UsageError: A device is named twice, or is unknown.
        MvtoolError: The first job that failed; the message counts the others, whose records are kept.
    """
    given = tools or Tools()
    journal = out / JOURNAL
    if not resume:
        journal.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mvtool-lib-")))
        queues, jobs = [], []
        for name in devices:
            device = open_device(name, given, scratch)
            told = partial(tell, name)
            rooflines = Rooflines(tell=partial(_tell_idle, told)) if request.roofline else None
            groups = [tuple(subjects)] if request.interleave else [(subject,) for subject in subjects]
            mine = [Measurement(group, request, out, source, rooflines, given, told) for group in groups]
            jobs += mine
            queues.append(Queue(name, device, mine, device.interrupt))
        reports = Batch(journal, lambda report: None).run(queues)
    _raise_first(jobs, reports)
    return Outcome(_records(out, reports), reports)


def _tell_idle(told: Callable[[str, int, int], None], what: str) -> None:
    told(what, 0, 0)


def open_device(name: str, tools: Tools, scratch: Path) -> Host | Phone:
    """The device that a word of the command line names.

    Raises:
        UsageError: It is no such word.
        DeviceError: The phone cannot be used.
    """
    kind, _, serial = name.partition(":")
    if kind == HOST and not serial:
        return Host()
    if kind == ANDROID and (serial or ":" not in name):
        adb = choose(serial or None, find_program(tools.adb))
        return Phone(adb, partial(_phone_runner, tools, scratch))
    raise UsageError(f"--device got {name!r}; expected host, android, or android:SERIAL.")


def _phone_runner(tools: Tools, scratch: Path, runtime: Runtime, abi: str) -> Runner:
    if tools.runner is None and runtime is Runtime.EXECUTORCH:
        return _linked_runner(tools, scratch, abi)
    if tools.library is None and runtime is Runtime.TFLITE:
        raise UsageError(
            f"A phone needs the runtime library for {abi}: give libLiteRt.so or libtensorflowlite_jni.so, or the Android "
            "package (.aar) that holds it, with --lib. docs/benchmarking.md says where they are published."
        )
    program = tools.runner or build_runner(runtime, Target(abi), tools.ndk)
    return given_runner(program, tools.library, runtime, abi, scratch)


def _linked_runner(tools: Tools, scratch: Path, abi: str) -> Runner:
    """The runner of `.pte` files, which is linked with its library."""
    if tools.library is None or tools.library.suffix != ".so":
        raise UsageError(
            f"The runner of .pte files is linked with ExecuTorch's library for {abi}: unpack libexecutorch.so, and libfbjni.so "
            "beside it, from their Android packages (.aar), and name libexecutorch.so with --lib."
        )
    return phone_executorch_runner(Target(abi), tools.ndk, tools.library, scratch)


def _raise_first(jobs: Sequence[Measurement], reports: Sequence[Report]) -> None:
    """Raise the first error in its own class, so that the exit code is right, with the number of others."""
    bad = [report for report in reports if report.state is not State.DONE]
    if not bad:
        return
    error = next((job.error for job in jobs if job.error is not None), None)
    done = sum(report.state is State.DONE for report in reports)
    others = "".join(f"\n  {r.device}, {r.key}: {r.state}: {r.message}" for r in bad[1:])
    rest = (
        f" {done} of {len(reports)} measurements were recorded; go on with --resume.{others}"
        if len(reports) > 1
        else ""
    )
    kind = type(error) if error is not None else MvtoolError
    raise kind(f"{bad[0].message}{rest}") from error


def _records(out: Path, reports: Sequence[Report]) -> tuple[Path, ...]:
    """The records of the jobs; one that took turns with others stands for all of its session."""
    found: list[Path] = []
    for report in reports:
        if report.record is None:
            continue
        record = Record.load(report.record)
        if not record.interleaved:
            found.append(report.record)
            continue
        found += [path for path in sorted(out.glob("*.json")) if Record.load(path).session == record.session]
    return tuple(found)
