"""This machine as a device: the native runner in a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mvtool.android_bench import device_state, runners
from mvtool.bench.device import Runner
from mvtool.bench.record import DeviceFacts, DeviceKind, Moment, Reading
from mvtool.errors import DeviceError, RunnerError
from mvtool.files import sha256_of
from mvtool.ports import Runtime

CPUINFO = Path("/proc/cpuinfo")
TAIL_LINES = 12
TERM_S = 5.0
LOOK_EVERY_S = 0.2
PREFIX = "mvtool-run-"
"""Of the folders of runs; the number of the process that made it follows."""
END_WITH_PARENT = "MVTOOL_END_WITH_PARENT"
"""Tells the runner which process it must not outlive."""


class Host:
    """`mvtool.bench.device.Device` on the machine that mvtool runs on.

    Args:
        given: Runner and library instead of those that mvtool compiles and finds.
    """

    def __init__(self, given: dict[Runtime, Runner] | None = None) -> None:
        """Nothing is compiled yet."""
        self._runners = dict(given or {})
        self._interrupted = threading.Event()

    def interrupt(self) -> None:
        """End what another thread executes here."""
        self._interrupted.set()

    def facts(self) -> DeviceFacts:
        """What this machine is."""
        model = _processor()
        return DeviceFacts(
            kind=DeviceKind.HOST,
            serial=platform.node(),
            name=model or platform.machine(),
            model=model,
            abi=platform.machine(),
            cores=os.cpu_count() or 1,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            os=platform.system(),
            os_version=platform.release(),
            build=platform.version(),
        )

    def runner(self, runtime: Runtime) -> Runner:
        """The runner of the installed wheel's library, compiled at first use."""
        if runtime not in self._runners:
            self._runners[runtime] = runners.host_runner(runtime)
        return self._runners[runtime]

    def reading(self, moment: Moment, time_s: float) -> Reading:
        """Temperatures and clocks as far as the kernel tells them."""
        return device_state.host_reading(moment, time_s)

    @contextmanager
    def workspace(self) -> Iterator[HostWorkspace]:
        """A folder for temporary files, removed at the end."""
        _remove_leftovers()
        with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as name:
            yield HostWorkspace(Path(name), self._interrupted)


class HostWorkspace:
    """`mvtool.bench.device.Workspace` in a folder of this machine."""

    def __init__(self, folder: Path, interrupted: threading.Event | None = None) -> None:
        """Use an empty folder; `interrupted` ends a program that runs."""
        self._folder = folder
        self._interrupted = interrupted or threading.Event()

    def put(self, source: Path, name: str, executable: bool = False) -> None:
        """Copy a file and compare its hash."""
        target = self._folder / name
        shutil.copyfile(source, target)
        target.chmod(0o755 if executable else 0o644)
        if sha256_of(target) != sha256_of(source):
            raise DeviceError(
                f"The copy of {source} in {target} has other bytes; the disk is faulty. Use another TMPDIR."
            )

    def execute(self, program: str, arguments: tuple[str, ...], environment: dict[str, str], timeout_s: float) -> str:
        """Run a program of the folder in a process group of its own, which is ended with it."""
        process = subprocess.Popen(
            [str(self._folder / program), *arguments],
            cwd=self._folder,
            env={**os.environ, **environment, END_WITH_PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            printed = self._wait(process, timeout_s)
        except subprocess.TimeoutExpired as error:
            raise RunnerError(
                f"{program} did not end within {timeout_s:.0f} seconds and was ended. Nothing was recorded. It printed: "
                f"{tail(_end(process))}"
            ) from error
        finally:
            _end(process)
        if process.returncode != 0:
            raise RunnerError(
                f"{program} {_status(process.returncode)}. Nothing was recorded. It printed: {tail(printed)}"
            )
        return printed

    def _wait(self, process: subprocess.Popen[str], timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return process.communicate(timeout=min(LOOK_EVERY_S, max(0.0, deadline - time.monotonic())))[0]
            except subprocess.TimeoutExpired:
                if self._interrupted.is_set():
                    raise DeviceError("The run on this machine was interrupted. Nothing was recorded.") from None
                if time.monotonic() >= deadline:
                    raise

    def get(self, name: str) -> bytes:
        """Content of a file of the folder."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError as error:
            raise RunnerError(f"The runner ended well but wrote no {name}. Nothing was recorded.") from error

    def remove(self, name: str) -> None:
        """Delete a file of the folder, if it is there."""
        (self._folder / name).unlink(missing_ok=True)


def _remove_leftovers() -> None:
    """Remove folders of runs whose process was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        number = folder.name.removeprefix(PREFIX).partition("-")[0]
        if number.isdigit() and not Path(f"/proc/{number}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def tail(printed: str) -> str:
    """The last lines of what a program printed, for an error message."""
    return " | ".join(printed.strip().splitlines()[-TAIL_LINES:]) or "nothing"


def _status(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}"
    with suppress(ValueError):
        return f"crashed with {signal.Signals(-code).name}"
    return f"crashed with signal {-code}"


def _end(process: subprocess.Popen[str]) -> str:
    """Ask the process group to end, then make it."""
    if process.returncode is not None:
        return ""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=TERM_S)[0]
    return ""


def _processor() -> str:
    with suppress(OSError):
        for line in CPUINFO.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    return platform.processor()
