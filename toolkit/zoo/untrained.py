"""A seeded fill for models without weights, so that every layer matters and nothing explodes.

Fresh initialisation is useless for checking a conversion: ReZero scalars start at 0, which switches every residual
branch off, and batch norms start as the identity. A model filled here is to be labelled "untrained weights".
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

from mvtool.streaming import reset

UNTRAINED_LABEL = "untrained weights"
LEAST_VALUES = 16
"""Values per channel below which a batch norm keeps the statistics of the fill: fewer say nothing of a variance."""
SETTLING = 0.3
"""Exponent of the power that a norm takes as its unit: at 0 the network forgets its input, at 1 it amplifies every rounding."""
LEAST_POWER = 1e-2
"""Of a channel, relative to the mean over channels, so that one that is next to nothing is not blown up."""
GRAIN = 0.4
"""Share of white noise in the clip that norms are settled on."""
DIGITS = 3
"""Significant digits of settled statistics: the last bits differ between machines, and weights nearly never shall."""
DAMPING = 0.2
"""Of a residual branch in a network that is damped. Without it Video Mobile-Former-5G, with eleven of them in one stage, ends at 4e5
and amplifies rounding by 1e11, X3D-XXL, with 110 in all, at 2e3 and by 400; with it at 16 and by 70, at 1 and by 7."""
GAIN = 1.05
"""Kernels get the standard deviation GAIN / sqrt(fan_in); the residual streams then keep a root mean square near 1."""


def deterministic_weights(module: nn.Module, seed: int = 0) -> nn.Module:
    """Overwrite all parameters and batch statistics of `module` in place.

    A tensor depends on `seed`, its name and its shape only. Kernels are uniform with standard deviation
    1.05 / sqrt(fan_in), norm weights 0.8..1.2, variances 0.5..1.5, means and biases within 0.2 of 0, positional scalars
    0.3..0.7 and other scalars (ReZero) 0.5..1.5. Stream state and other constants stay as they are.

    Returns:
        `module` itself.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(_parameter(name, parameter, seed))
        for prefix, child in module.named_modules():
            if isinstance(child, _NormBase) and child.running_mean is not None and child.running_var is not None:
                child.running_mean.copy_(_uniform(f"{prefix}.running_mean", child.running_mean, seed, -0.2, 0.2))
                child.running_var.copy_(_uniform(f"{prefix}.running_var", child.running_var, seed, 0.5, 1.5))
    return module


@torch.no_grad()
def damp_branches(module: nn.Module) -> nn.Module:
    """Multiply, in place, the weight of every norm that ends a residual branch by `DAMPING`.

    Training does so by itself, and many networks begin at 0 there. Such norms are those that a part of `module` names as its
    `branch_norm`.

    Returns:
        `module` itself.
    """
    for part in module.modules():
        norm = getattr(part, "branch_norm", None)
        if isinstance(norm, _NormBase) and norm.weight is not None:
            norm.weight.mul_(DAMPING)
    return module


@torch.no_grad()
def settle_norms(module: nn.Module, clip: Tensor) -> nn.Module:
    """Scale the statistics of all batch norms, layer by layer and in place, by some of the power that `clip` brings there.

    Through many layers a fill with fixed statistics forgets its input: the logits of an untrained Tiny Video Network then
    differ between videos by 1e-7 of the largest, and no comparison of two programs on them means anything. With norms in
    units of the whole power random layers double a difference every few layers, roundings too. `SETTLING` lies between.

    Args:
        module: In evaluation mode, filled already.
        clip: (N, 3, T, H, W), normalised as the model expects.

    Returns:
        `module` itself, with its stream state reset.
    """
    norms = [child for child in module.modules() if isinstance(child, _NormBase) and child.running_mean is not None]
    hooks = [norm.register_forward_pre_hook(_settle) for norm in norms]
    try:
        reset(module)
        module(clip)
    finally:
        for hook in hooks:
            hook.remove()
        reset(module)
    return module


def blobs_and_grain(shape: Sequence[int], seed: int = 0) -> Tensor:
    """RGB in 0..1 of `shape` (N, 3, T, H, W): coloured blobs and grain, half of both standing still, half new in every frame.

    Of each kind that a video may hold there is some: a channel that looks for fine detail, or for change, or for what stays,
    would have next to no variance without it, and blow up on a video that has.
    """
    generator = torch.Generator().manual_seed(seed)
    batch, channels, frames, height, width = shape

    def blobs(count: int) -> Tensor:
        coarse = torch.rand(count, channels, 8, 8, generator=generator)
        return functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)

    def pictures(count: int) -> Tensor:
        grain = torch.rand(count, channels, height, width, generator=generator)
        return (1.0 - GRAIN) * blobs(count) + GRAIN * grain

    still, new = pictures(batch).unsqueeze(1), pictures(batch * frames).reshape(batch, frames, channels, height, width)
    return (0.5 * (still + new)).transpose(1, 2)


def _settle(norm: _NormBase, inputs: tuple[Tensor, ...]) -> None:
    x = inputs[0]
    if x.numel() < LEAST_VALUES * x.shape[1] or norm.running_mean is None or norm.running_var is None:
        return
    axes = [axis for axis in range(x.dim()) if axis != 1]
    power = x.double().square().mean(axes)
    power = torch.maximum(power, LEAST_POWER * power.mean()) ** SETTLING
    norm.running_mean.mul_(_rounded(power.sqrt()))
    norm.running_var.mul_(_rounded(power))


def _rounded(values: Tensor) -> Tensor:
    unit = 10.0 ** (torch.floor(torch.log10(values.abs().clamp(min=1e-30))) + 1 - DIGITS)
    return torch.round(values / unit) * unit


def _parameter(name: str, tensor: Tensor, seed: int) -> Tensor:
    leaf = name.rpartition(".")[2]
    if tensor.ndim == 0:
        low, high = (0.3, 0.7) if "pos" in leaf else (0.5, 1.5)
    elif tensor.ndim == 1:
        low, high = (-0.2, 0.2) if "bias" in leaf else (0.8, 1.2)
    else:
        fan_in = tensor[0].numel()
        high = GAIN * (3.0 / fan_in) ** 0.5
        low = -high
    return _uniform(name, tensor, seed, low, high)


def _uniform(name: str, like: Tensor, seed: int, low: float, high: float) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    return low + (high - low) * torch.rand(like.shape, generator=generator)
