"""Write recurrent layers out as dense layers and gates.

A recurrent cell is one operator in a captured graph, and a recurrent layer is one operator for all its steps.
No phone runtime takes either, each exporter takes them apart in its own way, and their weights could not be int8.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from mvtool.converters.rewrites.draft import Changes, Draft
from mvtool.converters.rewrites.nodes import argument

aten = torch.ops.aten

NAME = "write out recurrent layers"

State = tuple[fx.Node, ...]
"""Hidden state of a cell: h, and for an LSTM c; each (N, H)."""
Weights = Sequence[fx.Node | None]
"""Input weights (gates * H, F), hidden weights (gates * H, H), and their biases (gates * H,) or None."""


class Writer:
    """Adds operators before one node."""

    def __init__(self, graph: fx.Graph, before: fx.Node) -> None:
        """Take the place to write at."""
        self._graph = graph
        self._before = before

    def __call__(self, target: Any, *arguments: Any) -> fx.Node:
        """Append a call; its shape is computed without data."""
        with self._graph.inserting_before(self._before):
            node = self._graph.call_function(target, arguments)
        node.meta["val"] = target(*fx.map_arg(arguments, lambda n: _shape_only(n.meta["val"])))
        return node

    def split(self, value: fx.Node, parts: int) -> list[fx.Node]:
        """Equal parts of the last axis."""
        size = int(value.meta["val"].shape[-1]) // parts
        return [self(aten.slice.Tensor, value, 1, n * size, (n + 1) * size) for n in range(parts)]

    def dense(self, value: fx.Node, weight: fx.Node | None, bias: fx.Node | None) -> fx.Node:
        """`value weight^T + bias`."""
        return self(aten.linear.default, value, weight, bias)


def _shape_only(value: Tensor) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype, device="meta")


def gru(write: Writer, x: fx.Node, state: State, weights: Weights) -> State:
    """Gated recurrent unit: reset, update and new gate, in this order (torch.nn.GRUCell)."""
    (h,) = state
    reset, update, new = write.split(write.dense(x, weights[0], weights[2]), 3)
    reset_h, update_h, new_h = write.split(write.dense(h, weights[1], weights[3]), 3)
    reset = write(aten.sigmoid.default, write(aten.add.Tensor, reset, reset_h))
    update = write(aten.sigmoid.default, write(aten.add.Tensor, update, update_h))
    new = write(aten.tanh.default, write(aten.add.Tensor, new, write(aten.mul.Tensor, reset, new_h)))
    kept = write(aten.mul.Tensor, update, write(aten.sub.Tensor, h, new))
    return (write(aten.add.Tensor, new, kept),)


def lstm(write: Writer, x: fx.Node, state: State, weights: Weights) -> State:
    """Long short-term memory: input, forget, cell and output gate, in this order (torch.nn.LSTMCell)."""
    h, c = state
    total = write(aten.add.Tensor, write.dense(x, weights[0], weights[2]), write.dense(h, weights[1], weights[3]))
    enter, forget, cell, leave = write.split(total, 4)
    enter, forget, leave = (write(aten.sigmoid.default, gate) for gate in (enter, forget, leave))
    entering = write(aten.mul.Tensor, enter, write(aten.tanh.default, cell))
    c = write(aten.add.Tensor, write(aten.mul.Tensor, forget, c), entering)
    return write(aten.mul.Tensor, leave, write(aten.tanh.default, c)), c


def plain(activation: Any) -> Callable[[Writer, fx.Node, State, Weights], State]:
    """Elman's cell with this activation (torch.nn.RNNCell)."""

    def step(write: Writer, x: fx.Node, state: State, weights: Weights) -> State:
        (h,) = state
        total = write(aten.add.Tensor, write.dense(x, weights[0], weights[2]), write.dense(h, weights[1], weights[3]))
        return (write(activation, total),)

    return step


Step = Callable[[Writer, fx.Node, State, Weights], State]
CELLS: dict[Any, Step] = {
    aten.gru_cell.default: gru,
    aten.lstm_cell.default: lstm,
    aten.rnn_tanh_cell.default: plain(aten.tanh.default),
    aten.rnn_relu_cell.default: plain(aten.relu.default),
}
LAYERS: dict[Any, Step] = {
    aten.gru.input: gru,
    aten.lstm.input: lstm,
    aten.rnn_tanh.input: plain(aten.tanh.default),
    aten.rnn_relu.input: plain(aten.relu.default),
}


def is_recurrent(draft: Draft) -> bool:
    """Whether there is a recurrent cell or layer."""
    return any(node.target in CELLS or node.target in LAYERS for node in draft.module.graph.nodes)


def write_out_recurrent(draft: Draft, changes: Changes) -> None:
    """Replace every recurrent cell, and every recurrent layer step by step."""
    graph = draft.module.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in CELLS:
            _cell(Writer(graph, node), node)
            changes.did(f"{node.target} written as dense layers and gates")
        elif node.op == "call_function" and node.target in LAYERS:
            layers = _Layers.of(node)
            if layers is None:
                changes.left(str(node.name), "its hidden state is projected, which has no form as a cell")
                continue
            _replace(graph, node, layers.write(Writer(graph, node)))
            changes.did(f"{node.target} written out step by step")


def _cell(write: Writer, node: fx.Node) -> None:
    arguments: tuple[Any, ...] = node.args
    x, state, *weights = arguments
    states: State = tuple(state) if isinstance(state, list | tuple) else (state,)
    results = CELLS[node.target](write, x, states, [*weights, None, None])
    if len(results) == 1:
        node.replace_all_uses_with(results[0])
        node.graph.erase_node(node)
    else:
        _replace(node.graph, node, results)


def _replace(graph: fx.Graph, node: fx.Node, results: Sequence[fx.Node]) -> None:
    for part in list(node.users):
        if part.target is not operator.getitem:
            raise AssertionError(f"{part} reads all results of {node} at once")
        part.replace_all_uses_with(results[argument(part, 1)])
        graph.erase_node(part)
    graph.erase_node(node)


@dataclass(frozen=True)
class _Layers:
    """Arguments of a recurrent layer, or of several on top of each other.

    Attributes:
        step: One step of one layer.
        x: (T, N, F), or (N, T, F) with `batch_first`.
        states: One per kind of state, (layers * directions, N, H).
        weights: Per layer and direction.
        directions: 2 if the layers also read backwards.
        batch_first: Order of the first two axes of `x` and of the result.
    """

    step: Step
    x: fx.Node
    states: tuple[fx.Node, ...]
    weights: tuple[Weights, ...]
    directions: int
    batch_first: bool

    @staticmethod
    def of(node: fx.Node) -> _Layers | None:
        """Read the arguments; None for layers with a projection."""
        arguments: tuple[Any, ...] = node.args
        x, states, parameters, biases, count, _, _, both, batch_first = arguments
        groups = int(count) * (2 if both else 1)
        given = list(parameters)
        width = len(given) // groups
        if width != (4 if biases else 2):
            return None
        return _Layers(
            step=LAYERS[node.target],
            x=x,
            states=tuple(states) if isinstance(states, list | tuple) else (states,),
            weights=tuple([*given[n * width : (n + 1) * width], None, None] for n in range(groups)),
            directions=2 if both else 1,
            batch_first=bool(batch_first),
        )

    def write(self, write: Writer) -> list[fx.Node]:
        """All steps; returns the output sequence and the last states, in the operator's order and shapes."""
        axis = 1 if self.batch_first else 0
        length = int(self.x.meta["val"].shape[axis])
        sequence = [write(aten.select.int, self.x, axis, t) for t in range(length)]
        last: list[State] = []
        for first in range(0, len(self.weights), self.directions):
            passes = [self._run(write, sequence, first + d, backwards=d == 1) for d in range(self.directions)]
            last += [final for _, final in passes]
            outputs = [sequence for sequence, _ in passes]
            sequence = [
                parts[0] if len(parts) == 1 else write(aten.cat.default, list(parts), 1)
                for parts in zip(*outputs, strict=True)
            ]
        return [_stack(write, sequence, axis), *(_stack(write, list(kind), 0) for kind in zip(*last, strict=True))]

    def _run(self, write: Writer, sequence: list[fx.Node], index: int, backwards: bool) -> tuple[list[fx.Node], State]:
        state: State = tuple(write(aten.select.int, s, 0, index) for s in self.states)
        outputs = []
        for x in reversed(sequence) if backwards else sequence:
            state = self.step(write, x, state, self.weights[index])
            outputs.append(state[0])
        return (outputs[::-1] if backwards else outputs), state


def _stack(write: Writer, values: list[fx.Node], axis: int) -> fx.Node:
    rows = [write(aten.unsqueeze.default, value, axis) for value in values]
    return rows[0] if len(rows) == 1 else write(aten.cat.default, rows, axis)
