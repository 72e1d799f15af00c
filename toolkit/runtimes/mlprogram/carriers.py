"""How values are held while a program runs.

A value of an ML program travels as a torch tensor, its *carrier*. fp16 travels as float32 numbers that
fp16 can represent: every operator computes in float32, sums of many terms in float64, and its result is
rounded to fp16. That is the stated model of fp16 arithmetic; hardware may round more often. Types for
which torch lacks arithmetic travel in the next wider signed type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mvtool.errors import RuntimeLoadError
from mvtool.runtimes.mlprogram.dtypes import DType, numpy_dtype

CARRIER: dict[DType, torch.dtype] = {
    DType.BOOL: torch.bool,
    DType.FP16: torch.float32,
    DType.FP32: torch.float32,
    DType.FP64: torch.float64,
    DType.INT8: torch.int8,
    DType.INT16: torch.int32,
    DType.INT32: torch.int32,
    DType.INT64: torch.int64,
    DType.INT4: torch.int8,
    DType.UINT8: torch.uint8,
    DType.UINT16: torch.int32,
    DType.UINT32: torch.int64,
    DType.UINT1: torch.uint8,
    DType.UINT2: torch.uint8,
    DType.UINT3: torch.uint8,
    DType.UINT4: torch.uint8,
    DType.UINT6: torch.uint8,
}

_NUMPY_CARRIER: dict[DType, np.dtype[Any]] = {
    DType.FP16: np.dtype(np.float32),
    DType.INT16: np.dtype(np.int32),
    DType.UINT16: np.dtype(np.int32),
    DType.UINT32: np.dtype(np.int64),
}


def carrier_dtype(dtype: DType) -> torch.dtype:
    """Torch type that holds values of `dtype`.

    Raises:
        RuntimeLoadError: `dtype` is not a number.
    """
    if dtype not in CARRIER:
        raise RuntimeLoadError(f"A value of type {dtype} cannot take part in a computation.")
    return CARRIER[dtype]


def to_carrier(array: NDArray[Any], dtype: DType) -> torch.Tensor:
    """Copy an array of the numpy type of `dtype` into its carrier."""
    if dtype is DType.FP16:
        # torch converts float16 five times as fast as numpy.
        return torch.from_numpy(np.array(array, dtype=np.float16, order="C", copy=True)).to(torch.float32)
    target = _NUMPY_CARRIER.get(dtype, numpy_dtype(dtype))
    return torch.from_numpy(np.array(array, dtype=target.newbyteorder("="), order="C", copy=True))


def from_carrier(tensor: torch.Tensor, dtype: DType) -> NDArray[Any]:
    """Copy a carrier into an array of the numpy type of `dtype`."""
    if dtype is DType.FP16:
        return np.array(tensor.to(torch.float16).numpy(), order="C", copy=True)
    # A copy: the tensor may be a view of a constant or of another output.
    return np.array(tensor.numpy(), dtype=numpy_dtype(dtype), order="C", copy=True)


def round_to_fp16(tensor: torch.Tensor) -> torch.Tensor:
    """Round float32 numbers to the nearest fp16 ones, ties to even, overflow to infinity."""
    return tensor.to(torch.float16).to(torch.float32)


def in_float64(kernel: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A kernel that computes in float64 what `kernel` computes in float32."""

    def wide(*operands: torch.Tensor | None) -> torch.Tensor:
        return kernel(*[None if operand is None else operand.double() for operand in operands]).float()

    return wide
