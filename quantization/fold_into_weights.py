"""Batch norms and constant factors as part of the weights before them, computed in the graph from the parameters.

The rewrites of a conversion fold numbers (`mvtool.converters.rewrites.fold_batch_norm` and `fold_affine`); here the same
products stay operators, so that a gradient reaches each parameter.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from mvtool.converters.rewrites.linear import bias_of, is_linear
from mvtool.converters.rewrites.nodes import argument

aten = torch.ops.aten

NORMS = {aten.batch_norm.default: 7, aten._native_batch_norm_legit_no_training.default: 6}
"""Operators of a batch norm with frozen statistics, and the place of eps among their arguments."""


def fold_into_weights(module: fx.GraphModule) -> None:
    """Fold what follows linear operators into their weights and biases; a norm behind anything else becomes a product and a sum.

    Args:
        module: Functional, with parameters as `get_attr` nodes; changed in place.
    """
    for node in list(module.graph.nodes):
        if node.target in NORMS:
            _norm(module, node)
            # What was folded must not count as a reader of the operator before it.
            module.graph.eliminate_dead_code()
        elif node.target is aten.mul.Tensor:
            _factor(module, node)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()


def constants_of(graph: fx.Graph) -> set[fx.Node]:
    """Nodes whose values depend on parameters and buffers alone."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        sources = node.all_input_nodes
        if node.op == "get_attr" or (node.op == "call_function" and sources and found.issuperset(sources)):
            found.add(node)
    return found


def value_of(module: fx.GraphModule, node: fx.Node) -> Tensor:
    """The present value of a constant node, without a gradient."""
    if node.op == "get_attr":
        value: Any = module
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return value.detach()  # type: ignore[no-any-return]

    def given(argument: fx.Node) -> Any:
        return value_of(module, argument)

    target: Any = node.target
    return target(*fx.map_arg(node.args, given), **fx.map_arg(node.kwargs, given))  # type: ignore[no-any-return]


def _norm(module: fx.GraphModule, node: fx.Node) -> None:
    source, gamma, beta, mean, var = node.args[:5]
    eps = float(argument(node, NORMS[node.target]))  # type: ignore[index]
    deviation = torch.sqrt(value_of(module, var).double() + eps)  # type: ignore[arg-type]
    result = node
    if node.target is not aten.batch_norm.default:
        (result,) = [user for user in node.users if user.target is operator.getitem and user.args[1] == 0]
    name = f"_inverse_deviation_{node.name}"
    module.register_buffer(name, (1.0 / deviation).float())
    folds = _folds(module, source)
    write = _Writer(module.graph, source if folds else node)  # type: ignore[arg-type]
    gain = write.constant(name)
    gain = gain if gamma is None else write(aten.mul.Tensor, write.early(gamma), gain)
    mean, beta = write.early(mean), write.early(beta)
    if folds:
        centred = write(aten.neg.default, mean)
        if bias_of(source) is not None:  # type: ignore[arg-type]
            centred = write(aten.add.Tensor, bias_of(source), centred)  # type: ignore[arg-type]
        bias = write(aten.mul.Tensor, centred, gain)
        _set(source, write.scaled(source, gain), bias if beta is None else write(aten.add.Tensor, bias, beta))  # type: ignore[arg-type]
        result.replace_all_uses_with(source)  # type: ignore[arg-type]
        return
    value = source.meta["val"]  # type: ignore[union-attr]
    shift = write(aten.neg.default, write(aten.mul.Tensor, mean, gain))
    shift = shift if beta is None else write(aten.add.Tensor, shift, beta)
    shape = [1, -1, *[1] * (value.dim() - 2)]
    product = write(aten.mul.Tensor, source, write(aten.reshape.default, gain, shape))
    total = write(aten.add.Tensor, product, write(aten.reshape.default, shift, shape))
    product.meta["val"] = total.meta["val"] = value
    result.replace_all_uses_with(total)


def _factor(module: fx.GraphModule, node: fx.Node) -> None:
    """A single constant number behind a linear operator."""
    for source, factor in (node.args, node.args[::-1]):
        if not _folds(module, source) or not _is_number(module, factor):
            continue
        write = _Writer(module.graph, source)  # type: ignore[arg-type]
        early = write.early(factor)
        bias = bias_of(source)  # type: ignore[arg-type]
        moved = None if bias is None else write(aten.mul.Tensor, bias, early)
        _set(source, write(aten.mul.Tensor, argument(source, 1), early), moved)  # type: ignore[arg-type]
        node.replace_all_uses_with(source)  # type: ignore[arg-type]
        return


def _folds(module: fx.GraphModule, source: object) -> bool:
    """Whether `source` is a linear operator with one reader and constant weights."""
    if not isinstance(source, fx.Node) or not is_linear(source) or len(source.users) != 1:
        return False
    constants = constants_of(module.graph)
    return all(part is None or part in constants for part in (source.args[1], bias_of(source)))


def _is_number(module: fx.GraphModule, value: object) -> bool:
    if isinstance(value, fx.Node):
        return value.op == "get_attr" and value_of(module, value).numel() == 1
    return isinstance(value, int | float)


def _set(node: fx.Node, weight: fx.Node, bias: fx.Node | None) -> None:
    arguments = [*node.args[:1], weight, bias, *node.args[3:]]
    node.args = tuple(arguments)
    node.kwargs = {key: value for key, value in node.kwargs.items() if key != "bias"}


class _Writer:
    """Writes operators in front of a node."""

    def __init__(self, graph: fx.Graph, before: fx.Node) -> None:
        self._graph, self._before = graph, before

    def __call__(self, target: Any, *arguments: Any) -> fx.Node:
        with self._graph.inserting_before(self._before):
            return self._graph.call_function(target, arguments)

    def constant(self, name: str) -> fx.Node:
        with self._graph.inserting_before(self._before):
            return self._graph.get_attr(name)

    def early(self, value: Any) -> Any:
        """A parameter read here, since its first reader may stand further down."""
        return self.constant(str(value.target)) if isinstance(value, fx.Node) else value

    def scaled(self, node: fx.Node, gain: fx.Node) -> fx.Node:
        """The weight of a linear operator, each output channel times its gain."""
        weight: fx.Node = argument(node, 1)
        axes = 2 if node.target is aten.linear.default else node.meta["val"].dim()
        return self(aten.mul.Tensor, weight, self(aten.reshape.default, gain, [-1, *[1] * (axes - 1)]))
