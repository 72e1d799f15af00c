"""Resident memory by mapping, from text that the kernel wrote and from this process."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from mvtool.bench.mappings import HEAP, resident_kb

# Linux 6.18, mvtool-run-tflite, shortened: two parts of a library, a file with a blank in its name, the heap, and memory without a name.
SMAPS = """\
7f4b5c000000-7f4b5c021000 rw-p 00000000 00:00 0 
Size:                132 kB
Rss:                  24 kB
Pss:                  24 kB
7f4b60a00000-7f4b60b8b000 r--p 00000000 fd:00 1182 /tmp/run/libLiteRt.so
Rss:                1000 kB
7f4b60b8b000-7f4b61000000 r-xp 0018b000 fd:00 1182 /tmp/run/libLiteRt.so
Rss:                4000 kB
Pss:                4000 kB
7f4b62000000-7f4b62400000 r--p 00000000 fd:00 1183                       /tmp/run/my model.tflite (deleted)
Rss:                 192 kB
5566aa000000-5566aa400000 rw-p 00000000 00:00 0                          [heap]
Rss:                4056 kB
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
Rss:                   0 kB
"""


def test_files_by_name_and_all_else_as_heap() -> None:
    assert list(resident_kb(SMAPS).items()) == [("libLiteRt.so", 5000), (HEAP, 4080), ("my model.tflite", 192)]


def test_nothing_in_nothing() -> None:
    assert resident_kb("") == {}


def test_pages_of_a_file_that_were_read(tmp_path: Path) -> None:
    smaps = Path("/proc/self/smaps")
    if not smaps.exists():
        pytest.skip("Linux alone tells")
    path = tmp_path / "three hundred"
    path.write_bytes(bytes(300 << 10))
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert path.name not in resident_kb(smaps.read_text())
        assert sum(mapped[at] for at in range(0, len(mapped), mmap.PAGESIZE)) == 0
        assert resident_kb(smaps.read_text())[path.name] == 300
