"""The weight file of an `.mlpackage`.

Layout, version 2, little-endian, everything aligned to 64 bytes. Source: `StorageFormat.hpp` and
`BlobDataType.hpp` of MILBlob in the coremltools repository.

    header (64 bytes)    uint32 count, uint32 version, 56 reserved bytes
    metadata (64 bytes)  uint32 sentinel 0xDEADBEEF, uint32 type, uint64 size_in_bytes,
                         uint64 offset of the data, uint64 padding_size_in_bits, 32 reserved bytes
    data                 `size_in_bytes` bytes

A program refers to a constant by the offset of its metadata.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvtool.errors import ManifestError
from mvtool.runtimes.mlprogram.dtypes import DType, TensorType, bit_width, numpy_dtype
from mvtool.runtimes.mlprogram.packing import unpack_bits

ALIGNMENT_BYTES = 64
SENTINEL = 0xDEADBEEF
VERSION = 2
_HEADER = struct.Struct("<II56x")
_METADATA = struct.Struct("<IIQQQ32x")

_DTYPE_OF_BLOB = {
    1: DType.FP16,
    2: DType.FP32,
    3: DType.UINT8,
    4: DType.INT8,
    6: DType.INT16,
    7: DType.UINT16,
    8: DType.INT4,
    9: DType.UINT1,
    10: DType.UINT2,
    11: DType.UINT4,
    12: DType.UINT3,
    13: DType.UINT6,
    14: DType.INT32,
    15: DType.UINT32,
}


class WeightFile:
    """A weight file, read once and checked at every access.

    Args:
        path: The file, usually `weight.bin`.

    Raises:
        ManifestError: The file is missing, too short, or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._data = path.read_bytes()
        except OSError as error:
            raise ManifestError(f"The weight file {path} cannot be read: {error}. Convert the model again.") from error
        if len(self._data) < _HEADER.size:
            raise self._damaged(f"it has {len(self._data)} bytes, its header alone has {_HEADER.size}")
        self.count, version = _HEADER.unpack_from(self._data)
        if version != VERSION:
            raise self._damaged(f"its format version is {version}, expected {VERSION}")

    def read(self, offset: int, expected: TensorType) -> NDArray[Any]:
        """Decode the constant whose metadata is at `offset`.

        Args:
            offset: Position of the metadata in the file, in bytes.
            expected: Type that the program declares for the constant.

        Returns:
            Array of `expected.shape`; elements narrower than a byte take one byte each.

        Raises:
            ManifestError: The metadata or the data do not lie in the file, or contradict `expected`.
        """
        start, size = self._locate(offset, expected)
        bits = bit_width(expected.dtype)
        if size != (expected.size * bits + 7) // 8:
            raise self._damaged(f"the constant at {offset} has {size} bytes, which do not make {expected}")
        raw = np.frombuffer(self._data, np.uint8, size, start)
        if bits < 8:
            values = unpack_bits(raw, bits, expected.size, signed=expected.dtype is DType.INT4)
            return values.reshape(expected.shape)
        return raw.view(numpy_dtype(expected.dtype)).reshape(expected.shape)

    def _locate(self, offset: int, expected: TensorType) -> tuple[int, int]:
        """Return position and size of the data, in bytes."""
        if offset % ALIGNMENT_BYTES or not _HEADER.size <= offset <= len(self._data) - _METADATA.size:
            raise self._damaged(f"offset {offset} does not name a constant in {len(self._data)} bytes")
        sentinel, kind, size, start, _padding = _METADATA.unpack_from(self._data, offset)
        if sentinel != SENTINEL:
            raise self._damaged(f"the mark at {offset} is {sentinel:#x}, expected {SENTINEL:#x}")
        if _DTYPE_OF_BLOB.get(kind) is not expected.dtype:
            found = _DTYPE_OF_BLOB.get(kind, f"unknown type {kind}")
            raise self._damaged(f"the constant at {offset} is stored as {found}, the program says {expected.dtype}")
        if start % ALIGNMENT_BYTES or start < offset + _METADATA.size or start + size > len(self._data):
            raise self._damaged(f"the data of {offset} would lie at {start}..{start + size} of {len(self._data)} bytes")
        return start, size

    def _damaged(self, what: str) -> ManifestError:
        return ManifestError(f"The weight file {self.path} is damaged: {what}. Convert the model again.")
