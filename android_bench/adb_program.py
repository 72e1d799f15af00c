"""The adb program itself: where it is, and how its processes are started and ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mvtool.errors import DeviceError


@dataclass(frozen=True)
class Ended:
    """A process that ended: its exit `status` (negative for a signal), what it printed, and its `errors`."""

    status: int
    output: bytes
    errors: str

    @property
    def texts(self) -> str:
        """What `adb push` and `pull` said, which goes to both: without their progress, `[ 12%] ...`."""
        lines = f"{self.errors}\n{self.output.decode(errors='replace')}".replace("\r", "\n").splitlines()
        return "\n".join(line for line in lines if not line.startswith("["))


def find_program(given: Path | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """The adb program: the given one, else $ADB, else that of $ANDROID_HOME or $ANDROID_SDK_ROOT, else that on PATH.

    Raises:
        DeviceError: There is none, or the given one cannot be executed.
    """
    name = "adb.exe" if os.name == "nt" else "adb"
    named = given or (Path(environment["ADB"]) if environment.get("ADB") else None)
    if named is not None:
        found = shutil.which(str(named), path=environment.get("PATH"))
        if found is None:
            raise DeviceError(
                f"adb was looked for at {named} ({'the option' if given else '$ADB'}), which is no program that can be "
                "executed. Name the program itself, for example .../platform-tools/adb."
            )
        return Path(found)
    homes = [environment[key] for key in ("ANDROID_HOME", "ANDROID_SDK_ROOT") if environment.get(key)]
    candidates = [shutil.which(name, path=str(Path(home) / "platform-tools")) for home in homes]
    for found in [*candidates, shutil.which(name, path=environment.get("PATH"))]:
        if found is not None:
            return Path(found)
    raise DeviceError(
        "adb was not found: not by $ADB, not in platform-tools of $ANDROID_HOME, not on PATH. Install Android's platform-tools "
        "(Debian and Ubuntu: apt install adb; macOS: brew install android-platform-tools), or name it with --adb."
    )


def start_process(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own, with nothing to read.

    Raises:
        DeviceError: It cannot be started.
    """
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
    except OSError as error:
        raise DeviceError(
            f"{command[0]} could not be started: {error.strerror}. Name another adb with --adb."
        ) from error


def signal_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and what it started; it leads a group of its own. Whoever reads from it then sees its end."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it started, if it still runs, and close its pipes."""
    if process.poll() is None:
        signal_group(process)
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
