"""A bounds-checked reader for FlatBuffers, the container of `.tflite` and `.pte` files.

A table starts with the signed distance back to its vtable; the vtable holds its own length, the
table's length and one 16-bit slot per field (https://flatbuffers.dev/internals/). Reading by our own
means makes a truncated file an error instead of a crash, and needs no generated code.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from mvtool.errors import RuntimeLoadError


class Table:
    """One table of a FlatBuffer; fields are addressed by their number in the schema."""

    def __init__(self, data: memoryview, position: int) -> None:
        """Read the vtable of the table at byte `position` of `data`."""
        self._data = data
        self._position = position
        self._vtable = position - _unpack(data, "<i", position)
        self._fields = (_unpack(data, "<H", self._vtable) - 4) // 2

    @classmethod
    def root(cls, data: memoryview) -> Table:
        """The root table of a buffer."""
        return cls(data, _unpack(data, "<I", 0))

    def _field(self, number: int) -> int | None:
        if number >= self._fields:
            return None
        offset = _unpack(self._data, "<H", self._vtable + 4 + 2 * number)
        return self._position + offset if offset else None

    def scalar(self, number: int, form: str, default: int = 0) -> int:
        """A number; `form` is its `struct` letter."""
        position = self._field(number)
        return default if position is None else _unpack(self._data, f"<{form}", position)

    def table(self, number: int) -> Table | None:
        """A sub-table, `None` if absent."""
        position = self._field(number)
        return None if position is None else Table(self._data, _follow(self._data, position))

    def tables(self, number: int) -> Iterator[Table]:
        """The elements of a vector of tables."""
        start, length = self._vector(number)
        for index in range(length):
            yield Table(self._data, _follow(self._data, start + 4 * index))

    def numbers(self, number: int, form: str) -> tuple[float, ...]:
        """A vector of numbers."""
        start, length = self._vector(number)
        layout = f"<{length}{form}"
        _need(self._data, start, struct.calcsize(layout))
        return struct.unpack_from(layout, self._data, start)

    def bytes(self, number: int) -> memoryview:
        """A vector of bytes, without copying."""
        start, length = self._vector(number)
        _need(self._data, start, length)
        return self._data[start : start + length]

    def text(self, number: int) -> str:
        """A string, empty if absent."""
        return str(self.bytes(number), "utf-8", "replace")

    def _vector(self, number: int) -> tuple[int, int]:
        position = self._field(number)
        if position is None:
            return 0, 0
        start = _follow(self._data, position)
        return start + 4, _unpack(self._data, "<I", start)


def _follow(data: memoryview, position: int) -> int:
    return position + _unpack(data, "<I", position)


def _unpack(data: memoryview, form: str, position: int) -> int:
    _need(data, position, struct.calcsize(form))
    value: int = struct.unpack_from(form, data, position)[0]
    return value


def _need(data: memoryview, position: int, count: int) -> None:
    if position < 0 or position + count > len(data):
        raise RuntimeLoadError(
            f"The file is truncated or damaged: its tables refer to bytes {position}..{position + count} "
            f"of {len(data)}. Convert the model again."
        )
