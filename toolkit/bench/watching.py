"""Readings of a device while a long launch goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from mvtool.bench.device import Device
from mvtool.bench.record import Moment, Reading
from mvtool.errors import DeviceError

LOOK_EVERY_S = 10.0
"""Rare enough that reading, itself a process on the device, does not show among the samples."""
_LOG = logging.getLogger(__name__)


class Clock(Protocol):
    """Seconds since the record was begun."""

    @property
    def now_s(self) -> float:
        """Seconds."""
        ...


@contextmanager
def watching(device: Device, clock: Clock, readings: list[Reading], *, active: bool) -> Iterator[None]:
    """Add a reading to `readings` every `LOOK_EVERY_S` seconds while the block runs.

    Args:
        device: What is read.
        clock: Times the readings.
        readings: Grows.
        active: Without it, nothing is read.
    """
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK_EVERY_S):
            try:
                readings.append(device.reading(Moment.DURING, round(clock.now_s, 3)))
            except DeviceError as error:
                # The launch itself finds out whether the device is lost.
                _LOG.info("A reading failed: %s", error)

    thread = threading.Thread(target=look, daemon=True)
    if active:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if active:
            thread.join()
