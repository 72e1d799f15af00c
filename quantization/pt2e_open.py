"""A program's graph in the form that a quantization plan is made on and written into."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mvtool.program import StreamProgram
from mvtool.quantization.plan import ORIGIN, operator_of, pooled
from mvtool.quantization.policy import CLAMP_OPERATORS
from mvtool.quantization.pt2e_graph import attribute_of

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node


def open_graph(program: StreamProgram, pointwise_as_dense: bool = False) -> GraphModule:
    """The program's graph with parameters as `get_attr` nodes and scalar operands as constants.

    Args:
        program: Lowered; it is not changed.
        pointwise_as_dense: Write all 1x1 convolutions of pictures as dense layers, not only those of vectors and those before a head.
    """
    module = program.exported.module()
    for node in list(module.graph.nodes):
        if node.op == "call_module":  # torch's check of input shapes; the ports guarantee them
            module.graph.erase_node(node)
    _lift_scalars(module)
    _dense_for_pointwise(module, pointwise_as_dense)
    module.graph.lint()
    module.recompile()
    return module


def _lift_scalars(module: GraphModule) -> None:
    """Write `x + 3.0` as an addition of a constant tensor, because an int8 kernel's operands are tensors."""
    import torch

    table = {
        torch.ops.aten.add.Tensor: torch.ops.aten.add.Tensor,
        torch.ops.aten.sub.Tensor: torch.ops.aten.sub.Tensor,
        torch.ops.aten.mul.Tensor: torch.ops.aten.mul.Tensor,
        torch.ops.aten.add.Scalar: torch.ops.aten.add.Tensor,
        torch.ops.aten.sub.Scalar: torch.ops.aten.sub.Tensor,
        torch.ops.aten.mul.Scalar: torch.ops.aten.mul.Tensor,
    }
    made: dict[float, str] = {}
    for node in module.graph.nodes:
        if node.target not in table or not isinstance(node.args[1], int | float) or node.kwargs.get("alpha", 1) != 1:
            continue
        if not node.meta["val"].is_floating_point():
            continue  # a count stays one; a float constant would turn it into a real number
        value = float(node.args[1])
        if not math.isfinite(value):
            continue
        name = made.setdefault(value, f"_scalar_{len(made)}")
        if not hasattr(module, name):
            # One axis per axis of the partner: a runtime then broadcasts without a reshape.
            module.register_buffer(name, torch.tensor(value, dtype=torch.float32))
        with module.graph.inserting_before(node):
            constant = module.graph.get_attr(name)
        constant.meta["val"] = torch.tensor(value)
        node.target = table[node.target]
        node.args = (node.args[0], constant)


def _dense_for_pointwise(module: GraphModule, pictures: bool) -> None:
    """Write a 1x1 convolution of a vector (1, C, 1, 1) as a dense layer, the form with int8-weight kernels.

    Args:
        module: Changed in place.
        pictures: All those of pictures too, as a dense layer over the channels of each position, not only those of the vector path.
    """
    chosen = pooled(module.graph)
    for node in list(module.graph.nodes):
        if operator_of(node) != "conv2d":
            continue
        source, weight = node.args[0], node.args[1]
        shape, groups = tuple(source.meta["val"].shape), (node.args[6:] or (1,))[0]
        kernel = tuple(weight.meta["val"].shape) if "val" in weight.meta else ()
        if groups != 1 or kernel[2:] != (1, 1):
            continue
        if shape[2:] == (1, 1) and tuple(node.meta["val"].shape[2:]) == (1, 1):
            _dense_of_vector(module, node, shape, kernel)
        elif (pictures or node in chosen) and tuple(node.meta["val"].shape[2:]) == shape[2:]:
            _dense_of_positions(module, node, kernel)
    module.graph.eliminate_dead_code()


def _dense_of_vector(module: GraphModule, node: Node, shape: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    with module.graph.inserting_before(node):
        flat = _call(module, "reshape", (node.args[0], list(shape[:2])), shape[:2])
        dense = _dense(module, node, flat, kernel)
        column = (shape[0], kernel[0], 1, 1)
        node.replace_all_uses_with(_call(module, "reshape", (dense, list(column)), column))


def _dense_of_positions(module: GraphModule, node: Node, kernel: tuple[int, ...]) -> None:
    """With the clamp of the convolution, if there is one: one kernel computes the two."""
    users = list(node.users)
    last = users[0] if len(users) == 1 and operator_of(users[0]) in CLAMP_OPERATORS else node
    batch, channels, height, width = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    with module.graph.inserting_before(last):
        rows = _call(module, "permute", (node.args[0], [0, 2, 3, 1]), (batch, height, width, channels))
        dense = _dense(module, node, rows, kernel)
        if last is not node:
            dense = _call(module, operator_of(last), (dense, *last.args[1:]), tuple(dense.meta["val"].shape))
        picture = _call(module, "permute", (dense, [0, 3, 1, 2]), (batch, kernel[0], height, width))
        last.replace_all_uses_with(picture)


def _dense(module: GraphModule, node: Node, rows: Node, kernel: tuple[int, ...]) -> Node:
    """The dense layer with the weights of the 1x1 convolution `node`."""
    matrix = f"_matrix_{node.name}"
    module.register_buffer(matrix, attribute_of(module, node.args[1]).reshape(kernel[:2]).clone())
    bias = node.args[2] if len(node.args) > 2 else None
    shape = (*rows.meta["val"].shape[:-1], kernel[0])
    weight = module.graph.get_attr(matrix)
    weight.meta[ORIGIN] = str(node.args[1].target)  # type: ignore[union-attr]
    return _call(module, "linear", (rows, weight, bias), shape)


def _call(module: GraphModule, name: str, arguments: tuple[Any, ...], shape: tuple[int, ...]) -> Node:
    import torch

    node = module.graph.call_function(getattr(torch.ops.aten, name).default, arguments)
    node.meta["val"] = arguments[0].meta["val"].new_empty(shape)
    return node
