"""How this process gets memory from the system."""

from __future__ import annotations

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 2**31 - 1
_LARGE = 2**30


def keep_freed_memory() -> bool:
    """Let this process use freed memory again in place of giving it back to the system.

    glibc maps large arrays anew each time, and the system clears their pages again: on steps of 64 frames of 224 x 224, PyTorch
    spent half of its processor time so. For processes that step one model and end; those held a tenth more.

    Returns:
        Whether the C library took it; others than glibc have no such setting.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        # No such function, or no library of this process, as on Windows.
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGE)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT))
