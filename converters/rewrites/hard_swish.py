"""Write hard-swish and unit clamps so that XNNPACK delegates them.

XNNPACK has no int8 kernel for HARD_SWISH, and converters fuse `x * relu6(x + 3) / 6` back into it, so
`factor_hard_swish` writes `6 h = x * relu6(x + 3)`. TFLite turns `clamp(x, 0, 1)` into RELU_0_TO_1, which no
delegate takes, so `factor_unit_clamp` writes `relu6(6 x)`. In both cases a sixth is left, which `sink` moves into
the weights of what follows; the six goes into the weights before (`fold_affine`).
"""

from __future__ import annotations

import torch
from torch import fx

from mvtool.converters.rewrites.draft import Changes, Draft
from mvtool.converters.rewrites.sink import call, sink

aten = torch.ops.aten

HARD_SWISH_NAME = "factor hard-swish"
UNIT_CLAMP_NAME = "factor unit clamp"
SIXTH = 1.0 / 6.0


def factor_hard_swish(draft: Draft, changes: Changes) -> None:
    """Replace every hard-swish by `x * relu6(x + 3)` and sink the sixth."""
    graph = draft.module.graph
    for node in list(graph.nodes):
        if node.target is not aten.hardswish.default:
            continue
        source = node.args[0]
        with graph.inserting_before(node):
            shifted = call(graph, aten.add.Tensor, (source, 3.0), node)
            gate = call(graph, aten.hardtanh.default, (shifted, 0.0, 6.0), node)
            product = call(graph, aten.mul.Tensor, (source, gate), node)
            scaled = call(graph, aten.mul.Tensor, (product, SIXTH), node)
        node.replace_all_uses_with(scaled)
        graph.erase_node(node)
        changes.did("hard-swish written as x * relu6(x + 3)")
        sink(draft, changes, scaled)


def factor_unit_clamp(draft: Draft, changes: Changes) -> None:
    """Replace every `clamp(x, 0, 1)` by `relu6(6 x)` and sink the sixth."""
    graph = draft.module.graph
    for node in list(graph.nodes):
        if not _is_unit_clamp(node):
            continue
        with graph.inserting_before(node):
            six = call(graph, aten.mul.Tensor, (node.args[0], 6.0), node)
            gate = call(graph, aten.hardtanh.default, (six, 0.0, 6.0), node)
            scaled = call(graph, aten.mul.Tensor, (gate, SIXTH), node)
        node.replace_all_uses_with(scaled)
        graph.erase_node(node)
        changes.did("clamp(x, 0, 1) written as relu6(6 x)")
        sink(draft, changes, scaled)


def _is_unit_clamp(node: fx.Node) -> bool:
    bounds = (*node.args[1:], *(node.kwargs.get(name) for name in ("min", "max", "min_val", "max_val")))
    given = [bound for bound in bounds if bound is not None]
    return node.target in (aten.clamp.default, aten.hardtanh.default) and given == [0, 1]
