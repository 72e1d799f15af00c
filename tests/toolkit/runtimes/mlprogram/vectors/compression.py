"""Compressed constants up to iOS 17, whose operands are attributes: expectations by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

TARGET = "iOS17"

CASES: list[Any] = [
    (
        "constexpr_affine_dequantize",
        [],
        lambda mb: mb.constexpr_affine_dequantize(
            quantized_data=np.array([[-128, 0, 127], [1, 2, 3]], np.int8),
            scale=np.array([0.5, 2.0], np.float32),
            zero_point=np.array([0, -1], np.int8),
            axis=0,
        ),
        np.array([[-64.0, 0.0, 63.5], [4.0, 6.0, 8.0]]),
    ),
    (
        "constexpr_affine_dequantize",
        [],
        lambda mb: mb.constexpr_affine_dequantize(
            quantized_data=np.arange(12, dtype=np.uint8).reshape(3, 4),
            scale=np.float32(0.5),
            zero_point=np.uint8(4),
            axis=1,
        ),
        np.arange(12).reshape(3, 4) * 0.5 - 2,
    ),
    (
        "constexpr_cast",
        [],
        lambda mb: mb.constexpr_cast(source_val=np.array([1 / 3, 2.5], np.float16), output_dtype="fp32"),
        np.array([1365 / 4096, 2.5]),
    ),
    (
        "constexpr_lut_to_dense",
        [],
        # The documented example: bytes 0b01101100 and 0b00000011 hold the indices 0, 3, 2, 1, 3.
        lambda mb: mb.constexpr_lut_to_dense(
            indices=np.array([0b01101100, 0b00000011], np.uint8),
            lut=np.array([10.0, 11.0, 12.0, 13.0], np.float32),
            shape=np.array([5], np.uint32),
        ),
        np.array([10, 13, 12, 11, 13]),
    ),
    (
        "constexpr_sparse_to_dense",
        [],
        lambda mb: mb.constexpr_sparse_to_dense(
            nonzero_data=np.array([7.0, 8.0], np.float32),
            mask=np.array([0b01100], np.uint8),
            shape=np.array([5], np.uint32),
        ),
        np.array([0, 0, 7, 8, 0]),
    ),
]
