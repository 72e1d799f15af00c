"""Quantization and compressed constants of iOS 18: expectations by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

X = np.array([[-1.0, 0.25, 0.75, 100.0], [0.5, -0.5, 1.5, -100.0]], np.float32)
Q = np.array([[-128, 0, 5, 127], [1, 2, 3, 4]], np.int8)


def dequantized(mb: Any, x: Any, **parameters: Any) -> Any:
    dtype = "uint8" if parameters["zero_point"].dtype == np.uint8 else "int8"
    return mb.dequantize(input=mb.cast(x=x, dtype=dtype), **parameters)


CASES: list[Any] = [
    (
        "quantize",
        [X],
        lambda mb, x: (
            # 0.25 / 0.5 and 0.75 / 0.5 are ties and go to the even integer.
            mb.quantize(input=x, scale=np.float32(0.5), zero_point=np.int8(-3), output_dtype="int8"),
            mb.quantize(input=x, scale=np.float32(0.5), zero_point=np.uint8(10), output_dtype="uint8"),
            mb.quantize(input=x, scale=np.float32(0.5), output_dtype="int8"),
            mb.quantize(
                input=x,
                scale=np.array([0.5, 0.25], np.float32),
                zero_point=np.array([0, 1], np.int8),
                axis=0,
                output_dtype="int8",
            ),
        ),
        [
            np.array([[-5, -3, -1, 127], [-2, -4, 0, -128]]),
            np.array([[8, 10, 12, 210], [11, 9, 13, 0]]),
            np.array([[-2, 0, 2, 127], [1, -1, 3, -128]]),
            np.array([[-2, 0, 2, 127], [3, -1, 7, -128]]),
        ],
    ),
    (
        "dequantize",
        [Q.astype(np.int32)],
        lambda mb, x: (
            dequantized(mb, x, scale=np.float32(0.5), zero_point=np.int8(-3)),
            dequantized(
                mb, x, scale=np.array([1, 2, 3, 4], np.float32), zero_point=np.array([0, 1, 2, 3], np.int8), axis=1
            ),
        ),
        [
            np.array([[-62.5, 1.5, 4.0, 65.0], [2.0, 2.5, 3.0, 3.5]]),
            np.array([[-128.0, -2.0, 9.0, 496.0], [1.0, 2.0, 3.0, 4.0]]),
        ],
    ),
    (
        "constexpr_blockwise_shift_scale",
        [],
        lambda mb: mb.constexpr_blockwise_shift_scale(
            data=np.array([[-8, 7, 1, 2], [3, 4, 5, -6]]).astype(TYPES["int4"]),
            scale=np.array([[0.5, 2.0], [1.0, 0.25]], np.float32),
            offset=np.array([[1, 0], [-1, 2]]).astype(TYPES["int4"]),
        ),
        np.array([[-4.5, 3.0, 2.0, 4.0], [4.0, 5.0, 0.75, -2.0]]),
    ),
    (
        "constexpr_lut_to_dense",
        [],
        lambda mb: mb.constexpr_lut_to_dense(
            indices=np.array([2, 3, 3, 0, 1, 0, 3, 0, 2, 1, 0, 3]).reshape(6, 2).astype(TYPES["uint2"]),
            lut=np.array([1.0, 5.0, 9.0, 13.0, 2.0, 10.0, 18.0, 26.0], np.float32).reshape(2, 1, 4, 1),
        ),
        np.array([[9, 13], [13, 1], [5, 1], [26, 2], [18, 10], [2, 26]]),
    ),
    (
        "constexpr_lut_to_dense",
        [],
        lambda mb: mb.constexpr_lut_to_dense(
            indices=np.array([[[0, 0], [1, 0]], [[1, 1], [0, 0]]]).astype(TYPES["uint1"]),
            lut=np.array([[1, 2, 3], [-1, -2, -3]], np.float32).reshape(1, 1, 1, 2, 3),
            vector_axis=1,
        ),
        np.array(
            [
                [[1, 1], [2, 2], [3, 3], [-1, 1], [-2, 2], [-3, 3]],
                [[-1, -1], [-2, -2], [-3, -3], [1, 1], [2, 2], [3, 3]],
            ]
        ),
    ),
    (
        "constexpr_lut_to_dense",
        [],
        lambda mb: mb.constexpr_lut_to_dense(
            indices=np.array([7, 0, 5, 3, 1, 6, 2, 4, 4, 5, 6]).astype(TYPES["uint3"]),
            lut=np.arange(8, dtype=np.float32).reshape(1, 8, 1),
        ),
        np.array([7, 0, 5, 3, 1, 6, 2, 4, 4, 5, 6]),
    ),
    (
        "constexpr_lut_to_dense",
        [],
        lambda mb: mb.constexpr_lut_to_dense(
            indices=np.arange(63, 0, -5).astype(TYPES["uint6"]),
            lut=np.arange(64, dtype=np.float32).reshape(1, 64, 1),
        ),
        np.arange(63, 0, -5),
    ),
    (
        "constexpr_sparse_to_dense",
        [],
        lambda mb: mb.constexpr_sparse_to_dense(
            nonzero_data=np.array([3.0, 4.0, 5.0], np.float32),
            mask=np.array([[1, 0, 0], [0, 1, 1]]).astype(TYPES["uint1"]),
        ),
        np.array([[3, 0, 0], [0, 4, 5]]),
    ),
]

TYPES: dict[str, Any] = {}


def prepare() -> None:
    """Fetch the narrow integer types, which exist in coremltools only."""
    from coremltools.converters.mil.mil.types import type_mapping

    for name in ("int4", "uint1", "uint2", "uint3", "uint6"):
        TYPES[name] = type_mapping.nptype_from_builtin(type_mapping.string_to_builtin(name))
