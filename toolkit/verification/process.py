"""One worker process as its parent sees it."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, cast

from mvtool.forking import ForkedProcess, Template, TemplateGone, available
from mvtool.parent import as_parent
from mvtool.ports import Runtime
from mvtool.verification.messages import Command, Doing, Finished, Found, Job, Message, Ready, Stepped
from mvtool.verification.report import CheckResult, SignalToNoise

_SINGLE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_SHOWN_LOG_BYTES = 600
_WORK = "mvtool.verification.worker:work"
_ALL = ("torch", "mvtool.verification.worker", "mvtool.verification.simulation")
_MODULES = {
    Runtime.TFLITE: ("mvtool.runtimes.tflite_simulation", "ai_edge_litert.interpreter"),
    Runtime.COREML: ("mvtool.runtimes.mlprogram.evaluator", "mvtool.verification.half"),
    Runtime.EXECUTORCH: ("executorch.extension.pybindings.portable_lib", "mvtool.verification.integers"),
}
"""What the workers of a runtime import sooner or later."""


@contextmanager
def template(runtimes: Iterable[Runtime]) -> Iterator[Template | None]:
    """A process that workers for these runtimes are forked from, or None where processes cannot be."""
    if not available():
        yield None
        return
    wanted = set(runtimes)
    made = Template(
        (*_ALL, *(n for runtime, names in _MODULES.items() if runtime in wanted for n in names)), _SINGLE_THREAD
    )
    try:
        yield made
    finally:
        made.close()


def _started(log: IO[bytes], template: Template | None) -> subprocess.Popen[bytes] | ForkedProcess:
    if template is not None:
        with suppress(TemplateGone):
            return template.start(_WORK, "", log, stdin=True)
    return subprocess.Popen(
        # -P: modules in the folder where the user works must not take the place of Python's own.
        [sys.executable, "-P", "-m", "mvtool.verification.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, **as_parent(), **_SINGLE_THREAD},
    )


class Worker:
    """A process that examines one artifact.

    Attributes:
        results: Checks decided so far.
        engine: What executes the artifact, once it is loaded.
        snr: From the finished worker.
        seconds: Processor time that it used.
        reason: Why it ended early; empty if it did not.
        blame: The check that was under way failed for `reason`.
        finished: It takes no more commands.
        acknowledged: Steps that it has replayed.
        timeout_s: Silence that counts as a hang.
    """

    def __init__(self, job: Job, timeout_s: float, template: Template | None = None) -> None:
        """Start the process on `job`; a silence of `timeout_s` seconds counts as a hang.

        Args:
            job: What to examine.
            timeout_s: See above.
            template: The process is forked from it, as long as it lives.
        """
        self.results: list[CheckResult] = []
        self.engine: str | None = None
        self.snr: tuple[SignalToNoise, ...] = ()
        self.seconds = 0.0
        self.reason = ""
        self.blame = False
        self.finished = False
        self.acknowledged = 0
        self._activity = "starting"
        self.timeout_s = timeout_s
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = _started(self._log, template)
        # A thread per worker turns the pipe into a queue, whose reads can time out on every system.
        self._queue: queue.Queue[Message | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._write(job)

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        try:
            while True:
                self._queue.put(cast(Message, pickle.load(stream)))
        except (EOFError, pickle.UnpicklingError, OSError, ValueError):
            self._queue.put(None)

    def _write(self, message: Job | Command) -> None:
        stream = self._process.stdin
        assert stream is not None
        try:
            pickle.dump(message, stream)
            stream.flush()
        except OSError:
            # The process is gone; its closed output says so in `receive`.
            return

    @property
    def pid(self) -> int:
        """Identifier of the process."""
        return self._process.pid

    def send(self, command: Command) -> None:
        """Give it a command; it is ignored once the worker has finished."""
        if not self.finished:
            self._write(command)

    def wait_ready(self) -> None:
        """Wait until the artifact is loaded or the worker has finished."""
        while not self.finished and self.engine is None:
            self._receive()

    def wait_step(self, number: int) -> None:
        """Wait until step `number` is replayed or the worker has finished."""
        while not self.finished and self.acknowledged < number:
            self._receive()

    def wait_finished(self) -> None:
        """Wait until the worker has finished."""
        while not self.finished:
            self._receive()

    def _receive(self) -> None:
        try:
            message = self._queue.get(timeout=self.timeout_s)
        except queue.Empty:
            self._end(f"no answer for {self.timeout_s:g} s while {self._activity}", blame=True)
            return
        match message:
            case None:
                self._end(self._obituary(), blame=True)
            case Doing(activity):
                self._activity = activity
            case Found(result):
                self.results.append(result)
            case Ready(engine):
                self.engine = engine
            case Stepped(number):
                self.acknowledged = number
            case Finished(snr, reason, failed, seconds):
                self.snr, self.seconds = snr, seconds
                self._end(reason, blame=failed)

    def _end(self, reason: str, blame: bool) -> None:
        self.reason, self.blame, self.finished = reason, blame, True

    def _obituary(self) -> str:
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _SHOWN_LOG_BYTES))
        log = self._log.read().decode(errors="replace").strip()
        last = f"; its last words: {log}" if log else ""
        return f"the process that executes the artifact {how} while {self._activity}{last}"

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue
