"""Fold batch norms into the linear operators before them.

    bn(conv(x)) = conv(x; W * g, (b - mean) * g + beta),   g = gamma / sqrt(var + eps)

computed in float64. A batch norm that follows anything else becomes one multiplication and one
addition per channel.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx

from mvtool.converters.rewrites.draft import Changes, Draft
from mvtool.converters.rewrites.linear import CONVOLUTIONS, bias_of, per_output_channel, set_parameters
from mvtool.converters.rewrites.nodes import argument

aten = torch.ops.aten

NAME = "fold batch norm"


def fold_batch_norm(draft: Draft, changes: Changes) -> None:
    """Remove every inference batch norm from the graph."""
    for node in list(draft.module.graph.nodes):
        if node.target not in (aten._native_batch_norm_legit_no_training.default, aten.batch_norm.default):
            continue
        result = _result_of(node)
        if result is None:
            changes.left(node.name, "its batch statistics are used as well")
            continue
        scale, shift = _scale_and_shift(draft, node)
        source = node.args[0]
        if source.target in CONVOLUTIONS and len(source.users) == 1 and draft.constant(source.args[1]) is not None:
            _fold(draft, source, scale, shift)
            result.replace_all_uses_with(source)
            changes.did("batch norm folded into the convolution before it")
        else:
            result.replace_all_uses_with(_standalone(draft, node, scale, shift))
            changes.did("batch norm without a convolution before it became multiply and add")
        # The next one asks how many readers a convolution has.
        for done in dict.fromkeys((result, node)):
            draft.module.graph.erase_node(done)


def _result_of(node: fx.Node) -> fx.Node | None:
    if node.target is aten.batch_norm.default:
        return node
    users = list(node.users)
    first = [user for user in users if user.target is operator.getitem and user.args[1] == 0]
    return first[0] if len(first) == 1 and len(users) == 1 else None


def _scale_and_shift(draft: Draft, node: fx.Node) -> tuple[Tensor, Tensor]:
    gamma, beta, mean, var = (draft.constant(argument) for argument in node.args[1:5])
    eps = float(argument(node, 7 if node.target is aten.batch_norm.default else 6))
    if mean is None or var is None:
        raise ValueError(f"batch norm {node.name} has no constant statistics")
    scale = 1.0 / torch.sqrt(var.double() + eps)
    scale = scale if gamma is None else scale * gamma.double()
    shift = -mean.double() * scale
    return scale, shift if beta is None else shift + beta.double()


def _fold(draft: Draft, conv: fx.Node, scale: Tensor, shift: Tensor) -> None:
    weight = draft.constant(conv.args[1])
    bias = draft.constant(bias_of(conv))
    if weight is None:
        raise ValueError(f"convolution {conv.name} has no constant weight")
    folded = weight.double() * per_output_channel(scale, weight)
    moved = shift if bias is None else shift + bias.double() * scale
    name = str(argument(conv, 1).target)
    set_parameters(
        conv,
        draft.add_constant(conv, f"{name}_folded", folded.to(weight.dtype)),
        draft.add_constant(conv, f"{name}_folded_bias", moved.to(weight.dtype)),
    )


def _standalone(draft: Draft, node: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node:
    source = argument(node, 0)
    shape = (1, -1, *[1] * (source.meta["val"].dim() - 2))
    factor = draft.add_constant(node, f"{node.name}_scale", scale.to(torch.get_default_dtype()).reshape(shape))
    offset = draft.add_constant(node, f"{node.name}_shift", shift.to(torch.get_default_dtype()).reshape(shape))
    with draft.module.graph.inserting_before(node):
        product = draft.module.graph.call_function(aten.mul.Tensor, (source, factor))
        product.meta["val"] = source.meta["val"]
        result = draft.module.graph.call_function(aten.add.Tensor, (product, offset))
        result.meta["val"] = source.meta["val"]
    return result
