"""An Android phone as a device, over adb."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from mvtool.android_bench.adb import Adb
from mvtool.android_bench.device_state import phone_facts, phone_reading
from mvtool.android_bench.phone_folders import remove_folder, remove_leftovers
from mvtool.android_bench.phone_workspace import RETURN_S, PhoneWorkspace
from mvtool.bench.device import Runner
from mvtool.bench.record import DeviceFacts, Moment, Reading
from mvtool.errors import DeviceError, ToolchainError
from mvtool.ports import Runtime

_FACTS: Final = {
    "getprop": "getprop",
    "meminfo": "cat /proc/meminfo",
    "present": "cat /sys/devices/system/cpu/present",
    "cpuinfo": "cat /proc/cpuinfo",
}
_CPUFREQ = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq"
_READING: Final = {
    "battery": "dumpsys battery",
    "thermalservice": "dumpsys thermalservice",
    "clocks": f"grep -sH '' {_CPUFREQ}/scaling_cur_freq {_CPUFREQ}/scaling_governor",
    "loadavg": "cat /proc/loadavg",
}
_HOT_STATUS = 4  # THERMAL_STATUS_CRITICAL of android.os.PowerManager
_SECTION = "== mvtool section "
_OLDEST_API = 26

Compile = Callable[[Runtime, str], Runner]
"""Finds or compiles the runner for a runtime and an instruction set of Android, for example `arm64-v8a`."""


class Phone:
    """`mvtool.bench.device.Device` over adb.

    Args:
        adb: Bound to the phone.
        provide: Finds or compiles the runner; without it there is none.
        return_s: How long the removal of a run's folder waits for a phone that is away.
    """

    def __init__(self, adb: Adb, provide: Compile | None = None, return_s: float = RETURN_S) -> None:
        self.adb = adb
        self._provide = provide
        self._facts: DeviceFacts | None = None
        self._runners: dict[Runtime, Runner] = {}
        self._last: Reading | None = None
        self._return_s = return_s
        self._remaining: set[str] = set()
        self._open = 0

    @property
    def emulated(self) -> bool:
        """Its instructions are interpreted, so that neither time nor memory means anything."""
        return self.facts().emulated

    def facts(self) -> DeviceFacts:
        """What it is; asked once.

        Raises:
            DeviceError: It cannot be reached, or does not tell what mvtool must know.
        """
        if self._facts is None:
            sections = self._ask(_FACTS)
            facts = phone_facts(self.adb.serial, sections)
            if not facts.abi or not facts.memory_bytes:
                raise DeviceError(
                    f"{self.adb.serial} does not tell its instruction set or memory (getprop ro.product.cpu.abi: {facts.abi!r}, "
                    f"/proc/meminfo: {facts.memory_bytes} bytes). Expected Android 8 (API {_OLDEST_API}) or newer; restart the phone."
                )
            self._facts = facts
        return self._facts

    def runner(self, runtime: Runtime) -> Runner:
        """The runner for `runtime` and this phone's instruction set.

        Raises:
            ToolchainError: There is none.
            DeviceError: The phone cannot be reached.
        """
        if runtime not in self._runners:
            if self._provide is None:
                raise ToolchainError(
                    f"There is no {runtime} runner for {self.facts().abi}. Give one with --runner BIN --lib FILE.so, or let mvtool "
                    "compile it with --ndk DIR."
                )
            self._runners[runtime] = self._provide(runtime, self.facts().abi)
        return self._runners[runtime]

    def reading(self, moment: Moment, time_s: float) -> Reading:
        """Temperatures, battery and clocks now.

        Raises:
            DeviceError: It cannot be reached; if it was last seen very hot, the message says so.
        """
        with self._hot():
            self._last = phone_reading(moment, time_s, self._ask(_READING))
        return self._last

    @contextmanager
    def workspace(self) -> Iterator[PhoneWorkspace]:
        """A new folder; what killed runs left is removed first.

        Raises:
            DeviceError: It cannot be made, or another process of this computer measures the phone.
        """
        # One that has begun goes on: whoever comes later finds its folder, and leaves.
        alone = not self._open
        remove_leftovers(self.adb, alone)
        self._remaining = {folder for folder in self._remaining if not remove_folder(self.adb, folder)}
        space = PhoneWorkspace.create(self.adb, self._return_s, alone)
        self._open += 1
        try:
            with self._hot():
                yield space
        finally:
            self._open -= 1
            if not space.close(self._return_s):
                self._remaining.add(space.folder)

    def interrupt(self) -> None:
        """End what another thread does with this phone; its folder is removed as after an error."""
        self.adb.interrupt()

    @contextmanager
    def _hot(self) -> Iterator[None]:
        """Tell with a lost device that it was hot when it was last seen: the likely reason that it is gone."""
        try:
            yield
        except DeviceError as error:
            last = self._last
            if (
                last is None
                or last.thermal_status is None
                or last.thermal_status < _HOT_STATUS
                or "thermal" in str(error)
            ):
                raise
            raise DeviceError(
                f"{error} When it was last read its thermal status was {last.thermal_status} (5 is emergency, 6 shutdown), so it may "
                "have switched itself off. Let it cool down, and use --max-temperature."
            ) from error

    def _ask(self, commands: dict[str, str]) -> dict[str, str]:
        """Text of each command; of one that fails, what it printed, which no parser takes for an answer."""
        script = "\n".join(
            f"echo '{_SECTION}{name}'; {command} 2>/dev/null; echo" for name, command in commands.items()
        )
        parts = self.adb.script(script).output.split(_SECTION)[1:]
        return {name: text for name, _, text in (part.partition("\n") for part in parts)}
