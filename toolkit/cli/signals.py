"""SIGTERM and SIGHUP, by which CI systems and closed terminals end a command, clean up as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGTERM", "SIGHUP")
GRACE_S = 5.0
"""Time in which further signals do not disturb the cleaning up."""


class Ended(KeyboardInterrupt):
    """A signal asks the process to end. Whatever cleans up after Ctrl-C does so now too.

    Attributes:
        status: Exit status, 128 and the number of the signal, as shells report it.
    """

    def __init__(self, number: int) -> None:
        """Of the signal `number`."""
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.status = 128 + number


@contextmanager
def ending() -> Iterator[None]:
    """Raise `Ended` in the main thread when a signal asks the process to end.

    A signal that is ignored, as SIGHUP under `nohup`, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last_s = float("-inf")

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if now_s - last_s >= GRACE_S:
            last_s = now_s
            raise Ended(number)

    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            if before[number] is signal.SIG_DFL:
                signal.signal(number, end)
        yield
    finally:
        for number in numbers:
            if before[number] is signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
