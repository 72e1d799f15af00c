"""Operators of a serialized XNNPACK graph that others can do the work of.

ExecuTorch 1.4.1 writes padding before a convolution, and reshapes around a dense layer, as operators of their own. XNNPACK's
convolutions pad on each side by themselves, its dense layers take values of any rank, and its operators on two values
broadcast ranks: what is folded here computes the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mvtool.converters.executorch_xnnpack import (
    RESHAPE,
    fields_of,
    fold_movement,
    grid_of,
    kind_of,
    shape_of,
    tensor_of,
)

if TYPE_CHECKING:
    from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import XNNGraph

PAD, DENSE = "XNNStaticConstantPad", "XNNFullyConnected"
CONVOLUTIONS = frozenset({"XNNConv2d", "XNNDepthwiseConv2d"})
UNARY = frozenset({"XNNConvert", "XNNHardswish", "XNNSigmoid", "XNNClamp", "XNNTanh", "XNNGelu"})
BINARY = frozenset({"XNNAdd", "XNNSubtract", "XNNMultiply", "XNNDiv", "XNNMaximum", "XNNMinimum"})


def fold(graph: XNNGraph) -> None:
    """Fold movement, padding and reshapes, in place."""
    fold_movement(graph)
    fold_padding(graph)
    fold_single_values(graph)
    while fold_rows(graph):
        fold_movement(graph)
    fold_movement(graph)


class _Graph:
    """Who reads each value.

    Attributes:
        values: By number.
    """

    def __init__(self, graph: XNNGraph) -> None:
        self.values = {tensor_of(value).id_out: value for value in graph.xvalues}
        self._outputs = set(graph.output_ids)
        self._readers: dict[int, list[Any]] = {}
        for node in graph.xnodes:
            for name in fields_of(node.xnode_union):
                self._readers.setdefault(getattr(node.xnode_union, name), []).append(node.xnode_union)

    def shape(self, value: int) -> list[int]:
        return shape_of(self.values[value])

    def readers(self, value: int) -> list[Any] | None:
        """The operators that read a value; None if it leaves the graph too."""
        return None if value in self._outputs else self._readers.get(value, [])

    def same_grid(self, one: int, other: int) -> bool:
        return grid_of(self.values[one]) == grid_of(self.values[other])


def fold_padding(graph: XNNGraph) -> None:
    """Let convolutions pad their pictures with zeros (zero points, on a grid) themselves."""
    known = _Graph(graph)
    for node in graph.xnodes:
        pad: Any = node.xnode_union
        if kind_of(pad) != PAD or pad.padding_value != 0.0 or not known.same_grid(pad.input_id, pad.output_id):
            continue
        before, after, readers = list(pad.pre_paddings), list(pad.post_paddings), known.readers(pad.output_id)
        if len(before) != 4 or any((before[0], before[3], after[0], after[3])) or not readers:
            continue
        if not all(kind_of(reader) in CONVOLUTIONS and reader.input1_id == pad.output_id for reader in readers):
            continue
        for reader in readers:
            reader.padding_top += before[1]
            reader.padding_left += before[2]
            reader.padding_bottom += after[1]
            reader.padding_right += after[2]
            reader.input1_id = pad.input_id


def fold_single_values(graph: XNNGraph) -> None:
    """Let operators on two values read a single number before it is given more axes of length 1."""
    known = _Graph(graph)
    for node in graph.xnodes:
        reshape: Any = node.xnode_union
        if kind_of(reshape) != RESHAPE or math.prod(known.shape(reshape.input_id)) != 1:
            continue
        if len(known.shape(reshape.input_id)) > len(known.shape(reshape.output_id)):
            continue
        readers = known.readers(reshape.output_id)
        if not readers or not known.same_grid(reshape.input_id, reshape.output_id):
            continue
        if not all(_keeps_its_rank(known, reader, reshape.output_id) for reader in readers):
            continue
        for reader in readers:
            for name in fields_of(reader):
                if getattr(reader, name) == reshape.output_id:
                    setattr(reader, name, reshape.input_id)


def _keeps_its_rank(known: _Graph, reader: Any, single: int) -> bool:
    """Whether the other operand alone gives the result its shape."""
    if kind_of(reader) not in BINARY:
        return False
    other = reader.input2_id if reader.input1_id == single else reader.input1_id
    return other != single and known.shape(other) == known.shape(reader.output_id)


def fold_rows(graph: XNNGraph) -> bool:
    """Let dense layers, and what works element by element around them, read values before they are flattened to rows.

    Returns:
        Whether a reshape fell away.
    """
    known = _Graph(graph)
    for node in graph.xnodes:
        reshape: Any = node.xnode_union
        if kind_of(reshape) != RESHAPE or not known.same_grid(reshape.input_id, reshape.output_id):
            continue
        before, after = known.shape(reshape.input_id), known.shape(reshape.output_id)
        if not before or before == after or before[-1:] != after[-1:]:
            continue
        results = list(_rows(known, reshape.output_id))
        if not results:
            continue
        for number in results:
            tensor = tensor_of(known.values[number])
            tensor.dims = [*before[:-1], known.shape(number)[-1]]
            tensor.num_dims = len(tensor.dims)
        first = known.readers(reshape.output_id)
        for reader in first or []:
            for name in fields_of(reader):
                if getattr(reader, name) == reshape.output_id:
                    setattr(reader, name, reshape.input_id)
        return True
    return False


def _rows(known: _Graph, value: int) -> Iterator[int]:
    """The values from a reshape to the next one that only dense layers and operators on single elements stand between."""
    found: list[int] = []
    dense = False
    while (readers := known.readers(value)) is not None and len(readers) == 1:
        reader = readers[0]
        if kind_of(reader) == RESHAPE:
            yield from found if dense else ()
            return
        if not _works_on_rows(known, reader, value):
            return
        dense = dense or kind_of(reader) == DENSE
        value = reader.output_id
        found.append(value)


def _works_on_rows(known: _Graph, reader: Any, value: int) -> bool:
    """Whether an operator computes each row by itself, whatever axes the rows are laid out on."""
    if kind_of(reader) in UNARY:
        return True
    if kind_of(reader) == DENSE:
        return bool(reader.input1_id == value and reader.flags == 0)
    if kind_of(reader) not in BINARY:
        return False
    other = reader.input2_id if reader.input1_id == value else reader.input1_id
    return other != value and len(known.shape(other)) <= 1
