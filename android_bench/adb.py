"""The real adb program, bound to one device.

What adb 29 and 36 were seen to do, and what follows from it here:

- A connection that is lost during `adb shell` ends with exit status 0 (adb 29) or 255 (adb 36) and with whatever had
  been printed so far. So each command ends with a mark of random digits and its own exit status; without the mark neither
  the output nor the status is believed.
- `adb push` reports success for files that arrived cut short. So the SHA-256 is computed on the device afterwards.
- With several devices and no serial adb picks none or the wrong one. So `-s SERIAL` is always given.
- The server connects TCP devices anew by itself within about 2 seconds; until then they are `offline`.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mvtool.android_bench.adb_failures import explain
from mvtool.android_bench.adb_program import Ended, kill_group, signal_group, start_process
from mvtool.errors import DeviceError
from mvtool.files import sha256_of

ANSWER_S: Final = 30.0
"""Time that a short command gets: dumpsys of a busy phone takes seconds."""
_SLOWEST_BYTES_PER_S = 500_000  # adb over a bad wireless link
_TAIL_CHARACTERS = 2000
_NO_FILE_STATUS = 44


@dataclass(frozen=True)
class Finished:
    """What a command on the device did: exit `status`, and its `output` on stdout and stderr."""

    status: int
    output: str


@dataclass(frozen=True)
class _Content:
    """What a file on the device holds."""

    sha256: str
    size_bytes: int


class Adb:
    """adb for one device; every call names its serial, has a limit of time, and is killed with its group after that.

    Args:
        program: The adb program.
        serial: The device.
        variables: Environment variables for adb in addition to those of this process.
    """

    def __init__(self, program: Path, serial: str, variables: Mapping[str, str] | None = None) -> None:
        self.program = program
        self.serial = serial
        self._environment = {**os.environ, **(variables or {})}
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._interrupted = False

    def interrupt(self) -> None:
        """End the call that another thread waits for, and refuse further ones for good; used to stop a batch.

        Only calls that are told to be `even_interrupted` pass: those that remove what is left on the device.
        """
        with self._lock:
            self._interrupted = True
            running = list(self._running)
        for process in running:
            signal_group(process)

    def script(
        self, text: str, timeout_s: float = ANSWER_S, what: str = "A command", even_interrupted: bool = False
    ) -> Finished:
        """Run a script in the device's shell to its end.

        Args:
            text: POSIX shell; what comes from outside must be quoted already. It reads nothing.
            timeout_s: Limit for the script and the way to the device together.
            what: Names it in error messages.
            even_interrupted: `interrupt` neither refuses nor ends it.

        Raises:
            DeviceError: The device cannot be reached, or the connection was lost before the script ended.
        """
        mark = f"mvtool-{secrets.token_hex(8)}"
        remote = f"( {text}\n) </dev/null 2>&1; status=$?; echo; echo {mark}=$status"
        ended = self._run(["shell", "-n", remote], timeout_s, what, even_interrupted)
        output = ended.output.decode(errors="replace").replace("\r\n", "\n")
        found = re.search(rf"\n{mark}=(\d+)\n?$", output)
        if found is None:
            raise explain(self.serial, what, ended.status, ended.errors, output[-_TAIL_CHARACTERS:])
        return Finished(int(found[1]), output[: found.start()])

    def shell(self, words: Sequence[str], timeout_s: float = ANSWER_S) -> Finished:
        """Run a program on the device with these arguments, quoted so that the device's shell changes none of them.

        Raises:
            DeviceError: As for `script`.
        """
        return self.script(shlex.join(words), timeout_s)

    def sha256(self, remote: str, mode: str | None = None) -> str | None:
        """SHA-256 of a file on the device; None if there is none.

        Args:
            remote: The file.
            mode: Its rights are set to that on the way, for example `755`.

        Raises:
            DeviceError: It cannot be computed there.
        """
        found = self._content(remote, mode)
        return None if found is None else found.sha256

    def _content(self, remote: str, mode: str | None = None) -> _Content | None:
        """What `sha256` gives, and the size, in one call."""
        name = shlex.quote(remote)
        rights = f"chmod {mode} {name} || exit;" if mode else ""
        sums = f"sha256sum {name} || toybox sha256sum {name}"
        done = self.script(
            f"[ -e {name} ] || exit {_NO_FILE_STATUS}; {rights} {{ {sums}; }} && wc -c < {name}", ANSWER_S * 4
        )
        if done.status == _NO_FILE_STATUS:
            return None
        found = re.search(r"\b([0-9a-f]{64})\b.*\n\s*(\d+)\s*$", done.output, re.DOTALL)
        if found is None:
            raise DeviceError(
                f"The SHA-256 of {remote} on {self.serial} could not be computed: {_short(done.output)} (status {done.status}). "
                "Neither `sha256sum` nor `toybox sha256sum` works there; Android has one of them since version 6."
            )
        return _Content(found[1], int(found[2]))

    def push(self, source: Path, remote: str, executable: bool = False) -> None:
        """Copy a file to the device, and prove that it arrived whole; what did not is removed again.

        Raises:
            DeviceError: The device is gone, refuses, or its disk is full, or the bytes differ.
        """
        expected = sha256_of(source)
        timeout_s = _copy_s(source.stat().st_size)
        what = f"The copy of {source.name} to {remote}"
        try:
            ended = self._run(["push", str(source), remote], timeout_s, what)
            if ended.status != 0:
                raise explain(self.serial, what, ended.status, ended.texts)
            self._check(remote, expected, source.stat().st_size, "755" if executable else "644")
        except BaseException:
            # If the device is gone, its folder is removed when it is back.
            with suppress(DeviceError):
                self.shell(["rm", "-f", remote])
            raise

    def pull(self, remote: str) -> bytes | None:
        """Content of a file on the device, with its SHA-256 proved; None if there is none.

        Raises:
            DeviceError: The device is gone, refuses, or the bytes differ.
        """
        expected = self._content(remote)
        if expected is None:
            return None
        what, timeout_s = f"The copy of {remote}", _copy_s(expected.size_bytes)
        with tempfile.TemporaryDirectory(prefix="mvtool-pull-") as folder:
            local = Path(folder) / "file"
            ended = self._run(["pull", remote, str(local)], timeout_s, what)
            if ended.status != 0 or not local.exists():
                raise explain(self.serial, what, ended.status, ended.texts)
            data = local.read_bytes()
        got = hashlib.sha256(data).hexdigest()
        if got != expected.sha256:
            raise DeviceError(
                f"{remote} on {self.serial} changed on the way: SHA-256 {got} of {len(data)} bytes here, {expected.sha256} of "
                f"{expected.size_bytes} bytes there. Check the cable, and run it again."
            )
        return data

    def wait(self, timeout_s: float, even_interrupted: bool = False) -> bool:
        """Wait until the device can be used; False if it cannot after `timeout_s`.

        Args:
            timeout_s: The longest wait.
            even_interrupted: `interrupt` neither refuses nor ends it.
        """
        try:
            return self._run(["wait-for-device"], timeout_s, "Waiting", even_interrupted).status == 0
        except DeviceError:
            return False

    def _check(self, remote: str, expected: str, size_bytes: int, mode: str) -> None:
        got = self._content(remote, mode)
        if got is None or got.sha256 != expected:
            arrived = "no file" if got is None else f"SHA-256 {got.sha256}, {got.size_bytes} bytes"
            raise DeviceError(
                f"{remote} on {self.serial} is not what was sent: {arrived}; expected {expected}, {size_bytes} bytes. adb "
                "reported success. Check the cable and the phone's free space, and run it again."
            )

    def _run(self, words: list[str], timeout_s: float, what: str, even_interrupted: bool = False) -> Ended:
        """Run `adb -s SERIAL WORDS`; a child of its own group, so that nothing of it survives.

        Raises:
            DeviceError: It did not end in time, was interrupted, or cannot be started.
        """
        command = [str(self.program), "-s", self.serial, *words]
        with self._lock:
            if self._interrupted and not even_interrupted:
                raise DeviceError(f"{what} on {self.serial} was not started: the run was interrupted.")
            process = start_process(command, self._environment)
            if not even_interrupted:
                self._running.add(process)
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise DeviceError(
                f"{what} on {self.serial} did not end within {timeout_s:g} s, and adb was stopped. Look "
                f"whether `adb -s {self.serial} shell echo ok` answers; if it does not, reconnect the phone or restart it."
            ) from error
        finally:
            kill_group(process)
            with self._lock:
                self._running.discard(process)
                interrupted = self._interrupted
        if interrupted and not even_interrupted:
            raise DeviceError(f"{what} on {self.serial} was ended: the run was interrupted.")
        return Ended(process.returncode, output, errors.decode(errors="replace"))


def _copy_s(size_bytes: int) -> float:
    """How long a copy of so many bytes may take."""
    return ANSWER_S + size_bytes / _SLOWEST_BYTES_PER_S


def _short(text: str) -> str:
    return " ".join(text.split())[-300:] or "no output"
