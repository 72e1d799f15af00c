"""What the folding rewrites know of linear operators."""

from __future__ import annotations

import torch
from torch import Tensor, fx

aten = torch.ops.aten

CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
LINEAR = (*CONVOLUTIONS, aten.linear.default)


def is_linear(node: object) -> bool:
    """Whether `node` is a convolution or a fully connected layer."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in LINEAR


def bias_of(node: fx.Node) -> object:
    """The bias argument of a linear node, None when absent."""
    return node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")


def set_parameters(node: fx.Node, weight: fx.Node, bias: fx.Node | None) -> None:
    """Give a linear node new weight and bias nodes."""
    arguments = list(node.args)
    arguments[1] = weight
    if len(arguments) > 2:
        arguments[2] = bias
    else:
        arguments.append(bias)
    node.args = tuple(arguments)
    node.kwargs = {key: value for key, value in node.kwargs.items() if key not in ("weight", "bias")}


def per_output_channel(factor: Tensor, weight: Tensor) -> Tensor:
    """Shape a factor (O,) or () so that it multiplies axis 0 of `weight`."""
    return factor.reshape(-1, *[1] * (weight.dim() - 1)) if factor.numel() > 1 else factor.reshape(())
