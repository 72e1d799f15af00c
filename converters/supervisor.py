"""Runs jobs in processes of their own: converters crash, leak and hang.

A job that dies by a signal, exceeds the time of one stage or is killed for memory becomes a
`JobFailure` that names the stage; the other jobs go on.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from mvtool.converters.jobs import JOB_FILE, LOG_FILE, RESULT_FILE, Job, JobResult, WorkerLine
from mvtool.converters.progress import Listener, StageEvent
from mvtool.forking import ForkedProcess, Template, TemplateGone
from mvtool.parent import as_parent

LOG_TAIL_LINES = 12
# -P: a `random.py` in the folder where the user works must not take the place of Python's own.
WORKER = (sys.executable, "-P", "-m", "mvtool.converters.worker")
WORK = "mvtool.converters.worker:main"
"""The same, as a function for a process that is forked."""
_STARTING = "start"


@dataclass(frozen=True)
class JobFailure:
    """Why a job has no result.

    Attributes:
        job: The job.
        stage: Stage it was in.
        message: What happened and what to do.
        error: Class name of the mvtool error that the worker raised, None for crashes and time-outs.
    """

    job: Job
    stage: str
    message: str
    error: str | None = None


Outcome = JobResult | JobFailure


@dataclass
class _Running:
    name: str
    job: Job
    folder: Path
    process: subprocess.Popen[bytes] | ForkedProcess
    log: IO[bytes]
    stages: list[str] = field(default_factory=lambda: [_STARTING])
    stage_began: float = field(default_factory=time.monotonic)
    error: WorkerLine | None = None
    timed_out: bool = False

    @property
    def stage(self) -> str:
        """The innermost stage that is going on, or the last that was."""
        return self.stages[-1]


class Supervisor:
    """Runs jobs, at most `parallel` at a time.

    Args:
        folder: Scratch folder for job files and logs.
        parallel: Number of processes.
        stage_timeout_s: Longest time of one stage.
        listener: Told of every stage.
        command: Starts a worker; the job folder is appended.
        template: Workers are forked from it instead, as long as it lives.
    """

    def __init__(
        self,
        folder: Path,
        parallel: int,
        stage_timeout_s: float,
        listener: Listener,
        command: Sequence[str] = WORKER,
        template: Template | None = None,
    ) -> None:
        self._folder = folder
        self._parallel = parallel
        self._timeout_s = stage_timeout_s
        self._listener = listener
        self._command = command
        self._template = template
        self._lines: queue.Queue[tuple[str, str | None]] = queue.Queue()

    def run(self, jobs: Mapping[str, Job], needs: Mapping[str, str]) -> dict[str, Outcome]:
        """Run all jobs.

        Args:
            jobs: Name to job; started in this order.
            needs: Job name to the name of a job that must succeed before.

        Returns:
            Name to result or failure. An interrupt stops every process before it is passed on.
        """
        waiting, running, done = dict(jobs), dict[str, _Running](), dict[str, Outcome]()
        try:
            while waiting or running:
                self._start_ready(waiting, running, done, needs)
                self._take_line(running, done)
                self._stop_late(running)
        finally:
            for active in running.values():
                _kill(active.process)
                active.log.close()
        return done

    def _start_ready(
        self, waiting: dict[str, Job], running: dict[str, _Running], done: dict[str, Outcome], needs: Mapping[str, str]
    ) -> None:
        for name, job in list(waiting.items()):
            before = done.get(needs.get(name, ""))
            if isinstance(before, JobFailure):
                done[name] = JobFailure(
                    job, before.stage, f"not tried, because {before.job.label} failed", before.error
                )
                del waiting[name]
            elif len(running) < self._parallel and (name not in needs or before is not None):
                running[name] = self._start(name, job)
                del waiting[name]

    def _start(self, name: str, job: Job) -> _Running:
        folder = self._folder / name
        folder.mkdir(parents=True)
        (folder / JOB_FILE).write_text(job.model_dump_json())
        log = (folder / LOG_FILE).open("wb")
        process = self._process(folder, job, log)
        threading.Thread(target=self._read, args=(name, process), daemon=True).start()
        return _Running(name, job, folder, process, log)

    def _process(self, folder: Path, job: Job, log: IO[bytes]) -> subprocess.Popen[bytes] | ForkedProcess:
        if self._template is not None:
            try:
                return self._template.start(WORK, str(folder), log)
            except TemplateGone:
                self._template = None
        return subprocess.Popen(
            [*self._command, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **as_parent(), **environment(job.threads)},
        )

    def _read(self, name: str, process: subprocess.Popen[bytes] | ForkedProcess) -> None:
        if process.stdout is not None:
            with process.stdout as lines:
                for line in lines:
                    self._lines.put((name, line.decode("utf-8", "replace")))
        process.wait()
        self._lines.put((name, None))

    def _take_line(self, running: dict[str, _Running], done: dict[str, Outcome]) -> None:
        if not running:
            return
        try:
            name, text = self._lines.get(timeout=0.2)
        except queue.Empty:
            return
        active = running[name]
        if text is not None:
            self._note(active, text)
            return
        del running[name]
        active.log.close()
        done[name] = self._outcome(active)

    def _note(self, active: _Running, text: str) -> None:
        try:
            line = WorkerLine.model_validate_json(text)
        except ValidationError:
            return
        active.stage_began = time.monotonic()
        if line.status == "start":
            active.stages.append(line.stage)
        if line.status == "done" and active.stages[-2] is not _STARTING:
            active.stages.pop()
        if line.status == "failed":
            active.error = line
            return
        self._tell(active, line.stage, line.status, line.seconds, line.message, line.cpu_seconds)

    def _outcome(self, active: _Running) -> Outcome:
        result = active.folder / RESULT_FILE
        if active.process.returncode == 0 and result.exists():
            return JobResult.model_validate_json(result.read_bytes())
        failure = self._failure(active)
        seconds = time.monotonic() - active.stage_began
        self._tell(active, active.stage, "failed", seconds, failure.message)
        return failure

    def _failure(self, active: _Running) -> JobFailure:
        if active.error is not None:
            return JobFailure(active.job, active.error.stage, active.error.message or "", active.error.error)
        if active.timed_out:
            text = f"took longer than {self._timeout_s:.0f} s and was stopped. Give more time with --stage-timeout."
        else:
            text = _death(active.process.wait())
        return JobFailure(active.job, active.stage, f"{text} Last output:\n{_tail(active.folder / LOG_FILE)}")

    def _stop_late(self, running: dict[str, _Running]) -> None:
        for active in running.values():
            if not active.timed_out and time.monotonic() - active.stage_began > self._timeout_s:
                active.timed_out = True
                _kill(active.process)

    def _tell(
        self,
        active: _Running,
        stage: str,
        status: str,
        seconds: float | None,
        message: str | None,
        cpu_seconds: float | None = None,
    ) -> None:
        job = active.job
        target, precision = job.target and job.target.value, job.precision and job.precision.value
        self._listener(StageEvent(target, precision, stage, status, seconds, message, cpu_seconds))  # type: ignore[arg-type]


def environment(threads: int) -> dict[str, str]:
    """What the environment of workers with so many threads has beside that of this process."""
    return {"OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": "0"}


def _kill(process: subprocess.Popen[bytes] | ForkedProcess) -> None:
    """End the process and what it started; it leads a session of its own."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        process.wait()


def _death(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed by the system, usually for lack of memory. Close other programs or convert fewer targets at once."
    if code < 0:
        return f"crashed with {signal.Signals(-code).name} inside the converter."
    return f"ended with exit code {code} and no result."


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-LOG_TAIL_LINES:]) or "    (none)"
