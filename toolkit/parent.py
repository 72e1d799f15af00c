"""A worker process ends when the process that started it is gone, however that ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

PARENT_VARIABLE = "MVTOOL_PARENT"
"""Environment variable with the process number of the parent of a worker."""
_PR_SET_PDEATHSIG = 1
_LOOK_EVERY_S = 1.0


def as_parent() -> dict[str, str]:
    """What a parent adds to the environment of its workers."""
    return {PARENT_VARIABLE: str(os.getpid())}


def end_with_parent(told_by_kernel: bool = sys.platform == "linux") -> None:
    """Let this process be killed as soon as its parent has ended; without `as_parent` nothing is done.

    A parent that was killed itself, for lack of memory for example, cannot end its workers.

    Args:
        told_by_kernel: Linux sends the signal; elsewhere a thread looks at the parent once a second.
    """
    parent = int(os.environ.get(PARENT_VARIABLE, "0"))
    if not parent or os.name != "posix":
        return
    if told_by_kernel:
        told_by_kernel = ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0
    if os.getppid() != parent:
        sys.exit("The process that started this worker is gone.")
    if not told_by_kernel:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    os.kill(os.getpid(), signal.SIGKILL)
