"""Removing transposes from a serialized XNNPACK graph.

ExecuTorch 1.4.1 surrounds every picture operator with a transpose from (N, C, H, W) and back, and cancels
only those that touch. With channels-last values between operators every one of them meets its inverse, once
the permutations of the program itself are counted too; each costs a copy of the picture at run time.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import XNNGraph

TRANSPOSE, RESHAPE = "XNNStaticTranspose", "XNNStaticReshape"


def fold_movement(graph: XNNGraph) -> None:
    """Compose transposes and reshapes with those before them, and drop what moves nothing, in place."""
    while _pass(graph):
        pass
    _drop_unused(graph)


class _Readers:
    """Which inputs of which nodes read a value."""

    def __init__(self, graph: XNNGraph) -> None:
        self._places: dict[int, list[tuple[Any, str]]] = {}
        for node in graph.xnodes:
            for name in fields_of(node.xnode_union):
                self._places.setdefault(getattr(node.xnode_union, name), []).append((node, name))

    def redirect(self, old: int, new: int) -> bool:
        """Let all that read `old` read `new`."""
        places = self._places.pop(old, [])
        for node, name in places:
            setattr(node.xnode_union, name, new)
        self._places.setdefault(new, []).extend(places)
        return bool(places)

    def moved(self, node: Any, old: int) -> None:
        """`node`, which has one input, reads another value than `old` now."""
        self._places[old].remove((node, "input_id"))
        self._places.setdefault(node.xnode_union.input_id, []).append((node, "input_id"))


def _pass(graph: XNNGraph) -> bool:
    readers = _Readers(graph)
    values = {tensor_of(value).id_out: value for value in graph.xvalues}
    makers = {node.xnode_union.output_id: node.xnode_union for node in graph.xnodes}
    outputs = set(graph.output_ids)
    changed = False
    for node in graph.xnodes:
        operator: Any = node.xnode_union
        if kind_of(operator) not in (TRANSPOSE, RESHAPE) or not _same_grid(values, operator):
            continue
        before = makers.get(operator.input_id)
        if before is not None and kind_of(before) in (TRANSPOSE, RESHAPE) and _same_grid(values, before):
            source = operator.input_id
            changed |= _compose(node, before, values)
            readers.moved(node, source)
        operator = node.xnode_union
        if _moves_nothing(operator, values) and operator.output_id not in outputs:
            changed |= readers.redirect(operator.output_id, operator.input_id)
    return changed


def _compose(node: Any, before: Any, values: dict[int, Any]) -> bool:
    """Let `node` read what `before` read, where one operator can do the work of both."""
    operator = node.xnode_union
    if kind_of(operator) == TRANSPOSE and kind_of(before) == TRANSPOSE:
        operator.perm = [before.perm[axis] for axis in operator.perm]
        operator.input_id = before.input_id
        return True
    if kind_of(operator) == RESHAPE and (kind_of(before) == RESHAPE or _keeps_order(before, values)):
        operator.input_id = before.input_id
        return True
    if kind_of(operator) == TRANSPOSE and _keeps_order(operator, values):
        node.xnode_union = _reshape_to(shape_of(values[operator.output_id]), operator)
        return True
    return False


def _reshape_to(shape: list[int], like: Any) -> Any:
    from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import XNNStaticReshape

    return XNNStaticReshape(
        num_dims=len(shape), new_shape=shape, input_id=like.input_id, output_id=like.output_id, flags=0
    )


def _keeps_order(operator: Any, values: dict[int, Any]) -> bool:
    """Whether a transpose moves axes of size 1 only, so that the values stay in order."""
    if kind_of(operator) != TRANSPOSE:
        return False
    shape = shape_of(values[operator.input_id])
    moved = [axis for axis in operator.perm if shape[axis] != 1]
    return moved == sorted(moved)


def _moves_nothing(operator: Any, values: dict[int, Any]) -> bool:
    if kind_of(operator) == TRANSPOSE and list(operator.perm) != sorted(operator.perm):
        return False
    return shape_of(values[operator.input_id]) == shape_of(values[operator.output_id])


def _drop_unused(graph: XNNGraph) -> None:
    """Remove operators whose results nobody reads."""
    while True:
        read = set(graph.output_ids)
        for node in graph.xnodes:
            read.update(getattr(node.xnode_union, name) for name in fields_of(node.xnode_union))
        kept = [node for node in graph.xnodes if node.xnode_union.output_id in read]
        if len(kept) == len(graph.xnodes):
            return
        graph.xnodes[:] = kept


def fields_of(operator: Any) -> tuple[str, ...]:
    """Names of the fields that say which values an operator reads."""
    schema: Any = type(operator)
    return _read_fields(schema)


@cache
def _read_fields(schema: Any) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(schema) if f.name.endswith("_id") and f.name != "output_id")


def kind_of(operator: Any) -> str:
    """Name of an operator's type in the schema."""
    return type(operator).__name__


def tensor_of(value: Any) -> Any:
    """The tensor of a value, whether it lies on a grid or not."""
    return getattr(value.xvalue_union, "tensor_value", value.xvalue_union)


def shape_of(value: Any) -> list[int]:
    """Shape of a value."""
    return [int(size) for size in tensor_of(value).dims]


def _same_grid(values: dict[int, Any], operator: Any) -> bool:
    """Whether input and output hold the same kind of numbers; a requantizing copy must stay."""
    return grid_of(values[operator.input_id]) == grid_of(values[operator.output_id])


def grid_of(value: Any) -> tuple[Any, ...]:
    """Type, scale and zero point of a value."""
    parameters = getattr(value.xvalue_union, "quant_params", None)
    return (
        tensor_of(value).datatype,
        getattr(parameters, "scale", None),
        getattr(parameters, "zero_point", None),
    )
