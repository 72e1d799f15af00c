"""What the texts of adb mean, and what to do about them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from mvtool.errors import DeviceError


class _Meaning(NamedTuple):
    pattern: re.Pattern[str]
    cause: str
    remedy: str


def _meaning(pattern: str, cause: str, remedy: str) -> _Meaning:
    return _Meaning(re.compile(pattern, re.IGNORECASE), cause, remedy)


# The first that fits counts; texts of adb 29.0.6 and 36.0.0, and of adbd's file service.
_MEANINGS: Final = (
    _meaning(
        r"no space left on device",
        "its disk is full",
        "Free space on the phone (`adb shell df /data` shows how much there is), and run it again.",
    ),
    _meaning(
        r"read-only file system",
        "that place can only be read",
        "mvtool writes to /data/local/tmp alone; check whether the phone's storage is damaged or encrypted and locked.",
    ),
    _meaning(
        r"unauthorized",
        "it has not allowed this computer to debug it",
        "Unlock the phone and confirm `Allow USB debugging?`; if nothing is asked, revoke the authorizations in its developer "
        "options, and reconnect it.",
    ),
    _meaning(
        r"no permissions|insufficient permissions",
        "this user may not open its USB device",
        "Add the udev rules for Android (Debian and Ubuntu: apt install android-sdk-platform-tools-common) and your user to the "
        "group plugdev, and reconnect it.",
    ),
    _meaning(
        r"device (still )?(offline|connecting|authorizing)|device .*is offline",
        "it is offline: connected, but not answering",
        "Wait some seconds; if it stays so, reconnect it, or run `adb reconnect offline`, and try again.",
    ),
    _meaning(
        r"device (sideload|recovery|bootloader|rescue|host)\b",
        "it has not started Android",
        "Start the phone normally, and try again.",
    ),
    _meaning(
        r"device ('[^']*' )?not found|no devices(/emulators)? found|unknown host service|no such device",
        "it is not connected any more",
        "Look whether it is switched on and listed by `adb devices`, reconnect it, and run it again.",
    ),
    _meaning(
        r"more than one device",
        "several devices answer to that name",
        "Disconnect all but one, or name it with --device android:SERIAL.",
    ),
    _meaning(
        r"cannot connect to daemon|failed to start daemon|failed to check server version|didn't ACK|"
        r"could not install \*smartsocket\* listener",
        "adb's server does not answer",
        "Run `adb kill-server`, and try again; two versions of adb on one computer end each other's server.",
    ),
    _meaning(
        r"protocol fault",
        "adb and the device disagree about the protocol",
        "Run `adb kill-server`, reconnect the phone, and try again; update adb if it stays so.",
    ),
    _meaning(
        r"permission denied|operation not permitted",
        "it refused: permission denied",
        "mvtool needs /data/local/tmp, which Android's shell may write; check whether the phone restricts it.",
    ),
    _meaning(
        r"does not exist|no such file",
        "there is no such file",
        "Run it again; if it stays so, look at the runner's output.",
    ),
)
_LOST = (
    "the connection to it was lost before that was complete",
    "Check the cable or the network, and whether the phone restarted (heat can switch it off); then run it again.",
)


def explain(serial: str, what: str, status: int, errors: str, output: str = "") -> DeviceError:
    """The error for a failure of adb.

    Args:
        serial: The device.
        what: What was tried, as the begin of a sentence.
        status: Exit status of adb, which is 0 for a lost connection with adb 29.
        errors: What adb printed on stderr.
        output: What came from the device until then.

    Returns:
        An error whose message says what failed, what was got and what to do. Text that is not known, and none at all,
        is a lost connection: that is what is left when a command ends without its mark.
    """
    told = errors.strip() or output.strip()
    cause, remedy = next(((m.cause, m.remedy) for m in _MEANINGS if m.pattern.search(errors)), _LOST)
    if (cause, remedy) == _LOST and not errors.strip():
        told = f"no end mark after {len(output)} characters{': ...' + _last_line(output) if output.strip() else ''}"
    return DeviceError(f"{what} on {serial} failed: {cause} (adb, status {status}: {_one_line(told)}). {remedy}")


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # `adb push` adds how fast it was to what went wrong.
    return " | ".join([line for line in lines if "error" in line] or lines)[-400:] or "no message"


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1][-120:]
