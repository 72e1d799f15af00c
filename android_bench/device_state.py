"""What a phone or a Linux host tells of itself, from the text of its own commands and files.

All functions here are pure: text in, numbers out. Whatever a device does not tell, or tells as something that cannot
be, is None or absent; no parser raises. The formats are those of captures in `tests/android_bench/captures/`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from mvtool.bench.record import DeviceFacts, DeviceKind, Moment, Reading

_Value = TypeVar("_Value", int, str)

# android.os.Temperature: -1 is unknown (differences, virtual sensors), 6 to 8 are the battery's voltage, current and charge.
_NO_TEMPERATURES = frozenset({-1, 6, 7, 8})
# Sensors outside of this range are not there or broken: phones shut down long before 130, -99.9 is Samsung's "none".
_COLDEST_C, _HOTTEST_C = -40.0, 130.0
_TEMPERATURE = re.compile(r"Temperature\{mValue=([^,]+), mType=(-?\d+), mName=(.+), mStatus=\d+\}")
_PROPERTY = re.compile(r"^\[(?P<name>[^\]]+)\]: \[(?P<value>.*)\]$")
_CPU_FILE = re.compile(r"/(cpu\d+)/cpufreq/(scaling_cur_freq|scaling_governor):(.+)$")
_ZONE_FILE = re.compile(r"/(thermal_zone\d+)/(type|temp):(.+)$")

HOST_FILES: Final = (
    "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq",
    "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor",
    "sys/class/thermal/thermal_zone*/type",
    "sys/class/thermal/thermal_zone*/temp",
)
"""Files that `file_lines` reads for a host's clocks and temperatures, below its root."""


@dataclass(frozen=True)
class Battery:
    """`dumpsys battery`: `percent` of charge, whether it is `charging` (on power), and `temperature_c` in degrees Celsius."""

    percent: float | None = None
    charging: bool | None = None
    temperature_c: float | None = None


@dataclass(frozen=True)
class Thermal:
    """`dumpsys thermalservice`: throttling `status` from 0 (none) to 6 (shutdown), and sensor to degrees Celsius."""

    status: int | None = None
    temperatures_c: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Clocks:
    """Processor to its clock now in kHz, and to its frequency governor."""

    frequencies_khz: dict[str, int] = field(default_factory=dict)
    governors: dict[str, str] = field(default_factory=dict)


def parse_getprop(text: str) -> dict[str, str]:
    """Properties from the lines `[name]: [value]` of `getprop`."""
    matches = (_PROPERTY.match(line.strip()) for line in text.splitlines())
    return {match["name"]: match["value"] for match in matches if match}


def parse_meminfo(text: str) -> int:
    """Bytes of physical memory from `/proc/meminfo`, whose kB are 1024 bytes; 0 if it does not tell."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def parse_cores(present: str, cpuinfo: str) -> int:
    """Number of processors, at least 1.

    Args:
        present: `/sys/devices/system/cpu/present`, for example `0-7` or `0-3,6`.
        cpuinfo: `/proc/cpuinfo`, which leaves out those that are switched off; used where `present` is not told.
    """
    ranges = re.findall(r"(\d+)(?:-(\d+))?", present)
    listed = sum(int(last or first) - int(first) + 1 for first, last in ranges)
    return max(listed or len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)), 1)


def parse_battery(text: str) -> Battery:
    """The state at the head of `dumpsys battery`.

    Phones append logs whose lines hold the same words with old values, some after a blank line and some without;
    the state's own lines are indented by two blanks, so the first line after them that is not ends the state.
    """
    values: dict[str, str] = {}
    _, _, body = text.partition("Current Battery Service state:")
    for line in body.splitlines()[1:]:
        # Android 15 puts lines with one blank (" Time when the latest ...") between them.
        if not line.startswith(" "):
            break
        name, separator, value = line.strip().partition(": ")
        if separator and line.startswith("  "):
            values.setdefault(name, value.strip())
    level, scale = _number(values.get("level")), _number(values.get("scale", "100"))
    tenths = _number(values.get("temperature"))
    plugs = [value == "true" for name, value in values.items() if name.endswith(" powered")]
    return Battery(
        percent=100 * level / scale if level is not None and scale and 0 <= level <= scale else None,
        charging=any(plugs) if plugs else None,
        temperature_c=_plausible(tenths / 10) if tenths is not None else None,
    )


def parse_thermalservice(text: str) -> Thermal:
    """Status and current temperatures of `dumpsys thermalservice`.

    Only the block that the hardware layer fills now counts: the block `Cached temperatures` holds the values of the last
    change of status, which may be hours old. A sensor that appears twice keeps the higher value.
    """
    status = re.search(r"^\s*Thermal Status: (\d+)", text, re.MULTILINE)
    _, _, current = text.partition("Current temperatures from HAL:")
    current, _, _ = current.partition("Current cooling devices")
    temperatures: dict[str, float] = {}
    for value, kind, name in _TEMPERATURE.findall(current):
        number = _number(value)
        celsius = _plausible(number) if number is not None and int(kind) not in _NO_TEMPERATURES else None
        if celsius is not None:
            temperatures[name] = max(celsius, temperatures.get(name, celsius))
    return Thermal(status=int(status[1]) if status else None, temperatures_c=temperatures)


def parse_clocks(text: str) -> Clocks:
    """Clocks and governors from lines `path:content`, which `grep -H ''` prints for the files of cpufreq."""
    frequencies: dict[str, int] = {}
    governors: dict[str, str] = {}
    for cpu, kind, value in _matches(_CPU_FILE, text):
        if kind == "scaling_governor":
            governors[cpu] = value
        elif value.isdigit():
            frequencies[cpu] = int(value)
    return Clocks(_by_number(frequencies), _by_number(governors))


def parse_thermal_zones(text: str) -> dict[str, float]:
    """Sensor to degrees Celsius from lines `path:content` of `/sys/class/thermal`, where temperatures are in 0.001 degrees.

    Zones of one type are told apart by the number of their zone.
    """
    zones: dict[str, dict[str, str]] = {}
    for zone, kind, value in _matches(_ZONE_FILE, text):
        zones.setdefault(zone, {})[kind] = value
    kinds = [zone.get("type") for zone in zones.values()]
    temperatures: dict[str, float] = {}
    for zone, values in zones.items():
        number, kind = _number(values.get("temp")), values.get("type", zone)
        celsius = _plausible(number / 1000) if number is not None else None
        if celsius is not None:
            temperatures[kind if kinds.count(kind) <= 1 else f"{kind}-{zone.removeprefix('thermal_zone')}"] = celsius
    return temperatures


def parse_load_average(text: str) -> float | None:
    """Load of the last minute from `/proc/loadavg`."""
    words = text.split()
    number = _number(words[0]) if words else None
    return number if number is not None and number >= 0 else None


def file_lines(root: Path, patterns: Iterable[str] = HOST_FILES) -> str:
    """Lines `path:content` of files below `root`, as `grep -H ''` prints them; files that cannot be read are left out."""
    lines = []
    for path in sorted(path for pattern in patterns for path in root.glob(pattern)):
        try:
            lines.append(f"{path}:{path.read_text(errors='replace').strip()}")
        except OSError:
            continue
    return "\n".join(lines)


def phone_facts(serial: str, sections: Mapping[str, str]) -> DeviceFacts:
    """Facts of an Android device.

    Args:
        serial: As adb knows it; the one that the phone tells, if it does, is that of the phone by any cable or network.
        sections: Text of `getprop`, `meminfo`, `present` and `cpuinfo`.
    """
    properties = parse_getprop(sections.get("getprop", ""))

    def tell(*names: str) -> str:
        return next((properties[name] for name in names if properties.get(name)), "")

    maker, model = tell("ro.product.manufacturer"), tell("ro.product.model")
    name = tell("ro.product.marketname", "ro.product.model") or serial
    release, level = tell("ro.build.version.release"), tell("ro.build.version.sdk")
    return DeviceFacts(
        kind=DeviceKind.ANDROID,
        serial=tell("ro.serialno", "ro.boot.serialno") or serial,
        name=name if name.lower().startswith(maker.lower()) else f"{maker} {name}",
        manufacturer=maker,
        model=model,
        soc=tell("ro.soc.model") or None,
        abi=tell("ro.product.cpu.abi"),
        cores=parse_cores(sections.get("present", ""), sections.get("cpuinfo", "")),
        memory_bytes=parse_meminfo(sections.get("meminfo", "")),
        os="Android",
        os_version=f"{release} (API {level})" if level else release,
        build=tell("ro.build.fingerprint"),
        loopback=properties.get("ro.mvtool.loopback") == "1",
        emulated="1" in (properties.get(name) for name in ("ro.mvtool.emulated", "ro.kernel.qemu", "ro.boot.qemu")),
    )


def phone_reading(moment: Moment, time_s: float, sections: Mapping[str, str]) -> Reading:
    """State of an Android device now.

    Args:
        moment: When it was taken.
        time_s: Seconds after the record's `created`.
        sections: Text of `battery`, `thermalservice`, `clocks` and `loadavg`.
    """
    battery, thermal = (
        parse_battery(sections.get("battery", "")),
        parse_thermalservice(sections.get("thermalservice", "")),
    )
    clocks = parse_clocks(sections.get("clocks", ""))
    return Reading(
        moment=moment,
        time_s=time_s,
        battery_percent=battery.percent,
        charging=battery.charging,
        battery_c=battery.temperature_c,
        thermal_status=thermal.status,
        temperatures_c=thermal.temperatures_c,
        frequencies_khz=clocks.frequencies_khz,
        governors=clocks.governors,
        load_average=parse_load_average(sections.get("loadavg", "")),
    )


def host_reading(moment: Moment, time_s: float, root: Path = Path("/")) -> Reading:
    """State of a Linux host now; `root` is where its `/proc` and `/sys` are."""
    lines, loadavg = file_lines(root), root / "proc/loadavg"
    clocks = parse_clocks(lines)
    return Reading(
        moment=moment,
        time_s=time_s,
        temperatures_c=parse_thermal_zones(lines),
        frequencies_khz=clocks.frequencies_khz,
        governors=clocks.governors,
        load_average=parse_load_average(loadavg.read_text()) if loadavg.exists() else None,
    )


def _matches(pattern: re.Pattern[str], text: str) -> list[tuple[str, str, str]]:
    found = (pattern.search(line.strip()) for line in text.splitlines())
    return [(match[1], match[2], match[3]) for match in found if match]


def _by_number(values: dict[str, _Value]) -> dict[str, _Value]:
    return dict(sorted(values.items(), key=lambda item: int(item[0].removeprefix("cpu"))))


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _plausible(celsius: float) -> float | None:
    """None for what no sensor of a running device measures; exactly 0 is what a sensor says that is not fitted."""
    return celsius if _COLDEST_C < celsius < _HOTTEST_C and celsius != 0 else None
