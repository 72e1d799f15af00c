"""Take queues of past frames apart: every entry becomes an input of the graph, and only the new entries leave it.

    cat([state, new]) -> window, window[n:] -> next state        becomes        cat([slot 0, slot 1, ..., new]), new

The caller moves the slots up between two steps (`mvtool.slots`), so the graph shifts nothing. What reads one entry of the
state reads its slot; what reads a window of it can read the frames one by one (`Folded.parts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from mvtool.converters.rewrites.draft import Changes, Draft
from mvtool.converters.rewrites.nodes import argument
from mvtool.converters.state_forms import Queue, new_entries, queue_of
from mvtool.ports import StateForm
from mvtool.slots import moved_up

aten = torch.ops.aten

NAME = "take states apart into slots"
JOINED: Final = "mvtool_joined"
"""Key of the metadata of a join whose first parts are slots."""
MOST_SLOTS = 16
"""A runtime spends some time on every port, a fraction of a microsecond to several; a queue of many short entries is cheaper moved."""
SUMMARIES = frozenset({StateForm.MEAN, StateForm.COUNTER, StateForm.PHASE})
"""States that are meant to be one value; no report mentions that they stay so."""


def take_apart(draft: Draft) -> dict[int, Queue]:
    """Give every queue of `draft` an input per entry, and report it.

    Returns:
        The queues by the number of the state; other states stay as they are, the report says why.
    """
    changes, queues = Changes(), dict[int, Queue]()
    for number, state in enumerate(draft.program.states):
        before, after = _ends(draft, number, queues)
        queue = queue_of(before, after)
        reason = _reason(queue)
        if queue is None or reason:
            if state.form not in SUMMARIES:
                changes.left(state.logical.name, reason)
            continue
        _replace(draft.module.graph, before, after, queue, len(draft.program.outputs) + _results(draft, number, queues))
        queues[number] = queue
        changes.did(
            f"queue of {queue.size} entries as so many inputs and {queue.added} output{'s' * (queue.added > 1)}"
        )
    draft.module.graph.eliminate_dead_code()
    draft.module.graph.lint()
    draft.module.recompile()
    draft.judge(NAME, changes, Whole(draft, draft.module, queues))
    return queues


def _reason(queue: Queue | None) -> str:
    """Why a state stays one port; empty if it does not."""
    if queue is None:
        return "the graph does not write it as its own end with new entries behind, so it stays one port"
    if queue.added >= queue.size:
        return f"a step replaces all {queue.size} entries, so nothing is moved"
    if queue.size > MOST_SLOTS:
        return f"{queue.size} entries, more than {MOST_SLOTS}, would cost more as ports than moving them does"
    return ""


def _ends(draft: Draft, number: int, queues: Mapping[int, Queue]) -> tuple[fx.Node, fx.Node]:
    """Input and result of a state in a graph where those before it may be apart already."""
    places = [node for node in draft.module.graph.nodes if node.op == "placeholder"]
    more = sum(queues[n].size - 1 for n in range(number) if n in queues)
    results = argument(draft.module.graph.output_node(), 0)
    first = len(draft.program.outputs)
    return places[len(draft.program.inputs) + number + more], results[first + _results(draft, number, queues)]


def _results(draft: Draft, number: int, queues: Mapping[int, Queue]) -> int:
    """How many results the states before this one have."""
    return sum(queues[n].added if n in queues else 1 for n in range(number))


def _replace(graph: fx.Graph, before: fx.Node, after: fx.Node, queue: Queue, place: int) -> None:
    entries = new_entries(after)
    output = graph.output_node()
    with graph.inserting_before(output):
        new = entries[0] if len(entries) == 1 else _call(graph, aten.cat.default, entries, queue.axis)
        ends = [(n, n + 1) for n in range(queue.added)]
        newest = [new] if queue.added == 1 else [_call(graph, aten.slice.Tensor, new, queue.axis, *e) for e in ends]
    results = list(argument(output, 0))
    output.args = ((*results[:place], *newest, *results[place + 1 :]),)
    with graph.inserting_before(before):
        slots = [graph.placeholder(f"{before.name}_slot{n}") for n in range(queue.size)]
    for slot in slots:
        # The graph makes the name its own; the target is the argument's name in the generated code.
        slot.target = slot.name
        slot.meta["val"] = _shape_only(before.meta["val"]).narrow(queue.axis, 0, 1)
    with graph.inserting_after(_last_placeholder(graph)):
        joined = _call(graph, aten.cat.default, slots, queue.axis)
    before.replace_all_uses_with(joined)
    graph.erase_node(before)
    _spread(graph, joined, queue.axis)


def _last_placeholder(graph: fx.Graph) -> fx.Node:
    last: fx.Node = [node for node in graph.nodes if node.op == "placeholder"][-1]
    return last


def _call(graph: fx.Graph, target: Any, *arguments: Any) -> fx.Node:
    node = graph.call_function(target, arguments)
    values = fx.map_arg(arguments, lambda n: _shape_only(n.meta["val"]))
    node.meta["val"] = target(*values)
    return node


def _shape_only(value: Tensor) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype, device="meta")


def _spread(graph: fx.Graph, joined: fx.Node, axis: int) -> None:
    """Let readers of a join of slots read the slots themselves: other joins, cuts and single entries."""
    joined.meta[JOINED] = True
    slots = list(argument(joined, 0))
    for user in list(joined.users):
        if user.target is aten.cat.default and _axis(user, 1) == axis:
            parts = [part for p in argument(user, 0) for part in (slots if p is joined else [p])]
            user.args = (parts, axis)
            user.meta[JOINED] = True
        elif user.target is aten.slice.Tensor and _axis(user, 1) == axis and _step(user) == 1:
            _cut(graph, user, slots, axis)
        elif user.target is aten.select.int and _axis(user, 1) == axis:
            user.args = (slots[argument(user, 2)], axis, 0)
        elif user.target in (aten.clone.default, aten.alias.default):
            user.replace_all_uses_with(joined)
            _spread(graph, joined, axis)
            return
    if not joined.users:
        graph.erase_node(joined)


def _cut(graph: fx.Graph, cut: fx.Node, slots: Sequence[fx.Node], axis: int) -> None:
    start, end = (argument(cut, place) if len(cut.args) > place else None for place in (2, 3))
    kept = slots[start:end]
    if len(kept) == 1:
        cut.replace_all_uses_with(kept[0])
    else:
        with graph.inserting_before(cut):
            joined = _call(graph, aten.cat.default, list(kept), axis)
        cut.replace_all_uses_with(joined)
        _spread(graph, joined, axis)
    graph.erase_node(cut)


def _axis(node: fx.Node, position: int) -> int:
    """The axis that a join (whose first argument is a list) or a cut works on."""
    axis: Any = argument(node, position) if len(node.args) > position else node.kwargs.get("dim", 0)
    return int(axis) % len(node.all_input_nodes[0].meta["val"].shape)


def _step(node: fx.Node) -> int:
    return int(argument(node, 4)) if len(node.args) > 4 else 1


@dataclass(frozen=True)
class _State:
    """A state on both sides of a `Whole`: its queue, None where it stays one port."""

    queue: Queue | None

    def parts(self, value: Tensor) -> list[Tensor]:
        return [value] if self.queue is None else list(torch.split(value, 1, self.queue.axis))

    def count(self) -> int:
        return 1 if self.queue is None else self.queue.added


class Whole(nn.Module):
    """A graph with slots, called with whole states and giving whole states: what the graph before was."""

    def __init__(self, draft: Draft, graph: nn.Module, queues: Mapping[int, Queue]) -> None:
        """Wrap `graph`, which has the logical axes."""
        super().__init__()
        self.graph = graph
        self._inputs, self._outputs = len(draft.program.inputs), len(draft.program.outputs)
        self._states = [_State(queues.get(number)) for number in range(len(draft.program.states))]

    def forward(self, *values: Tensor) -> list[Tensor]:
        """One step."""
        held = [state.parts(value) for state, value in zip(self._states, values[self._inputs :], strict=True)]
        results = list(self.graph(*values[: self._inputs], *(part for parts in held for part in parts)))
        found, rest = results[: self._outputs], iter(results[self._outputs :])
        for state, parts in zip(self._states, held, strict=True):
            after = moved_up(parts, [next(rest) for _ in range(state.count())])
            found.append(after[0] if state.queue is None else torch.cat(after, state.queue.axis))
        return found
