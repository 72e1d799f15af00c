"""Convolutions of one to three spatial axes."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mvtool.runtimes.mlprogram.operators.padding import flat_padding, is_symmetric, window_padding
from mvtool.runtimes.mlprogram.registry import Call, Kernel, operator
from mvtool.runtimes.tap_sums import suits, tap_sums

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@operator("conv", wide=True)
def conv(call: Call) -> Kernel:
    """`x (N, C, *D)`, `weight (C_out, C / groups, *K)`, `bias (C_out,)`."""
    x, weight = call.tensor("x"), call.tensor("weight")
    call.optional_tensor("bias")
    spatial = _spatial_rank(call, x.rank)
    strides = call.integers("strides", [1] * spatial, spatial)
    dilations = call.integers("dilations", [1] * spatial, spatial)
    groups = call.integer("groups", 1)
    if weight.rank != x.rank:
        raise call.error(f"a weight {weight} does not fit an input {x}")
    window = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    padding = window_padding(call, x.shape[2:], window, strides)
    if groups > 1 and set(weight.shape[2:]) == set(strides) == {1} and not any(map(any, padding)):
        return _grouped_pointwise(x.shape, weight.shape, groups)
    compute, depthwise = _CONV[spatial], suits(weight.shape, groups)

    def kernel(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None, before: list[int]) -> torch.Tensor:
        if depthwise and x.dtype == torch.float64:
            return tap_sums(x, w, b, strides, before, dilations)
        return compute(x, w, b, strides, before, dilations, groups)

    if is_symmetric(padding):
        before = [amount for amount, _ in padding]
        return lambda x, w, b: kernel(x, w, b, before)
    margins = flat_padding(padding)
    return lambda x, w, b: kernel(F.pad(x, margins), w, b, [0] * spatial)


def _grouped_pointwise(shape: tuple[int, ...], weight: tuple[int, ...], groups: int) -> Kernel:
    """Return a kernel of batched matrix products, which torch computes several times faster than such convolutions.

    Streaming models have many of them: a depthwise convolution over buffered frames, folded into channels.
    """
    batch, channels, *extents = shape
    per_group, out = channels // groups, weight[0]

    def kernel(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        rows = x.reshape(batch, groups, per_group, -1)
        result = torch.matmul(w.reshape(1, groups, out // groups, per_group), rows).reshape(batch, out, *extents)
        return result if b is None else result + b.reshape(-1, *[1] * len(extents))

    return kernel


@operator("conv_transpose", wide=True)
def conv_transpose(call: Call) -> Kernel:
    """`x (N, C, *D)`, `weight (C, C_out / groups, *K)`, `bias (C_out,)`."""
    x, weight = call.tensor("x"), call.tensor("weight")
    call.optional_tensor("bias")
    spatial = _spatial_rank(call, x.rank)
    strides = call.integers("strides", [1] * spatial, spatial)
    dilations = call.integers("dilations", [1] * spatial, spatial)
    groups = call.integer("groups", 1)
    full = [
        (d - 1) * s + (k - 1) * dilation + 1
        for d, s, k, dilation in zip(x.shape[2:], strides, weight.shape[2:], dilations, strict=True)
    ]
    crop = _transposed_crop(call, x.shape[2:], full, strides)
    # A negative margin crops; torch's own padding would have to be symmetric.
    margins = flat_padding([(-before, -after) for before, after in crop])
    compute = _CONV_TRANSPOSE[spatial]

    def kernel(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        result = compute(x, w, b, strides, 0, 0, groups, dilations)
        return F.pad(result, margins) if any(margins) else result

    return kernel


def _transposed_crop(
    call: Call, extents: tuple[int, ...], full: list[int], strides: list[int]
) -> list[tuple[int, int]]:
    """Return how much of the full result is cut before and after each spatial axis."""
    spatial = len(full)
    pad_type = call.text("pad_type", ("valid", "custom", "same"), default="valid")
    pad = call.integers("pad", [0] * (2 * spatial), 2 * spatial)
    if call.has("output_shape") and tuple(call.integers("output_shape")) != call.output.shape:
        raise call.error(f"output_shape contradicts the declared result {call.output}")
    if pad_type == "custom":
        return list(zip(pad[::2], pad[1::2], strict=True))
    if any(pad):
        raise call.error(f"padding {pad} contradicts pad_type {pad_type!r}")
    if pad_type == "valid":
        return [(0, 0)] * spatial
    excess = [f - d * s for f, d, s in zip(full, extents, strides, strict=True)]
    if min(excess) < 0:
        raise call.error("pad_type 'same' with a window smaller than the stride is not supported")
    return [(amount // 2, amount - amount // 2) for amount in excess]


def _spatial_rank(call: Call, rank: int) -> int:
    if rank - 2 not in _CONV:
        raise call.error(f"an input of {rank} axes has no 1 to 3 spatial axes")
    return rank - 2
