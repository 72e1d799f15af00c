"""Waiting until a device has cooled down, and refusing one that is about to switch itself off."""

from __future__ import annotations

import time
from collections.abc import Callable

from mvtool.bench.device import Device
from mvtool.bench.record import Moment, Reading
from mvtool.errors import DeviceError

EMERGENCY = 5
"""Android's THERMAL_STATUS_EMERGENCY; 6 is shutdown (android.os.PowerManager)."""
LOOK_EVERY_S = 5.0


def warmth_c(reading: Reading) -> float | None:
    """The temperature that a gate goes by: the skin's where it is told, else the battery's, else the warmest sensor's."""
    skin = [value for name, value in reading.temperatures_c.items() if "skin" in name.lower()]
    if skin:
        return max(skin)
    if reading.battery_c is not None:
        return reading.battery_c
    return max(reading.temperatures_c.values(), default=None)


def wait_until_cool(
    device: Device,
    limit_c: float,
    timeout_s: float,
    *,
    tell: Callable[[float], None] = lambda celsius: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Return once the device is no warmer than `limit_c`.

    Args:
        device: This machine or a phone.
        limit_c: Degrees Celsius.
        timeout_s: Longest wait.
        tell: Told of the temperature at each look.
        sleep: Waits.
        clock: Seconds.

    Raises:
        DeviceError: It tells no temperature, or stays too warm.
    """
    began = clock()
    while True:
        celsius = warmth_c(device.reading(Moment.BEFORE, 0.0))
        if celsius is None:
            raise DeviceError(
                "The device tells no temperature, so --max-temperature cannot be kept. Leave the option out, and let the "
                "device rest between runs."
            )
        if celsius <= limit_c:
            return
        if clock() - began >= timeout_s:
            raise DeviceError(
                f"The device has {celsius:.1f} degrees after {timeout_s:.0f} seconds of waiting; --max-temperature asks for "
                f"{limit_c:g}. Nothing was recorded. Let it cool, take it off the charger, or raise the limit."
            )
        tell(celsius)
        sleep(LOOK_EVERY_S)


def refuse_emergency(reading: Reading) -> None:
    """Refuse a device that throttles so hard that it is about to switch off.

    Raises:
        DeviceError: Its thermal status is 5 or 6.
    """
    if reading.thermal_status is not None and reading.thermal_status >= EMERGENCY:
        raise DeviceError(
            f"The device reports thermal status {reading.thermal_status} (5 is emergency, 6 shutdown). Nothing was recorded. "
            "Let it cool down, and use --max-temperature."
        )
