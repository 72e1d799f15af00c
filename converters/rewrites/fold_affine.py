"""Fold multiplications by and additions of constants into the linear operators before them.

    alpha * conv(x; W, b) + c = conv(x; alpha W, alpha b + c)

The ReZero scalar of a residual branch and the 0.2 x + 0.5 of a hard sigmoid are the usual cases.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from mvtool.converters.rewrites.draft import Changes, Draft
from mvtool.converters.rewrites.linear import bias_of, is_linear, per_output_channel, set_parameters

aten = torch.ops.aten

NAME = "fold scale and shift"


def fold_affine(draft: Draft, changes: Changes) -> None:
    """Fold `constant * linear(x)` and `linear(x) + constant` where the linear operator has no other reader."""
    for node in list(draft.module.graph.nodes):
        if node.target not in (aten.mul.Tensor, aten.add.Tensor) or len(node.args) != 2 or node.kwargs:
            continue
        for source, other in (node.args, node.args[::-1]):
            constant = _constant(draft, source, other)
            if constant is None:
                continue
            if len(source.users) > 1:
                if node.target is aten.mul.Tensor:
                    changes.left(node.name, "the unscaled value has another reader")
                break
            (scale_linear if node.target is aten.mul.Tensor else shift_linear)(draft, source, constant)
            node.replace_all_uses_with(source)
            draft.module.graph.erase_node(node)
            kind = "factor" if node.target is aten.mul.Tensor else "offset"
            changes.did(f"constant {kind} folded into the linear operator before it")
            break


def _constant(draft: Draft, source: object, other: object) -> Tensor | None:
    """The constant `other` as (O,) or () if it acts on whole output channels of linear `source`."""
    if not is_linear(source) or draft.constant(source.args[1]) is None:  # type: ignore[attr-defined]
        return None
    if isinstance(other, (int, float)):
        return torch.tensor(float(other))
    value = draft.constant(other)
    if value is None:
        return None
    if value.numel() == 1:
        return value.reshape(())
    rank = source.meta["val"].dim()  # type: ignore[attr-defined]
    channel_axis = rank - 1 if source.target is aten.linear.default else 1  # type: ignore[attr-defined]
    padded = (1,) * (rank - value.dim()) + tuple(value.shape)
    only_channels = all(size == 1 for axis, size in enumerate(padded) if axis != channel_axis)
    return value.reshape(-1) if only_channels else None


def scale_linear(draft: Draft, node: fx.Node, factor: Tensor) -> None:
    """Multiply the output of a linear node by `factor`, (O,) or ()."""
    weight, bias = draft.constant(node.args[1]), draft.constant(bias_of(node))
    if weight is None:
        raise ValueError(f"{node.name} has no constant weight")
    name = str(node.args[1].target)  # type: ignore[union-attr]
    scaled = (weight.double() * per_output_channel(factor.double(), weight)).to(weight.dtype)
    moved = None if bias is None else (bias.double() * factor.double()).to(bias.dtype)
    set_parameters(
        node,
        draft.add_constant(node, f"{name}_scaled", scaled),
        None if moved is None else draft.add_constant(node, f"{name}_scaled_bias", moved),
    )


def shift_linear(draft: Draft, node: fx.Node, offset: Tensor) -> None:
    """Add `offset`, (O,) or (), to the output of a linear node."""
    weight, bias = draft.constant(node.args[1]), draft.constant(bias_of(node))
    if weight is None:
        raise ValueError(f"{node.name} has no constant weight")
    base = torch.zeros(weight.shape[0], dtype=torch.float64) if bias is None else bias.double()
    moved = (base + offset.double()).to(weight.dtype)
    name = str(node.args[1].target)  # type: ignore[union-attr]
    set_parameters(node, node.args[1], draft.add_constant(node, f"{name}_shifted_bias", moved))  # type: ignore[arg-type]
