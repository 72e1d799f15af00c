"""Element types of ML programs.

Names are those that `cast(dtype=...)` and `quantize(output_dtype=...)` use; numbers are the enum
`DataType` of `MIL.proto` in coremltools 9.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np


class DType(StrEnum):
    """Element type of a tensor in an ML program."""

    BOOL = "bool"
    STRING = "string"
    FP16 = "fp16"
    FP32 = "fp32"
    FP64 = "fp64"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    INT4 = "int4"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT1 = "uint1"
    UINT2 = "uint2"
    UINT3 = "uint3"
    UINT4 = "uint4"
    UINT6 = "uint6"


DTYPE_OF_PROTO: dict[int, DType] = {
    1: DType.BOOL,
    2: DType.STRING,
    10: DType.FP16,
    11: DType.FP32,
    12: DType.FP64,
    21: DType.INT8,
    22: DType.INT16,
    23: DType.INT32,
    24: DType.INT64,
    25: DType.INT4,
    31: DType.UINT8,
    32: DType.UINT16,
    33: DType.UINT32,
    35: DType.UINT4,
    36: DType.UINT2,
    37: DType.UINT1,
    38: DType.UINT6,
    39: DType.UINT3,
}

# Types narrower than a byte are held in one byte each once they are decoded.
_NUMPY: dict[DType, tuple[type[np.generic], int]] = {
    DType.BOOL: (np.bool_, 8),
    DType.FP16: (np.float16, 16),
    DType.FP32: (np.float32, 32),
    DType.FP64: (np.float64, 64),
    DType.INT8: (np.int8, 8),
    DType.INT16: (np.int16, 16),
    DType.INT32: (np.int32, 32),
    DType.INT64: (np.int64, 64),
    DType.INT4: (np.int8, 4),
    DType.UINT8: (np.uint8, 8),
    DType.UINT16: (np.uint16, 16),
    DType.UINT32: (np.uint32, 32),
    DType.UINT1: (np.uint8, 1),
    DType.UINT2: (np.uint8, 2),
    DType.UINT3: (np.uint8, 3),
    DType.UINT4: (np.uint8, 4),
    DType.UINT6: (np.uint8, 6),
}

FLOATS = frozenset({DType.FP16, DType.FP32, DType.FP64})


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """Type of the decoded array, little-endian; `KeyError` for strings."""
    return np.dtype(_NUMPY[dtype][0]).newbyteorder("<")


def bit_width(dtype: DType) -> int:
    """Bits per element in a weight file; `KeyError` for strings."""
    return _NUMPY[dtype][1]


@dataclass(frozen=True)
class TensorType:
    """Element type and static shape; a scalar has shape `()`."""

    dtype: DType
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __str__(self) -> str:
        """Return for example `fp32[1, 3, 8, 8]`."""
        return f"{self.dtype.value}{list(self.shape)}"
