"""Quantization of activations."""

from __future__ import annotations

import torch

from mvtool.runtimes.mlprogram.carriers import carrier_dtype
from mvtool.runtimes.mlprogram.dtypes import FLOATS, DType, TensorType
from mvtool.runtimes.mlprogram.registry import Call, Kernel, operator

_RANGE = {DType.INT8: (-128, 127), DType.UINT8: (0, 255)}


@operator("quantize")
def quantize(call: Call) -> Kernel:
    """`clip(round(input / scale) + zero_point)`; ties round to even."""
    x = call.tensor("input")
    target = call.output.dtype
    call.text("output_dtype", ("int8", "uint8"))
    if target not in _RANGE or x.dtype not in FLOATS:
        raise call.error(f"quantizing {x} to {target} is not supported")
    low, high = _RANGE[target]
    scale, zero_point = scale_and_zero_point(call, x)
    if bool((scale == 0).any()):
        raise call.error("a scale is zero")
    carrier = carrier_dtype(target)
    if zero_point is None:
        call.bind(scale)
        return lambda x, s: (x / s).round_().clamp_(low, high).to(carrier)
    call.bind(scale)
    call.bind(zero_point)
    return lambda x, s, z: (x / s).round_().add_(z).clamp_(low, high).to(carrier)


@operator("dequantize")
def dequantize(call: Call) -> Kernel:
    """`scale * (input - zero_point)`."""
    x = call.tensor("input")
    if x.dtype not in _RANGE:
        raise call.error(f"dequantizing {x} is not supported")
    scale, zero_point = scale_and_zero_point(call, x)
    call.bind(scale)
    if zero_point is None:
        return lambda x, s: x.to(torch.float32).mul_(s)
    call.bind(zero_point)
    return lambda x, s, z: x.to(torch.float32).sub_(z).mul_(s)


def scale_and_zero_point(call: Call, x: TensorType) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return `scale` and `zero_point` as float32, shaped to broadcast over `x` along `axis`."""
    scale = torch.from_numpy(call.array("scale").astype("float32"))
    zero_point = torch.from_numpy(call.array("zero_point").astype("float32")) if call.has("zero_point") else None
    given = [part for part in (scale, zero_point) if part is not None]
    if all(part.ndim == 0 for part in given):
        if call.has("axis"):
            call.axis("axis", x.rank)
        return scale, zero_point
    axis = call.axis("axis", x.rank)
    shape = [1] * x.rank
    shape[axis] = x.shape[axis]
    if any(part.ndim > 1 or part.numel() not in (1, x.shape[axis]) for part in given):
        raise call.error(f"scale or zero_point does not fit axis {axis} of {x}")
    spread = [part.reshape(shape) if part.numel() == x.shape[axis] else part.reshape(()) for part in given]
    return spread[0], spread[1] if zero_point is not None else None
