"""Normalization."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mvtool.runtimes.mlprogram.registry import Call, Kernel, operator


@operator("batch_norm")
def batch_norm(call: Call) -> Kernel:
    """`gamma (x - mean) / sqrt(variance + epsilon) + beta` per channel of `x (N, C, *D)`."""
    call.tensor("x")
    call.tensor("mean")
    call.tensor("variance")
    call.optional_tensor("gamma")
    call.optional_tensor("beta")
    epsilon = call.number("epsilon", 1e-5)
    return lambda x, mean, variance, gamma, beta: F.batch_norm(
        x, mean, variance, gamma, beta, training=False, eps=epsilon
    )


@operator("instance_norm")
def instance_norm(call: Call) -> Kernel:
    """Normalize each channel of each image of `x (N, C, *D)`, then scale and shift per channel."""
    x = call.tensor("x")
    call.optional_tensor("gamma")
    call.optional_tensor("beta")
    epsilon = call.number("epsilon", 1e-5)
    if x.rank not in (3, 4):
        raise call.error(f"an input of {x.rank} axes is not supported, expected 3 or 4")
    axes = list(range(2, x.rank))
    shape = [1, x.shape[1]] + [1] * len(axes)
    return lambda x, gamma, beta: _affine(_standardized(x, axes, epsilon), gamma, beta, shape)


@operator("layer_norm")
def layer_norm(call: Call) -> Kernel:
    """Normalize over `axes`, then scale and shift by tensors of the shape of those axes."""
    x = call.tensor("x")
    gamma, beta = call.optional_tensor("gamma"), call.optional_tensor("beta")
    epsilon = call.number("epsilon", 1e-5)
    axes = sorted({call.normal_axis(axis, x.rank) for axis in call.integers("axes", list(range(x.rank)))})
    expected = tuple(x.shape[axis] for axis in axes)
    for part in (gamma, beta):
        if part is not None and part.shape != expected:
            raise call.error(f"gamma or beta {part} does not fit the axes {axes} of {x}")
    shape = [extent if axis in axes else 1 for axis, extent in enumerate(x.shape)]
    return lambda x, gamma, beta: _affine(_standardized(x, axes, epsilon), gamma, beta, shape)


@operator("l2_norm")
def l2_norm(call: Call) -> Kernel:
    """Divide by `sqrt(sum(x^2) + epsilon)` over the last three axes."""
    x = call.tensor("x")
    epsilon = call.number("epsilon", 1e-6)
    if x.rank < 3:
        raise call.error(f"an input of {x.rank} axes is not supported, expected at least 3")
    return lambda x: x / torch.sqrt(torch.sum(x * x, (-3, -2, -1), keepdim=True) + epsilon)


def _standardized(x: torch.Tensor, axes: list[int], epsilon: float) -> torch.Tensor:
    centered = x - torch.mean(x, axes, keepdim=True)
    return centered / torch.sqrt(torch.mean(centered * centered, axes, keepdim=True) + epsilon)


def _affine(x: torch.Tensor, gamma: torch.Tensor | None, beta: torch.Tensor | None, shape: list[int]) -> torch.Tensor:
    x = x if gamma is None else x * gamma.reshape(shape)
    return x if beta is None else x + beta.reshape(shape)
