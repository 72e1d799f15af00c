"""Compressed constants (`constexpr_*`), which are decompressed once at load time."""

from __future__ import annotations

import math

import numpy as np
import torch

from mvtool.runtimes.mlprogram.dtypes import DType, bit_width
from mvtool.runtimes.mlprogram.operators.quantization import scale_and_zero_point
from mvtool.runtimes.mlprogram.packing import unpack_bits
from mvtool.runtimes.mlprogram.registry import Call, Kernel, operator


@operator("constexpr_affine_dequantize")
def affine_dequantize(call: Call) -> Kernel:
    """`scale * (quantized_data - zero_point)` along `axis`."""
    data = call.tensor("quantized_data")
    call.axis("axis", data.rank)
    scale, zero_point = scale_and_zero_point(call, data)
    if zero_point is None:
        raise call.error("it has no zero_point")
    call.bind(scale)
    call.bind(zero_point)
    return lambda data, scale, zero_point: (data.to(torch.float32) - zero_point) * scale


@operator("constexpr_blockwise_shift_scale")
def blockwise_shift_scale(call: Call) -> Kernel:
    """`scale * (data - offset)`, where every element of scale and offset serves one block of data."""
    data, scale = call.tensor("data"), call.tensor("scale")
    offset = call.optional_tensor("offset")
    if data.rank != scale.rank or (offset is not None and offset.shape != scale.shape):
        raise call.error(f"scale {scale} or offset {offset} does not fit {data}")
    if 0 in scale.shape or any(d % s for d, s in zip(data.shape, scale.shape, strict=True)):
        raise call.error(f"blocks of scale {scale} do not divide {data}")
    blocks = [d // s for d, s in zip(data.shape, scale.shape, strict=True)]

    def kernel(data: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor | None) -> torch.Tensor:
        values = data.to(torch.float32)
        values = values if offset is None else values - _spread(offset, blocks)
        return values * _spread(scale, blocks)

    return kernel


def _spread(part: torch.Tensor, blocks: list[int]) -> torch.Tensor:
    for axis, block in enumerate(blocks):
        part = part.repeat_interleave(block, axis) if block > 1 else part
    return part


@operator("constexpr_cast")
def constexpr_cast(call: Call) -> Kernel:
    """fp16 numbers as fp32."""
    source = call.tensor("source_val").dtype
    call.text("output_dtype", ("fp32",))
    if source is not DType.FP16 or call.output.dtype is not DType.FP32:
        raise call.error(f"a cast from {source} to {call.output} is not supported")
    return lambda x: x.clone()


@operator("constexpr_lut_to_dense", exact=True)
def lut_to_dense(call: Call) -> Kernel:
    """Look indices up in one or more tables; up to iOS 17 the indices are packed bits of a given shape."""
    if call.has("shape"):
        return _packed_lut(call)
    indices, lut = call.tensor("indices"), call.tensor("lut")
    if lut.rank != indices.rank + 2 or lut.shape[-2] != 1 << bit_width(indices.dtype):
        raise call.error(f"a table {lut} does not fit {indices}")
    if any(t == 0 or i % t for i, t in zip(indices.shape, lut.shape[:-2], strict=True)):
        raise call.error(f"groups of the table {lut} do not divide {indices}")
    width = lut.shape[-1]
    axis = call.axis("vector_axis", indices.rank) if width > 1 or call.has("vector_axis") else 0
    blocks = [i // t for i, t in zip(indices.shape, lut.shape[:-2], strict=True)]

    def kernel(indices: torch.Tensor, lut: torch.Tensor) -> torch.Tensor:
        tables = _spread(lut, blocks)
        chosen = indices.to(torch.int64)[..., None, None].expand(*indices.shape, 1, width)
        vectors = torch.gather(tables, -2, chosen).squeeze(-2)
        return vectors.movedim(-1, axis + 1).flatten(axis, axis + 1)

    return kernel


def _packed_lut(call: Call) -> Kernel:
    lut = call.tensor("lut")
    shape = call.integers("shape")
    bits = lut.size.bit_length() - 1
    count = math.prod(shape)
    packed = call.array("indices")
    if lut.rank != 1 or lut.size != 1 << bits or not 1 <= bits <= 8 or packed.dtype != np.uint8:
        raise call.error(f"a table {lut} with indices of {packed.dtype} is not supported")
    if packed.ndim != 1 or packed.size != (count * bits + 7) // 8:
        raise call.error(f"{packed.size} bytes do not hold {count} indices of {bits} bits")
    call.bind(torch.from_numpy(unpack_bits(packed, bits, count).astype(np.int64)))
    return lambda lut, indices: lut.index_select(0, indices).reshape(shape)


@operator("constexpr_sparse_to_dense", exact=True)
def sparse_to_dense(call: Call) -> Kernel:
    """Put the non-zero elements where the mask is set; up to iOS 17 the mask is packed bits of a given shape."""
    data = call.tensor("nonzero_data")
    mask = call.array("mask")
    shape = call.integers("shape", list(mask.shape))
    count = math.prod(shape)
    if call.has("shape"):
        if mask.dtype != np.uint8 or mask.size != (count + 7) // 8:
            raise call.error(f"{mask.size} bytes do not hold a mask of {count} bits")
        mask = unpack_bits(mask.reshape(-1), 1, count)
    where = np.flatnonzero(mask)
    if data.rank != 1 or data.size != where.size:
        raise call.error(f"the mask sets {where.size} elements, but the data are {data}")
    call.bind(torch.from_numpy(where))

    def kernel(data: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        return torch.zeros(count, dtype=data.dtype, device=data.device).index_copy(0, where, data).reshape(shape)

    return kernel
