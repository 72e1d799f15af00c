"""A seeded fill for models without weights, so that every layer matters and nothing explodes.

Fresh initialisation is useless for checking a conversion: ReZero scalars start at 0, which switches every residual
branch off, and batch norms start as the identity. A model filled here is to be labelled "untrained weights".
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

UNTRAINED_LABEL = "untrained weights"
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
