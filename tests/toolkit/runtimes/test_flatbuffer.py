"""Reading FlatBuffers by hand-made bytes, whole and damaged."""

from __future__ import annotations

import struct

import pytest

from mvtool.errors import RuntimeLoadError
from mvtool.runtimes.flatbuffer import Table

# root -> table at 16; vtable at 4 with 3 fields: a uint32, nothing, a string.
BUFFER = (
    struct.pack("<I", 16)
    + struct.pack("<HHHHH", 10, 12, 4, 0, 8)
    + b"\0\0"
    + struct.pack("<iII", 16 - 4, 7, 4)
    + struct.pack("<I", 5)
    + b"hello\0\0\0"
)


def test_fields_by_number() -> None:
    table = Table.root(memoryview(BUFFER))
    assert table.scalar(0, "I") == 7
    assert table.scalar(1, "I", default=9) == 9
    assert table.scalar(12, "I", default=3) == 3
    assert table.text(2) == "hello"
    assert table.text(1) == ""
    assert table.table(1) is None
    assert list(table.tables(1)) == []
    assert table.numbers(2, "b") == tuple(b"hello")


@pytest.mark.parametrize("length", range(len(BUFFER) - 3))
def test_a_truncated_buffer_is_an_error_at_every_length(length: int) -> None:
    def read() -> str:
        table = Table.root(memoryview(BUFFER[:length]))
        table.scalar(0, "I")
        return table.text(2)

    with pytest.raises(RuntimeLoadError, match="truncated or damaged"):
        read()


def test_an_offset_out_of_the_file_is_an_error() -> None:
    damaged = BUFFER[:24] + struct.pack("<I", 1 << 30) + BUFFER[28:]
    with pytest.raises(RuntimeLoadError, match="truncated or damaged"):
        Table.root(memoryview(damaged)).text(2)
