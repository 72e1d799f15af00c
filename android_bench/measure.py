"""What `mvtool bench` does: artifacts on this machine or on phones, to records in a folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from mvtool.android_bench.batch import Batch, Queue, Report, State
from mvtool.android_bench.host import Host
from mvtool.android_bench.measurement import Measurement
from mvtool.android_bench.open_device import ANDROID, HOST, Tools, check_tools, open_device
from mvtool.android_bench.phone import Phone
from mvtool.bench.profiles import Request
from mvtool.bench.record import Record
from mvtool.bench.roofline import Rooflines
from mvtool.bench.subjects import Subject
from mvtool.errors import ManifestError, MvtoolError, UsageError

JOURNAL: Final = ".mvtool-batch"
"""Not a name that ends in .json, so that a pattern for records does not match it."""

Tell = Callable[[str, str, int, int], None]
"""Told the device, what goes on there, how many launches are done, and how many there are."""


@dataclass(frozen=True)
class Outcome:
    """What a call of `measure` gave.

    Attributes:
        records: Files of the records, those of an earlier start of the batch included.
        reports: What became of each job.
    """

    records: tuple[Path, ...]
    reports: tuple[Report, ...] = field(default=())

    def raise_failed(self) -> None:
        """Raise the first failure in its own class, with the number of records and the other failures.

        Raises:
            MvtoolError: A job failed, or was not run.
        """
        bad = [report for report in self.reports if report.state is not State.DONE]
        if not bad:
            return
        error = bad[0].error
        others = "".join(f"\n  {r.device}, {r.key}: {r.state}: {r.message}" for r in bad[1:])
        done = len(self.reports) - len(bad)
        counted = f" {done} of {len(self.reports)} measurements were recorded; go on with --resume." + others
        text = f"{bad[0].message}{counted if len(self.reports) > 1 else ''}"
        if isinstance(error, MvtoolError):
            # Some classes take other arguments than a text.
            error.args = (text,)
            raise error
        raise MvtoolError(text) from error


@dataclass(frozen=True)
class _Opened:
    """A device under its `name` for people, and the `serial` by which no other is the same."""

    name: str
    serial: str
    device: Host | Phone


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
    """Measure artifacts on devices; phones work at the same time, this machine before them.

    Args:
        subjects: The artifacts.
        request: How long, at what pace, on how many threads.
        devices: `host`, `android` for the only phone that is connected, or `android:SERIAL`.
        out: Folder of the records.
        source: Video that the frames come from.
        tools: What the user gives.
        resume: Go on with a batch in `out` that was interrupted.
        tell: Told of the progress, from several threads.

    Returns:
        The records, and what failed: call `raise_failed`.

    Raises:
        UsageError: A device is named twice, is unknown, or the tools do not fit.
        DeviceError: A phone cannot be used.
    """
    given = tools or Tools()
    check_tools(given, devices, [subject.artifact.runtime for subject in subjects])
    out.mkdir(parents=True, exist_ok=True)
    journal = out / JOURNAL
    if not resume:
        journal.unlink(missing_ok=True)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mvtool-lib-")))
        job = partial(Measurement, request=request, out=out, source=source, tools=given)
        groups = [tuple(subjects)] if request.interleave else [(subject,) for subject in subjects]
        reports: list[Report] = []
        for opened in _in_turn(_open(devices, given, scratch)):
            queues = [_queue(one, groups, job, request, tell) for one in opened]
            reports += Batch(journal).run(queues)
    return Outcome(_records(out, reports), tuple(reports))


def _open(devices: Sequence[str], tools: Tools, scratch: Path) -> list[_Opened]:
    found: list[_Opened] = []
    for name in devices:
        device = open_device(name, tools, scratch)
        serial = device.facts().serial
        same = [one.name for one in found if one.serial == serial]
        if same:
            raise UsageError(
                f"--device {name} and --device {same[0]} are the same device ({serial}), which measures one thing at a time. "
                "Name each device once."
            )
        found.append(_Opened(name, serial, device))
    return found


def _in_turn(opened: Sequence[_Opened]) -> list[list[_Opened]]:
    """This machine alone and first: what prepares a phone's run would disturb it."""
    host = [one for one in opened if one.name == HOST]
    phones = [one for one in opened if one.name.startswith(ANDROID)]
    return [group for group in (host, phones) if group]


def _queue(
    opened: _Opened,
    groups: Sequence[tuple[Subject, ...]],
    job: Callable[..., Measurement],
    request: Request,
    tell: Tell,
) -> Queue:
    told = partial(tell, opened.name)
    rooflines = Rooflines(tell=partial(_tell_idle, told)) if request.roofline else None
    jobs = [job(subjects=group, rooflines=rooflines, tell=told) for group in groups]
    return Queue(opened.serial, opened.device, jobs, opened.device.interrupt)


def _tell_idle(told: Callable[[str, int, int], None], what: str) -> None:
    told(what, 0, 0)


def _records(out: Path, reports: Sequence[Report]) -> tuple[Path, ...]:
    """The records of the jobs; one that took turns with others stands for all of its session."""
    found: list[Path] = []
    for report in reports:
        if report.record is None:
            continue
        record = Record.load(report.record)
        found += _session(out, record.session) if record.interleaved else [report.record]
    return tuple(found)


def _session(out: Path, session: str) -> list[Path]:
    """Records of a session; what else lies in the folder is none of ours."""
    found: list[tuple[float, Path]] = []
    for path in sorted(out.glob("*.json")):
        try:
            record = Record.load(path)
        except ManifestError:
            continue
        if record.session == session:
            found.append((record.launches[0].started_s, path))
    # The first launches are in the order in which the artifacts were named.
    return [path for _, path in sorted(found)]
