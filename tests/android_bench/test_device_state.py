"""What phones print, verbatim, to numbers; see captures/README.md for where it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvtool.android_bench.device_state import (
    Battery,
    Clocks,
    Thermal,
    host_reading,
    parse_battery,
    parse_clocks,
    parse_cores,
    parse_getprop,
    parse_load_average,
    parse_meminfo,
    parse_thermal_zones,
    parse_thermalservice,
    phone_facts,
    phone_reading,
)
from mvtool.bench.record import Moment

CAPTURES = Path(__file__).parent / "captures"


def capture(name: str) -> str:
    return (CAPTURES / name).read_text()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("battery_pixel_c.txt", Battery(19.0, True, 27.5)),
        # 53.4 degrees further down is the hottest that this battery ever was.
        ("battery_samsung.txt", Battery(100.0, True, 30.9)),
        ("battery_redmi.txt", Battery(80.0, True, 36.4)),
    ],
)
def test_batteries(name: str, expected: Battery) -> None:
    assert parse_battery(capture(name)) == expected


def test_an_event_log_after_a_blank_line_or_without_one_is_not_the_battery() -> None:
    state = "Current Battery Service state:\n  USB powered: false\n  level: 50\n  scale: 200\n  temperature: 305\n"
    log = "08-16 18:18:06.811  Sending ACTION_BATTERY_CHANGED: level:12\n  level: 12\n  temperature: 489\n"
    expected = Battery(25.0, False, 30.5)
    assert parse_battery(state + "\n" + log) == expected
    assert parse_battery(state + log) == expected
    assert parse_battery("some warning\n" + state) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Can't find service: battery",
        "Current Battery Service state:",
        "Current Battery Service state:\n  level: x\n  temperature: nan",
        "Current Battery Service state:\n  level: 101\n  scale: 100\n  temperature: -990",
        "Current Battery Service state:\n  level: 5\n  scale: 0\n",
    ],
)
def test_a_battery_that_tells_nothing_of_use(text: str) -> None:
    assert parse_battery(text) == Battery(None, None, None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "thermalservice_samsung_hidl.txt",
            Thermal(0, {"TYPE_CPU": 24.0, "TYPE_BATTERY": 24.4, "TYPE_SKIN": 25.3, "TYPE_USB_PORT": 24.2}),
        ),
        (
            "thermalservice_samsung_aidl.txt",
            Thermal(0, {"AP": 34.6, "BAT": 25.2, "PA": 30.0, "SKIN": 28.2, "USB": 25.8}),
        ),
        (
            "thermalservice_virtual_sensors.txt",
            Thermal(
                0,
                {
                    "TPU": 25.000002,
                    "G3D": 26.000002,
                    "BIG": 26.000002,
                    "LITTLE": 27.000002,
                    "cellular-emergency": 24.83324,
                    "VIRTUAL-SKIN": 24.83324,
                    "battery": 22.1,
                },
            ),
        ),
    ],
)
def test_temperatures(name: str, expected: Thermal) -> None:
    """Cached values, voltages, currents, differences and sensors that are not fitted are left out."""
    assert parse_thermalservice(capture(name)) == expected


def test_a_throttled_device() -> None:
    found = parse_thermalservice(capture("thermalservice_throttled.txt"))
    assert found.status == 2
    assert found.temperatures_c["skin"] == 44.637
    assert found.temperatures_c["battery"] == 43.8, "25.0 is the cached value"
    assert len(found.temperatures_c) == 11


def test_temperatures_that_cannot_be() -> None:
    values = {"nan": "NaN", "infinite": "Infinity", "hot": "3000.0", "cold": "-273.15", "good": "35.5", "word": "s"}
    lines = [f"\tTemperature{{mValue={value}, mType=0, mName={name}, mStatus=0}}" for name, value in values.items()]
    twice = "\tTemperature{mValue=36.5, mType=0, mName=good, mStatus=0}"
    text = "\n".join(["Current temperatures from HAL:", *lines, twice])
    assert parse_thermalservice(text) == Thermal(None, {"good": 36.5})


def test_no_thermal_service() -> None:
    assert parse_thermalservice("Can't find service: thermalservice") == Thermal(None, {})


def test_properties() -> None:
    found = parse_getprop(capture("getprop_nexus5.txt"))
    assert found["ro.boot.serialno"] == "07e401a0d00b3699"
    assert found["ro.build.date"] == "Tue Jan  6 22:40:00 UTC 2015"
    assert parse_getprop("[a]: [b]]: [c]\n[empty]: []\nno property") == {"a": "b]]: [c", "empty": ""}


def test_memory_is_in_units_of_1024_bytes() -> None:
    assert parse_meminfo("MemTotal:        7841012 kB\nMemFree: 12 kB\n") == 8_029_196_288
    assert parse_meminfo("cat: /proc/meminfo: Permission denied") == 0


@pytest.mark.parametrize(
    ("present", "cpuinfo", "cores"),
    [
        ("0-7\n", "processor\t: 0\n", 8),
        ("0", "", 1),
        ("0-3,6", "", 5),
        ("", "processor\t: 0\nBogoMIPS\t: 38\n\nprocessor\t: 1\n", 2),
        ("", "", 1),
    ],
)
def test_cores(present: str, cpuinfo: str, cores: int) -> None:
    assert parse_cores(present, cpuinfo) == cores


def test_clocks_are_in_the_order_of_processors() -> None:
    folder = "/sys/devices/system/cpu"
    text = (
        f"{folder}/cpu10/cpufreq/scaling_cur_freq:2850000\n{folder}/cpu2/cpufreq/scaling_cur_freq:1704000\n"
        f"{folder}/cpu3/cpufreq/scaling_cur_freq:<unknown>\n{folder}/cpu2/cpufreq/scaling_governor:sched_pixel\n"
    )
    found = parse_clocks(text)
    assert found == Clocks({"cpu2": 1_704_000, "cpu10": 2_850_000}, {"cpu2": "sched_pixel"})
    assert list(found.frequencies_khz) == ["cpu2", "cpu10"]


def test_thermal_zones_of_one_type_are_told_apart() -> None:
    zones = {0: ("acpitz", "27800"), 1: ("x86_pkg_temp", "45000"), 2: ("acpitz", "29800"), 3: ("iwlwifi", "-274000")}
    text = "\n".join(
        f"/sys/class/thermal/thermal_zone{number}/{kind}:{value}"
        for number, values in zones.items()
        for kind, value in zip(("type", "temp"), values, strict=True)
    )
    assert parse_thermal_zones(text) == {"acpitz-0": 27.8, "x86_pkg_temp": 45.0, "acpitz-2": 29.8}


def test_load() -> None:
    assert parse_load_average("3.25 0.80 0.50 2/1234 5678\n") == 3.25
    assert parse_load_average("") is None
    assert parse_load_average("cat: no") is None


def test_facts_of_a_phone() -> None:
    getprop = (
        "[ro.product.manufacturer]: [Google]\n[ro.product.model]: [Pixel 8]\n[ro.soc.model]: [Tensor G3]\n"
        "[ro.product.cpu.abi]: [arm64-v8a]\n[ro.build.version.release]: [14]\n[ro.build.version.sdk]: [34]\n"
        "[ro.build.fingerprint]: [google/shiba/shiba:14/X/1:user/release-keys]\n[ro.serialno]: [37281FDJH]\n"
    )
    facts = phone_facts("192.168.1.7:5555", {"getprop": getprop, "meminfo": "MemTotal: 100 kB", "present": "0-8"})
    assert facts.name == "Google Pixel 8"
    assert (facts.serial, facts.soc, facts.abi) == ("37281FDJH", "Tensor G3", "arm64-v8a")
    assert (facts.os_version, facts.cores, facts.memory_bytes) == ("14 (API 34)", 9, 102_400)
    assert not facts.loopback
    assert not facts.emulated


def test_facts_that_an_old_phone_does_not_tell() -> None:
    facts = phone_facts("usb", {"getprop": capture("getprop_nexus5.txt")})
    assert facts.soc is None
    assert facts.serial == "07e401a0d00b3699"
    assert facts.memory_bytes == 0


@pytest.mark.parametrize(
    ("line", "loopback", "emulated"),
    [
        ("[ro.mvtool.loopback]: [1]", True, False),
        ("[ro.mvtool.emulated]: [1]", False, True),
        ("[ro.kernel.qemu]: [1]", False, True),
        ("[ro.boot.qemu]: [0]", False, False),
    ],
)
def test_stand_ins_are_marked(line: str, loopback: bool, emulated: bool) -> None:
    facts = phone_facts("x", {"getprop": line})
    assert (facts.loopback, facts.emulated) == (loopback, emulated)


def test_a_name_does_not_repeat_its_maker() -> None:
    line = "[ro.product.manufacturer]: [OnePlus]\n[ro.product.model]: [ONEPLUS A6003]"
    assert phone_facts("x", {"getprop": line}).name == "ONEPLUS A6003"


def test_a_reading_takes_what_is_told() -> None:
    sections = {
        "battery": capture("battery_redmi.txt"),
        "thermalservice": capture("thermalservice_throttled.txt"),
        "clocks": "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor:walt",
        "loadavg": "5.5 4 3 1/2 3",
    }
    found = phone_reading(Moment.DURING, 12.5, sections)
    assert (found.moment, found.time_s) == (Moment.DURING, 12.5)
    assert (found.battery_percent, found.charging, found.battery_c) == (80.0, True, 36.4)
    assert (found.thermal_status, found.temperatures_c["skin"]) == (2, 44.637)
    assert (found.governors, found.frequencies_khz, found.load_average) == ({"cpu0": "walt"}, {}, 5.5)
    nothing = phone_reading(Moment.AFTER, 0.0, {})
    assert nothing.model_dump(exclude={"moment", "time_s"}) == {
        "battery_percent": None,
        "charging": None,
        "battery_c": None,
        "thermal_status": None,
        "temperatures_c": {},
        "frequencies_khz": {},
        "governors": {},
        "load_average": None,
    }


def test_a_host_is_read_from_its_files(tmp_path: Path) -> None:
    files = {
        "proc/loadavg": "0.50 0.4 0.3 1/2 3\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
        "sys/class/thermal/thermal_zone0/temp": "45500\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = host_reading(Moment.BEFORE, 0.0, tmp_path)
    assert found.temperatures_c == {"x86_pkg_temp": 45.5}
    assert (found.frequencies_khz, found.governors) == ({"cpu0": 2_400_000}, {"cpu0": "performance"})
    assert found.load_average == 0.5
    assert host_reading(Moment.BEFORE, 0.0, tmp_path / "empty").temperatures_c == {}
