"""What a shared library of Linux or Android calls itself and needs, read from its dynamic section.

Field offsets are those of `Elf64_Ehdr`, `Elf64_Phdr` and `Elf64_Dyn` in elf.h; phones of today are 64-bit and
little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from mvtool.errors import UsageError

_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRINGS, _SONAME = 1, 5, 14


@dataclass(frozen=True)
class SharedLibrary:
    """Names in a library.

    Attributes:
        soname: What programs that are linked with it ask for; its file name where it has none of its own.
        needed: Libraries that it asks for.
    """

    soname: str
    needed: tuple[str, ...]


@dataclass(frozen=True)
class _Segment:
    kind: int
    offset: int
    address: int
    bytes: int


def shared_library(path: Path) -> SharedLibrary:
    """Read the names of a library.

    Raises:
        UsageError: It cannot be read, or is no 64-bit shared library.
    """
    try:
        data = path.read_bytes()
        segments = _segments(data)
        entries = _entries(data, next(s for s in segments if s.kind == _DYNAMIC))
        strings = _at_address(segments, next(value for tag, value in entries if tag == _STRINGS))
        names = [(tag, _text(data, strings + value)) for tag, value in entries if tag in (_NEEDED, _SONAME)]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. Give the file itself.") from error
    except (struct.error, StopIteration, ValueError) as error:
        raise UsageError(f"{path} is no shared library for 64-bit Android or Linux. Give the .so itself.") from error
    soname = next((name for tag, name in names if tag == _SONAME), path.name)
    return SharedLibrary(soname, tuple(name for tag, name in names if tag == _NEEDED))


def _segments(data: bytes) -> list[_Segment]:
    # 64-bit, little-endian.
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no ELF file of that class")
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    found = []
    for number in range(count):
        at = start + number * size
        (kind,) = struct.unpack_from("<I", data, at)
        offset, address, _, length = struct.unpack_from("<QQQQ", data, at + 8)
        found.append(_Segment(kind, offset, address, length))
    return found


def _entries(data: bytes, dynamic: _Segment) -> list[tuple[int, int]]:
    return [struct.unpack_from("<qQ", data, dynamic.offset + at) for at in range(0, dynamic.bytes, 16)]


def _at_address(segments: list[_Segment], address: int) -> int:
    """Place in the file of an address in memory."""
    home = next(s for s in segments if s.kind == _LOAD and s.address <= address < s.address + s.bytes)
    return home.offset + address - home.address


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode("utf-8", "replace")
