"""Integers narrower than a byte.

Elements are packed into a bit stream that starts at the least significant bit of the first byte; an
element may straddle two bytes. Source: docstring of `constexpr_lut_to_dense` (iOS 16) in coremltools
9.0, checked against files that coremltools wrote for 1, 2, 3, 4 and 6 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unpack_bits(data: NDArray[np.uint8], bits: int, count: int, signed: bool = False) -> NDArray[Any]:
    """Unpack `count` integers of `bits` bits each.

    Args:
        data: Packed bytes, at least `ceil(count * bits / 8)` of them.
        bits: Width of one element, 1 to 8.
        count: Number of elements.
        signed: Read two's complement.

    Returns:
        uint8, or int8 when `signed`, of shape `(count,)`.
    """
    stream = np.unpackbits(data, bitorder="little")[: count * bits].reshape(count, bits)
    weights = (1 << np.arange(bits, dtype=np.int16)).astype(np.int16)
    if signed:
        weights[-1] = -weights[-1]
    values = stream.astype(np.int16) @ weights
    return values.astype(np.int8 if signed else np.uint8)
