"""What a process holds in memory, by mapping, as `/proc/PID/smaps` of Linux tells it."""

from __future__ import annotations

import re
from collections import Counter

HEAP = "heap"
"""Anonymous memory, that of the C library's heap and what was mapped without a file."""
_HEAD = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S{4} [0-9a-f]+ \S+ \d+ *(?P<name>.*)")
_RSS = re.compile(r"Rss: +(?P<kb>\d+) kB")


def resident_kb(smaps: str) -> dict[str, int]:
    """Resident KiB of each mapped file, by its name without the folder, and of everything else as `HEAP`.

    Args:
        smaps: Content of the file.

    Returns:
        Only what holds at least a page, the largest first.
    """
    found: Counter[str] = Counter()
    name = HEAP
    for line in smaps.splitlines():
        if head := _HEAD.fullmatch(line):
            path = head["name"]
            name = path.removesuffix(" (deleted)").rpartition("/")[2] if path.startswith("/") else HEAP
        elif rss := _RSS.fullmatch(line):
            found[name] += int(rss["kb"])
    return {key: kb for key, kb in found.most_common() if kb > 0}
