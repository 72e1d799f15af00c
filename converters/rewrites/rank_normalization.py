"""4D forms of normalizations, and of the activation with a learned slope.

Every normalization is `(x - mean) / sqrt(variance + eps) * weight + bias`; they differ in the cells that one
mean goes over. The variance is that of the differences, as numerically safe as PyTorch's own. Layer norms of pictures and
vectors keep the operator, which every runtime takes; ExecuTorch takes it outside XNNPACK, so there it is rewritten too.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx, nn

from mvtool.converters.rewrites.folded import Folded
from mvtool.converters.rewrites.rank import Constant, RankLowering, lowers
from mvtool.ports import Runtime

aten = torch.ops.aten


@lowers(aten.layer_norm.default, aten.native_layer_norm.default)
def layer_norm(
    lowering: RankLowering,
    node: fx.Node,
    value: Any,
    shape: list[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *rest: Any,
) -> Any:
    """Over the last axes of a video tensor, which after a permutation may be any."""
    if not isinstance(value, Folded):
        return _norm_of_rows(lowering, node, value, shape, weight, bias, eps)
    axes = [axis for axis in range(5 - len(shape), 5) if axis != value.dropped]
    positions = sorted(value.position(axis) for axis in axes)
    centred = value.tensor - _mean(value.tensor, positions)
    scaled = centred * torch.rsqrt(_mean(centred * centred, positions) + eps)
    if weight is not None:
        scaled = scaled * lowering.aligned(node, weight, value.order)
    if bias is not None:
        scaled = scaled + lowering.aligned(node, bias, value.order)
    lowering.did("layer norm as means and products")
    result = Folded(scaled, value.order)
    return result if node.target is aten.layer_norm.default else (result, None, None)


def _norm_of_rows(
    lowering: RankLowering, node: fx.Node, value: Any, shape: list[int], weight: Any, bias: Any, eps: float
) -> Any:
    """A layer norm of vectors or pictures for ExecuTorch, which delegates no layer norm.

    Each row becomes a picture (1, rows, 1, values), because the mean over both axes of a picture is delegated. In int8
    these are tokens, which stay float.
    """
    taken = lowering.recipe.target is not Runtime.EXECUTORCH
    known = isinstance(value, Tensor) and all(p is None or isinstance(p, Constant) for p in (weight, bias))
    if taken or not known or node.target is not aten.layer_norm.default:
        return NotImplemented
    width = math.prod(shape)
    rows = value.reshape(1, value.numel() // width, 1, width)
    rows = rows - rows.mean([2, 3], True)
    rows = rows * torch.rsqrt((rows * rows).mean([2, 3], True) + eps)
    if weight is not None:
        rows = rows * lowering.hold(f"{node.name}_weight", lambda: weight.value.reshape(1, 1, 1, -1))
    if bias is not None:
        rows = rows + lowering.hold(f"{node.name}_bias", lambda: bias.value.reshape(1, 1, 1, -1))
    lowering.did("layer norm as means and products")
    return rows.reshape(value.shape)


def _mean(value: Tensor, positions: list[int]) -> Tensor:
    return value.mean(positions, True) if positions else value


@lowers(aten.group_norm.default)
def group_norm(
    lowering: RankLowering,
    node: fx.Node,
    value: Any,
    groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    """Over all cells of the channels of a group."""
    return _of_channels(lowering, node, value, groups, weight, bias, eps)


@lowers(aten.instance_norm.default)
def instance_norm(
    lowering: RankLowering,
    node: fx.Node,
    value: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Any:
    """Over all cells of a channel: a group norm with a group per channel."""
    if not use_input_stats:
        return NotImplemented
    return _of_channels(lowering, node, value, int(value.shape[1]), weight, bias, eps)


def _of_channels(
    lowering: RankLowering, node: fx.Node, value: Any, groups: int, weight: Any, bias: Any, eps: float
) -> Any:
    """Normalize by group, then times `weight` plus `bias` of each channel, both (C,) or None.

    A clip, held as frames (T, C, H, W), has one mean for all its frames; pictures (N, C, H, W) have one each.
    """
    clip = isinstance(value, Folded)
    if not clip and not (isinstance(value, Tensor) and value.dim() == 4):
        return NotImplemented
    cells = [0, 2, 3] if clip else [2, 3]
    frames = value.canonical() if clip else value
    frames = frames - _group_mean(lowering, node, frames, groups, cells)
    frames = frames * torch.rsqrt(_group_mean(lowering, node, frames * frames, groups, cells) + eps)
    if weight is not None:
        frames = frames * lowering.hold(f"{node.name}_weight", lambda: weight.value.reshape(1, -1, 1, 1))
    if bias is not None:
        frames = frames + lowering.hold(f"{node.name}_bias", lambda: bias.value.reshape(1, -1, 1, 1))
    lowering.did("norm of channels as means and products")
    return Folded(frames) if clip else frames


def _group_mean(lowering: RankLowering, node: fx.Node, frames: Tensor, groups: int, cells: list[int]) -> Tensor:
    """Mean over `cells` of (T, C, H, W) and over the channels of a group.

    A dense layer of ones gives every channel the mean of its group: no delegate takes `expand`.

    Returns:
        (T or 1, C, 1, 1), or (T or 1, 1, 1, 1) for one group.
    """
    each = frames.mean(cells, True)
    count, channels = int(each.shape[0]), int(frames.shape[1])
    if groups == channels:
        return each
    means = each.reshape(count, groups, channels // groups, 1).mean([2], True)
    if groups == 1:
        return means.reshape(count, 1, 1, 1)
    members = lowering.hold(
        f"{node.name}_members", lambda: torch.eye(groups).repeat_interleave(channels // groups, dim=0)
    )
    return nn.functional.linear(means.reshape(count, groups), members).reshape(each.shape)


@lowers(aten.prelu.default)
def prelu(lowering: RankLowering, node: fx.Node, value: Any, slope: Any) -> Any:
    """The same operator on frames; the channels are the second axis there too."""
    if not isinstance(value, Folded):
        return NotImplemented
    lowering.did("learned slope on frames")
    return Folded(aten.prelu.default(value.canonical(), lowering.plain(slope)))
