"""A run's folder on a phone, and the programs that run there."""

from __future__ import annotations

import logging
import math
import shlex
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from mvtool.android_bench.adb import Adb, Finished
from mvtool.android_bench.phone_folders import OWNER_FILE, make_and_look, new_name, refuse_others, remove_folder
from mvtool.errors import DeviceError, RunnerError
from mvtool.files import check_relative

RETURN_S: Final = 10.0
"""How long a removal waits for a phone that is away; adb's server reconnects one on a network within about 2 s."""

_KILL_AFTER_S = 5  # between SIGTERM and SIGKILL of the phone's `timeout`
_TRANSPORT_S = 20.0  # adb gets so much longer than the phone's own limit
_MARGIN_S = 1.0
_TAIL_LINES = 12
# Statuses of the runner's own failures, from sysexits.h: usage, library, model, run, input and output.
_RUNNER_STATUSES = range(64, 69)
_CANNOT_EXECUTE = (126, 127)
_TIMEOUT_STATUSES = (124, 137, 143)  # toybox before Android 11 reports the signal itself
_SIGKILL_STATUS = 137
_LOG = logging.getLogger(__name__)


class PhoneWorkspace:
    """`mvtool.bench.device.Workspace` on a phone; made by `create`, removed by `close`."""

    def __init__(self, adb: Adb, folder: str) -> None:
        """Use a folder that is there."""
        self._adb = adb
        self.folder = folder

    @classmethod
    def create(cls, adb: Adb, return_s: float = RETURN_S, alone: bool = True) -> PhoneWorkspace:
        """Make a new folder, in one step with the file that says whose it is.

        Args:
            adb: Bound to the phone.
            return_s: As for `close`, should that fail half-way.
            alone: Refuse a phone that another process of this computer measures. Of two that begin at the same moment
                each finds the folder of the other, or one of them does.

        Raises:
            DeviceError: It cannot be made, or the phone is in use.
        """
        folder = new_name()
        try:
            made = adb.script(make_and_look(folder))
            if made.status != 0:
                raise DeviceError(
                    f"The folder {folder} could not be made on {adb.serial}: {_tail(made.output)}. mvtool needs a place for its "
                    "files there; free space on the phone, or check whether it restricts /data/local/tmp."
                )
            if alone:
                refuse_others(adb.serial, [line.partition("|")[::2] for line in made.output.splitlines()])
        except BaseException:
            cls(adb, folder).close(return_s)
            raise
        return cls(adb, folder)

    def close(self, return_s: float = RETURN_S) -> bool:
        """End what still runs in the folder, and remove it; waits `return_s` for a phone that is away.

        An interrupt ends neither, and is still in force afterwards.

        Returns:
            Whether it is gone. If not, a warning names it; the next run on this phone removes it.
        """
        for attempt in range(2):
            if attempt and not self._adb.wait(return_s, even_interrupted=True):
                break
            with suppress(DeviceError):
                if remove_folder(self._adb, self.folder, even_interrupted=True):
                    return True
        _LOG.warning(
            "The folder %s remains on %s, which is away. The next run of mvtool on that phone from this computer removes it; or "
            "run: adb -s %s shell rm -r %s",
            self.folder,
            self._adb.serial,
            self._adb.serial,
            self.folder,
        )
        return False

    def put(self, source: Path, name: str, executable: bool = False) -> None:
        """Copy a file there and compare its SHA-256.

        Raises:
            DeviceError: The phone is gone, its disk is full, or the bytes differ.
        """
        self._adb.push(source, self._path(name), executable)

    def get(self, name: str) -> bytes:
        """Content of a file of the folder.

        Raises:
            DeviceError: The phone is gone.
            RunnerError: There is no such file.
        """
        content = self._adb.pull(self._path(name))
        if content is None:
            raise RunnerError(
                f"The runner on {self._adb.serial} ended well but wrote no {name}. Nothing was recorded. Run it again; if it stays "
                "so, build the runner anew with `mvtool bench --build-runner`."
            )
        return content

    def remove(self, name: str) -> None:
        """Delete a file of the folder, if it is there."""
        self._adb.shell(["rm", "-f", self._path(name)])

    def execute(self, program: str, arguments: tuple[str, ...], environment: dict[str, str], timeout_s: float) -> str:
        """Run a program of the folder, in the folder, to its end, under the phone's own `timeout`.

        Returns:
            What it printed on stdout and stderr.

        Raises:
            RunnerError: It crashed, ended with another status than 0, or was ended after `timeout_s`.
            DeviceError: The phone is gone.
        """
        seconds = math.ceil(timeout_s)
        variables = {"LD_LIBRARY_PATH": self.folder, **environment}
        words = ["timeout", "-k", str(_KILL_AFTER_S), str(seconds), "env"]
        words += [f"{name}={value}" for name, value in variables.items()]
        words += [f"./{check_relative(program)}", *arguments]
        began = time.monotonic()
        script = f"cd {self.folder} && touch {OWNER_FILE} && exec {shlex.join(words)}"
        limit_s = seconds + _KILL_AFTER_S + _TRANSPORT_S
        done = self._adb.script(script, limit_s, f"The run of {program}")
        if done.status != 0:
            raise _failure(program, self._adb.serial, done, seconds, time.monotonic() - began)
        return done.output

    def _path(self, name: str) -> str:
        return f"{self.folder}/{check_relative(name)}"


def _failure(program: str, serial: str, done: Finished, limit_s: int, took_s: float) -> RunnerError:
    """The error of a program that did not end with status 0."""
    status, told = done.status, f"Nothing was recorded. It printed: {_tail(done.output)}"
    if status in _TIMEOUT_STATUSES and took_s >= limit_s - _MARGIN_S:
        return RunnerError(
            f"{program} on {serial} did not end within {limit_s} s and was ended (status {status}). {told}. If the model is that "
            "slow there, ask for fewer invokes; otherwise it hangs."
        )
    if status == _SIGKILL_STATUS:
        return RunnerError(
            f"{program} on {serial} was killed by the phone after {took_s:.0f} s (SIGKILL), usually for lack of memory. {told}. Close "
            "the apps there, or measure a smaller model."
        )
    if status in _RUNNER_STATUSES:
        return RunnerError(f"{program} on {serial} refused (status {status}). {told}")
    if status in _CANNOT_EXECUTE:
        return RunnerError(
            f"{program} on {serial} cannot be executed (status {status}). {told}. It must be compiled for Android and the phone's "
            "instruction set: use `mvtool bench --build-runner --ndk DIR`."
        )
    if status > 128:
        return RunnerError(
            f"{program} on {serial} crashed with {_signal_name(status - 128)} after {took_s:.1f} s. {told}"
        )
    return RunnerError(f"{program} on {serial} ended with status {status}, expected 0. {told}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _tail(text: str) -> str:
    return " | ".join(line for line in text.strip().splitlines()[-_TAIL_LINES:] if line) or "nothing"
