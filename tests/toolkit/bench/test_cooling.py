"""The gate waits for a cool device, and says when it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_device import FakeDevice

from mvtool.bench.cooling import refuse_emergency, wait_until_cool, warmth_c
from mvtool.bench.record import Moment, Reading
from mvtool.errors import DeviceError


def reading(**fields: Any) -> Reading:
    return Reading(moment=Moment.BEFORE, time_s=0.0, **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"temperatures_c": {"VIRTUAL-SKIN": 33.5, "CPU0": 60.0}, "battery_c": 31.0}, 33.5),
        ({"temperatures_c": {"CPU0": 60.0}, "battery_c": 31.0}, 31.0),
        ({"temperatures_c": {"cpu": 48.0, "nvme": 40.0}}, 48.0),
        ({}, None),
    ],
)
def test_the_skin_goes_before_the_battery_before_the_processor(fields: dict[str, Any], expected: float | None) -> None:
    assert warmth_c(reading(**fields)) == expected


def cooling(tmp_path: Path, *celsius: float) -> FakeDevice:
    return FakeDevice(tmp_path, readings=[{"battery_c": value} for value in celsius])


def test_it_looks_until_the_device_is_cool(tmp_path: Path) -> None:
    told: list[float] = []
    waits: list[float] = []
    device = cooling(tmp_path, 41.0, 39.0, 36.9)
    wait_until_cool(device, 37.0, 60.0, tell=told.append, sleep=waits.append, clock=lambda: sum(waits))
    assert told == [41.0, 39.0]
    assert len(waits) == 2


def test_a_device_that_stays_warm_is_refused(tmp_path: Path) -> None:
    waits: list[float] = []
    with pytest.raises(DeviceError, match=r"41\.0 degrees after 60 seconds.*asks for 37"):
        wait_until_cool(cooling(tmp_path, 41.0), 37.0, 60.0, sleep=waits.append, clock=lambda: sum(waits))
    assert sum(waits) == 60


def test_a_device_without_thermometer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="tells no temperature"):
        wait_until_cool(FakeDevice(tmp_path), 37.0, 60.0)


@pytest.mark.parametrize("status", [None, 0, 4])
def test_throttling_is_no_emergency(status: int | None) -> None:
    refuse_emergency(reading(thermal_status=status))


@pytest.mark.parametrize("status", [5, 6])
def test_emergency_and_shutdown_are(status: int) -> None:
    with pytest.raises(DeviceError, match=f"status {status}"):
        refuse_emergency(reading(thermal_status=status))
