"""Which devices adb sees, and which of them is meant."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mvtool.android_bench.adb import Adb
from mvtool.android_bench.adb_failures import explain
from mvtool.android_bench.adb_program import Ended, kill_group, start_process
from mvtool.errors import DeviceError

_ANSWER_S = 30.0  # the server may have to start first


@dataclass(frozen=True)
class Connected:
    """One line of `adb devices -l`: `serial`, `state` (`device` where it can be used) and `description`."""

    serial: str
    state: str
    description: str


def start_server(program: Path, variables: Mapping[str, str] | None = None) -> None:
    """Start adb's server if none runs, so that no later command with a short limit has to.

    Raises:
        DeviceError: It does not start.
    """
    ended = _call(program, ["start-server"], variables)
    if ended.status != 0:
        raise explain("adb's server", "Its start", ended.status, ended.errors)


def devices(program: Path, variables: Mapping[str, str] | None = None) -> tuple[Connected, ...]:
    """What `adb devices -l` lists, usable or not.

    Raises:
        DeviceError: adb's server does not start or answer.
    """
    start_server(program, variables)
    ended = _call(program, ["devices", "-l"], variables)
    if ended.status != 0:
        raise explain("adb's server", "The list of devices", ended.status, ended.errors)
    return parse_devices(ended.output.decode(errors="replace"))


def parse_devices(text: str) -> tuple[Connected, ...]:
    """Lines of `adb devices` or `adb devices -l`; a state of several words (`no permissions (...)`) is one state."""
    _, _, listed = text.partition("List of devices attached")
    found = []
    for line in listed.splitlines():
        words = line.split(None, 1)
        if len(words) == 2:
            state = re.split(r"\s+(?=\w+:\S)|[;(]", words[1], maxsplit=1)[0].strip()
            found.append(Connected(words[0], state, words[1][len(state) :].strip()))
    return tuple(found)


def choose(serial: str | None, program: Path, variables: Mapping[str, str] | None = None) -> Adb:
    """adb for the device that was asked for, or for the only one.

    Raises:
        DeviceError: None is connected; several are, and no serial was given; the serial is not there; or the device
            cannot be used. The message says what to do.
    """
    listed = devices(program, variables)
    names = "; ".join(f"{device.serial} ({device.state})" for device in listed) or "none"
    if not listed:
        raise DeviceError(
            f"No phone is connected{f' (asked for {serial})' if serial else ''}: `adb devices` lists none. Connect one by "
            "USB with USB debugging switched on in its developer options, or by `adb connect HOST:PORT`."
        )
    matching = [device for device in listed if serial in (None, device.serial)]
    if not matching:
        raise DeviceError(
            f"No phone with serial {serial} is connected; connected: {names}. Use --device android:SERIAL."
        )
    usable = [device for device in matching if device.state == "device"]
    if serial is None and len(listed) > 1:
        raise DeviceError(
            f"{len(listed)} phones are connected and no serial was given: {names}. Choose one with --device android:SERIAL."
        )
    if not usable:
        raise explain(matching[0].serial, "The connection", 1, f"device {matching[0].state}", matching[0].description)
    return Adb(program, usable[0].serial, variables)


def _call(program: Path, words: list[str], variables: Mapping[str, str] | None) -> Ended:
    process = start_process([str(program), *words], {**os.environ, **(variables or {})})
    try:
        output, errors = process.communicate(timeout=_ANSWER_S)
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"`adb {' '.join(words)}` did not end within {_ANSWER_S:g} s. Run `adb kill-server`, and try again."
        ) from error
    finally:
        kill_group(process)
    return Ended(process.returncode, output, errors.decode(errors="replace"))
