"""Let a constant factor travel forward until weights take it up.

`sink` starts at a node `value * factor` and moves the factor through operators that commute with it until a
convolution's or a linear layer's weights absorb it. Where a fifo state stores the value, the state stores the
unscaled value and its port records the multiplier. Where nothing can take the factor up, one multiplication
is left.
"""

from __future__ import annotations

import torch
from torch import fx

from mvtool.converters.rewrites.draft import Changes, Draft
from mvtool.converters.rewrites.linear import LINEAR, bias_of, set_parameters
from mvtool.converters.rewrites.nodes import argument

aten = torch.ops.aten

# Operators f with f(c x) = c f(x) in their first argument.
HOMOGENEOUS = (
    aten.mean.dim,
    aten.sum.dim_IntList,
    aten.slice.Tensor,
    aten.view.default,
    aten.reshape.default,
    aten.permute.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.expand.default,
    aten.avg_pool2d.default,
    aten.avg_pool3d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
    aten.relu.default,
)
PADS = (aten.pad.default, aten.constant_pad_nd.default)


def sink(draft: Draft, changes: Changes, scaled: fx.Node) -> None:
    """Let each reader of `scaled = value * factor` take the factor up, or pass it on."""
    for user in list(scaled.users):
        if not any(absorb(draft, changes, user, scaled) for absorb in (_weights, _pass_on, _fifo)):
            changes.left(str(user.name), f"{_name(user)} cannot take a factor up; one multiplication stays")
    if not scaled.users:
        draft.module.graph.erase_node(scaled)


def _weights(draft: Draft, changes: Changes, user: fx.Node, scaled: fx.Node) -> bool:
    """A linear operator with constant weights takes the factor into them."""
    if user.target not in LINEAR or user.args[0] is not scaled:
        return False
    weight = draft.constant(user.args[1])
    if weight is None:
        return False
    name = f"{argument(user, 1).target}_taken"
    bias = bias_of(user)
    set_parameters(
        user,
        draft.add_constant(user, name, (weight.double() * float(argument(scaled, 1))).to(weight.dtype)),
        bias if isinstance(bias, fx.Node) else None,
    )
    user.replace_input_with(scaled, argument(scaled, 0))
    changes.did("factor taken up by the weights of the next linear operator")
    return True


def _pass_on(draft: Draft, changes: Changes, user: fx.Node, scaled: fx.Node) -> bool:
    """A homogeneous operator, or a product, hands the factor to its readers."""
    homogeneous = user.target in HOMOGENEOUS and user.args[0] is scaled
    zero_pad = user.target in PADS and user.args[0] is scaled and _pads_zero(user)
    product = user.target is aten.mul.Tensor and list(user.args).count(scaled) == 1
    if not (homogeneous or zero_pad or product):
        return False
    user.replace_input_with(scaled, argument(scaled, 0))
    _rescale_after(draft, changes, user, scaled.args[1])
    return True


def _fifo(draft: Draft, changes: Changes, user: fx.Node, scaled: fx.Node) -> bool:
    """cat([state, h]) whose tail is the next state: the state holds the unscaled value from now on."""
    if user.target is not aten.cat.default or argument(user, 0).count(scaled) != 1:
        return False
    placeholders = [n for n in draft.module.graph.nodes if n.op == "placeholder"]
    outputs = argument(draft.module.graph.output_node(), 0)
    inputs = len(draft.program.inputs)
    others = [n for n in argument(user, 0) if n is not scaled]
    if len(others) != 1 or others[0] not in placeholders or len(others[0].users) != 1:
        return False
    state = placeholders.index(others[0]) - inputs
    if state < 0:
        return False
    after = outputs[len(draft.program.outputs) + state]
    tail = after.target is aten.slice.Tensor and after.args[0] is user
    tail = tail and list(after.users) == [draft.module.graph.output_node()]
    if not tail or draft.multipliers[state] != 1.0:
        return False
    draft.multipliers[state] = 1.0 / float(argument(scaled, 1))
    user.replace_input_with(scaled, argument(scaled, 0))
    readers = [reader for reader in user.users if reader is not after]
    _rescale_after(draft, changes, user, scaled.args[1], readers)
    changes.did("fifo state holds the value without the factor")
    return True


def _rescale_after(
    draft: Draft, changes: Changes, node: fx.Node, factor: object, readers: list[fx.Node] | None = None
) -> None:
    graph = draft.module.graph
    readers = list(node.users) if readers is None else readers
    with graph.inserting_after(node):
        scaled = call(graph, aten.mul.Tensor, (node, factor), node)
    for reader in readers:
        reader.replace_input_with(node, scaled)
    sink(draft, changes, scaled)


def call(graph: fx.Graph, target: object, arguments: tuple[object, ...], like: fx.Node) -> fx.Node:
    """A new call at the graph's insertion point, with the shape of `like`."""
    node = graph.call_function(target, arguments)  # type: ignore[arg-type]
    node.meta["val"] = like.meta["val"]
    return node


def _pads_zero(node: fx.Node) -> bool:
    if node.target is aten.pad.default:
        mode = node.args[2] if len(node.args) > 2 else "constant"
        value = node.args[3] if len(node.args) > 3 else None
        return mode == "constant" and not value
    return not (node.args[2] if len(node.args) > 2 else 0)


def _name(node: fx.Node) -> str:
    return "the model's output" if node.op == "output" else str(node.target)
