"""Letting go of the pages of a file that a runtime has mapped.

XNNPACK packs weights into memory of its own when a model is loaded. The pages of the file that it read them from stay resident,
although hardly any is read again, until the system needs the memory. What is still read comes back from the file.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from pathlib import Path

_MAPS = Path("/proc/self/maps")


def release(path: Path) -> int:
    """Give back the resident pages of all mappings of a file that this process can only read.

    Args:
        path: The file.

    Returns:
        Bytes of the mappings; 0 where the file is not mapped, and on systems other than Linux, where nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return 0
    library = ctypes.CDLL(None, use_errno=True)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    released = 0
    for start, length in _read_only(os.path.realpath(path)):
        if library.madvise(start, length, mmap.MADV_DONTNEED) == 0:
            released += length
    return released


def _read_only(name: str) -> list[tuple[int, int]]:
    """Start and length of mappings without the right to write: giving back pages that were written would lose them."""
    found = []
    for line in os.fsdecode(_MAPS.read_bytes()).splitlines():
        words = line.split(maxsplit=5)
        # The kernel writes a line break in a name as an octal number, and nothing else.
        if len(words) == 6 and words[5].replace("\\012", "\n") == name and "w" not in words[1]:
            start, end = (int(word, 16) for word in words[0].split("-"))
            found.append((start, end - start))
    return found
