"""A run's folder on a phone, and the programs that run there.

Each run has `/data/local/tmp/mvtool-<32 hexadecimal digits>`. It holds a file that says which process of which computer it
belongs to, so that what a killed process left can be removed at the next start: folders of this computer whose
process is gone at once, those of other computers when no process works there and nothing in them changed for an hour.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import re
import secrets
import shlex
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from mvtool.android_bench.adb import Adb, Finished
from mvtool.errors import DeviceError, RunnerError
from mvtool.files import check_relative

ROOT: Final = "/data/local/tmp"
OWNER_FILE: Final = "owner.json"
RETURN_S: Final = 10.0
"""How long a removal waits for a phone that is away; adb's server reconnects one on a network within about 2 s."""

_PREFIX = "mvtool-"
_KILL_AFTER_S = 5  # between SIGTERM and SIGKILL of the phone's `timeout`
_TRANSPORT_S = 20.0  # adb gets so much longer than the phone's own limit
_MARGIN_S = 1.0
_FOREIGN_MINUTES = 60
_TAIL_LINES = 12
# Statuses of the runner's own failures, from sysexits.h: usage, library, model, run, input and output.
_RUNNER_STATUSES = range(64, 69)
_CANNOT_EXECUTE = (126, 127)
_TIMEOUT_STATUSES = (124, 137, 143)  # toybox before Android 11 reports the signal itself
_SIGKILL_STATUS = 137
_GONE = ".gone"
_FOLDER = re.compile(rf"{ROOT}/{_PREFIX}[0-9a-f]{{32}}({re.escape(_GONE)})?")
# Under its new name nothing can begin in the folder any more; a process may start another one while they are looked at.
_REMOVE = f"""[ -e {{name}} ] && mv {{name}} {{name}}{_GONE}
found=1 looks=0
while [ "$found" ] && [ $looks -lt 50 ]; do
  found= looks=$((looks+1))
  for p in /proc/[0-9]*; do [ "$p/cwd" -ef {{name}}{_GONE} ] && kill -9 "${{{{p#/proc/}}}}" && found=1; done 2>/dev/null
done
rm -rf {{name}}{_GONE}
[ ! -e {{name}} ] && [ ! -e {{name}}{_GONE} ]"""
# Per folder: its name, what of it is in use, and its owner. `-ef` compares without a process for each of the phone's hundreds.
_LOOK = f"""for d in {ROOT}/{_PREFIX}*; do
  [ -d "$d" ] || continue
  used=$(find "$d" -maxdepth 1 -mmin -{_FOREIGN_MINUTES})
  for p in /proc/[0-9]*; do [ "$p/cwd" -ef "$d" ] && used=process; done
  echo "$d|${{used:+used}}|$(cat "$d/{OWNER_FILE}" 2>/dev/null)"
done"""
_LOG = logging.getLogger(__name__)


class PhoneWorkspace:
    """`mvtool.bench.device.Workspace` on a phone; made by `create`, removed by `close`."""

    def __init__(self, adb: Adb, folder: str) -> None:
        """Use a folder that is there."""
        self._adb = adb
        self.folder = folder

    @classmethod
    def create(cls, adb: Adb, return_s: float = RETURN_S) -> PhoneWorkspace:
        """Make a new folder, in one step with the file that says whose it is.

        Args:
            adb: Bound to the phone.
            return_s: As for `close`, should that fail half-way.

        Raises:
            DeviceError: It cannot be made.
        """
        folder = f"{ROOT}/{_PREFIX}{secrets.token_hex(16)}"
        owner = shlex.quote(json.dumps(_this_process()))
        try:
            made = adb.script(f"mkdir {folder} && printf %s {owner} > {folder}/{OWNER_FILE}")
            if made.status != 0:
                raise DeviceError(
                    f"The folder {folder} could not be made on {adb.serial}: {_tail(made.output)}. mvtool needs a place for its "
                    "files there; free space on the phone, or check whether it restricts /data/local/tmp."
                )
        except BaseException:
            cls(adb, folder).close(return_s)
            raise
        return cls(adb, folder)

    def close(self, return_s: float = RETURN_S) -> bool:
        """End what still runs in the folder, and remove it; waits `return_s` for a phone that is away.

        Returns:
            Whether it is gone. If not, a warning names it; the next run on this phone removes it.
        """
        for attempt in range(2):
            self._adb.resume()
            if attempt and not self._adb.wait(return_s):
                break
            with suppress(DeviceError):
                if remove_folder(self._adb, self.folder):
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


def remove_folder(adb: Adb, folder: str) -> bool:
    """End the processes that work in a folder of the phone, and remove it; whether it is gone.

    After a lost connection or a killed computer the runner goes on until its own limit of time.

    Raises:
        DeviceError: The phone is gone.
    """
    name = shlex.quote(folder.removesuffix(_GONE))
    return adb.script(_REMOVE.format(name=name)).status == 0


def remove_leftovers(adb: Adb) -> tuple[str, ...]:
    """Remove folders of runs that were killed; returns their names.

    Raises:
        DeviceError: The phone is gone.
    """
    removed = []
    for line in adb.script(_LOOK).output.splitlines():
        folder, in_use, owner = [*line.split("|", 2), "", ""][:3]
        if _FOLDER.fullmatch(folder) and _is_left_over(owner, bool(in_use)) and remove_folder(adb, folder):
            _LOG.info("Removed %s, left on %s by a run that was killed.", folder, adb.serial)
            removed.append(folder)
    return tuple(removed)


def _is_left_over(text: str, in_use: bool) -> bool:
    """Whether nobody needs a folder any more.

    Args:
        text: Of its owner file; empty if there is none.
        in_use: A process works there, or something in it changed within the last hour.
    """
    this = _this_process()
    try:
        owner: dict[str, Any] = json.loads(text)
        if (owner["host"], owner["boot"]) == (this["host"], this["boot"]):
            return bool(_started(int(owner["pid"])) != owner["started"])
    except (ValueError, KeyError, TypeError):
        pass
    return not in_use


def _this_process() -> dict[str, Any]:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": platform.node(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def _started(pid: int) -> str | None:
    """What tells a process from a later one with its number: the time of its start where the system says it; None if gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        if Path("/proc/self").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


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
