"""Many jobs on several devices at once: one queue per device, and a journal by which a batch goes on where it was.

A device measures one job at a time, and in the order given. A job that fails is reported and the next one begins; a
device that is lost ends its own queue only. The journal is written after each job, so that a batch that was
interrupted or killed, started again with the same journal, repeats nothing that is done.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal, Protocol

from pydantic import ConfigDict, Field, ValidationError

from mvtool.bench.device import Device
from mvtool.bench.record import Moment
from mvtool.errors import DeviceError, ManifestError, MvtoolError, UsageError
from mvtool.files import write_atomic
from mvtool.ports import Document

BATCH_SCHEMA: Final = "mvtool.batch/1"
_LOG = logging.getLogger(__name__)


class Job(Protocol):
    """One measurement."""

    @property
    def key(self) -> str:
        """Names it in the journal; unique on its device, the same when the batch is started again."""
        ...

    def run(self, device: Device) -> Path:
        """Measure, and write the record.

        Returns:
            The record's file, which the journal keeps.

        Raises:
            MvtoolError: It failed; nothing was recorded.
        """
        ...


class State(StrEnum):
    """How a job ended: with a record, with an error, or not at all."""

    DONE = "done"
    FAILED = "failed"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Report:
    """What became of one job.

    Attributes:
        device: Name of its queue.
        key: The job's.
        state: How it ended.
        record: Its record, where it is done.
        message: Why there is none otherwise.
        error: What it ended with, where it failed.
        resumed: It was done by an earlier start of the batch.
    """

    device: str
    key: str
    state: State
    record: Path | None = None
    message: str = ""
    error: Exception | None = None
    resumed: bool = False


@dataclass(frozen=True)
class Queue:
    """Jobs of one device.

    Attributes:
        name: Of the device, the same when the batch is started again, for example its serial.
        device: What they run on.
        jobs: In order.
        interrupt: Ends what the device does now; called from another thread.
    """

    name: str
    device: Device
    jobs: Sequence[Job]
    interrupt: Callable[[], None] = field(default=lambda: None)


class Entry(Document):
    """A finished job in the journal: its `record`, or the `error` that it ended with."""

    record: str | None = None
    error: str | None = None


class Journal(Document):
    """What is done, by queue and job; written to one JSON file."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_id: Literal["mvtool.batch/1"] = Field(default=BATCH_SCHEMA, alias="schema")
    queues: dict[str, dict[str, Entry]] = Field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Journal:
        """Read a journal; an empty one if there is no file.

        Raises:
            ManifestError: The file is no journal.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, ValidationError) as error:
            raise ManifestError(
                f"{path} is no journal of a batch ({BATCH_SCHEMA}): {error}. Give another file, or remove it to begin anew."
            ) from error

    def with_entry(self, queue: str, key: str, entry: Entry) -> Journal:
        """The journal with one more entry."""
        jobs = {**self.queues.get(queue, {}), key: entry}
        return Journal(queues={**self.queues, queue: jobs})

    def record_of(self, queue: str, key: str) -> Path | None:
        """The record of a job that is done and whose record is still there."""
        entry = self.queues.get(queue, {}).get(key)
        record = Path(entry.record) if entry is not None and entry.record else None
        return record if record is not None and record.exists() else None


class Batch:
    """Runs queues at the same time.

    Args:
        journal: File of the journal; one that exists is gone on with.
        tell: Told of each job as it ends, from the thread of its queue.

    Raises:
        ManifestError: The file is no journal.
    """

    def __init__(self, journal: Path, tell: Callable[[Report], None] = lambda report: None) -> None:
        self._path = journal
        self._journal = Journal.load(journal)
        self._tell = tell
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._reports: dict[tuple[str, str], Report] = {}

    def run(self, queues: Sequence[Queue]) -> tuple[Report, ...]:
        """Run all jobs that are not done.

        Returns:
            One report per job, by queue and in order. An interrupt ends every queue, with its devices cleaned up,
            before it is passed on.

        Raises:
            UsageError: Two queues, or two jobs of one queue, have one name.
        """
        _check_names(queues)
        # A signal that interrupts Thread.join leaves the thread marked as ended in Python 3.11, so events are waited for.
        ends: list[threading.Event] = []
        try:
            for queue in queues:
                ended = threading.Event()
                threading.Thread(target=self._run_queue, args=(queue, ended), name=queue.name).start()
                ends.append(ended)
            for ended in ends:
                ended.wait()
        except BaseException:
            self._stop.set()
            for queue in queues:
                queue.interrupt()
            for ended in ends:
                ended.wait()
            raise
        return tuple(self._reports[queue.name, job.key] for queue in queues for job in queue.jobs)

    def _run_queue(self, queue: Queue, ended: threading.Event) -> None:
        try:
            self._run_jobs(queue)
        finally:
            ended.set()

    def _run_jobs(self, queue: Queue) -> None:
        lost = ""
        for job in queue.jobs:
            record = self._journal.record_of(queue.name, job.key)
            if record is not None:
                self._report(Report(queue.name, job.key, State.DONE, record, resumed=True))
            elif lost or self._stop.is_set():
                self._report(Report(queue.name, job.key, State.NOT_RUN, message=lost or "The batch was interrupted."))
            else:
                lost = self._run_job(queue, job)

    def _run_job(self, queue: Queue, job: Job) -> str:
        """Run one job; returns why the device is lost, or nothing if it is not."""
        try:
            record = job.run(queue.device)
        except MvtoolError as error:
            self._finish(queue, job, Report(queue.name, job.key, State.FAILED, message=str(error), error=error))
            return _lost(queue) if isinstance(error, DeviceError) else ""
        except Exception as error:  # noqa: BLE001 - a fault of one job must not end the others
            _LOG.exception("The job %s on %s ended unexpectedly.", job.key, queue.name)
            message = f"unexpected {type(error).__name__}: {error}"
            self._finish(queue, job, Report(queue.name, job.key, State.FAILED, message=message, error=error))
            return ""
        self._finish(queue, job, Report(queue.name, job.key, State.DONE, record))
        return ""

    def _finish(self, queue: Queue, job: Job, report: Report) -> None:
        record = None if report.record is None else str(report.record.resolve())
        # What an interrupt ended did not fail: it has no entry, as if it had not begun.
        if record is not None or not self._stop.is_set():
            with self._lock:
                entry = Entry(record=record, error=report.message or None)
                self._journal = self._journal.with_entry(queue.name, job.key, entry)
                write_atomic(self._path, (self._journal.model_dump_json(by_alias=True, indent=1) + "\n").encode())
        self._report(report)

    def _report(self, report: Report) -> None:
        with self._lock:
            self._reports[report.device, report.key] = report
        self._tell(report)


def _lost(queue: Queue) -> str:
    """Why a device is lost; empty if it answers."""
    try:
        queue.device.reading(Moment.AFTER, 0.0)
    except DeviceError as error:
        return f"{queue.name} was lost before: {error}"
    return ""


def _check_names(queues: Sequence[Queue]) -> None:
    names = [queue.name for queue in queues]
    keys = [f"{queue.name}: {job.key}" for queue in queues for job in queue.jobs]
    twice = sorted({name for listed in (names, keys) for name in listed if listed.count(name) > 1})
    if twice:
        raise UsageError(
            f"A batch has several entries for {', '.join(twice)}; each device and each of its jobs is named once."
        )
