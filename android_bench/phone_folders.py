"""The folders of runs on a phone: whose they are, and what is removed.

Each run has `/data/local/tmp/mvtool-<32 hexadecimal digits>`. It holds a file that says which process of which computer it
belongs to, so that what a killed process left can be removed at the next start: folders of this computer whose
process is gone at once, those of other computers when no process works there and nothing in them changed for an hour.
By the same file a phone is refused that another process of this computer measures.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import secrets
import shlex
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from mvtool.android_bench.adb import Adb
from mvtool.errors import DeviceError

ROOT: Final = "/data/local/tmp"
OWNER_FILE: Final = "owner.json"

_PREFIX = "mvtool-"
_FOREIGN_MINUTES = 60
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
# Per folder its name and owner.
_OWNERS = f"""for f in {ROOT}/{_PREFIX}*/{OWNER_FILE}; do echo "${{f%/*}}|$(cat "$f" 2>/dev/null)"; done"""
_LOG = logging.getLogger(__name__)


def new_name() -> str:
    """A folder that nobody has."""
    return f"{ROOT}/{_PREFIX}{secrets.token_hex(16)}"


def make_and_look(folder: str) -> str:
    """Script that makes a folder with its owner file, and prints name and owner of every folder.

    Of two processes that begin at the same moment, one at least finds the folder of the other.
    """
    owner = shlex.quote(json.dumps(this_process()))
    return f"mkdir {folder} && printf %s {owner} > {folder}/{OWNER_FILE} || exit\n{_OWNERS}"


def remove_folder(adb: Adb, folder: str, even_interrupted: bool = False) -> bool:
    """End the processes that work in a folder of the phone, and remove it; whether it is gone.

    After a lost connection or a killed computer the runner goes on until its own limit of time.

    Args:
        adb: Bound to the phone.
        folder: Of a run.
        even_interrupted: An interrupt neither refuses nor ends it.

    Raises:
        DeviceError: The phone is gone.
    """
    name = shlex.quote(folder.removesuffix(_GONE))
    return adb.script(_REMOVE.format(name=name), even_interrupted=even_interrupted).status == 0


def remove_leftovers(adb: Adb, alone: bool = False) -> tuple[str, ...]:
    """Remove folders of runs that were killed; returns their names.

    Args:
        adb: Bound to the phone.
        alone: Refuse a phone that another process of this computer measures; nothing is removed then.

    Raises:
        DeviceError: The phone is gone, or in use.
    """
    found = [(*line.split("|", 2), "", "")[:3] for line in adb.script(_LOOK).output.splitlines()]
    if alone:
        refuse_others(adb.serial, [(folder, owner) for folder, _, owner in found])
    removed = []
    for folder, in_use, owner in found:
        if _FOLDER.fullmatch(folder) and _is_left_over(owner, bool(in_use)) and remove_folder(adb, folder):
            _LOG.info("Removed %s, left on %s by a run that was killed.", folder, adb.serial)
            removed.append(folder)
    return tuple(removed)


def refuse_others(serial: str, owners: Iterable[tuple[str, str]]) -> None:
    """Refuse a phone where a folder belongs to another living process of this computer.

    Args:
        serial: The phone.
        owners: Folders, and the text of their owner files. One that is being removed disturbs nobody.
    """
    this = this_process()
    for folder, text in owners:
        if not _FOLDER.fullmatch(folder) or folder.endswith(_GONE):
            continue
        with suppress(ValueError, KeyError, TypeError):
            owner = json.loads(text)
            here = (owner["host"], owner["boot"]) == (this["host"], this["boot"])
            pid = int(owner["pid"])
            if here and pid != this["pid"] and started(pid) == owner["started"]:
                raise DeviceError(
                    f"{serial} is in use: process {pid} of this computer measures it, in {folder}. Two measurements at once "
                    f"falsify each other. Wait until that process ends, or end it (kill {pid}), and run it again."
                )


def _is_left_over(text: str, in_use: bool) -> bool:
    """Whether nobody needs a folder any more.

    Args:
        text: Of its owner file; empty if there is none.
        in_use: A process works there, or something in it changed within the last hour.
    """
    this = this_process()
    try:
        owner: dict[str, Any] = json.loads(text)
        if (owner["host"], owner["boot"]) == (this["host"], this["boot"]):
            return bool(started(int(owner["pid"])) != owner["started"])
    except (ValueError, KeyError, TypeError):
        pass
    return not in_use


def this_process() -> dict[str, Any]:
    """This process, as its owner files name it: computer, start of the computer, number, and start of the process."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": platform.node(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "pid": os.getpid(),
        "started": started(os.getpid()),
    }


def started(pid: int) -> str | None:
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
