"""True ranges of every tensor inside a graph, observed while the stream rolls."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mvtool.errors import ConversionError
from mvtool.program import StreamProgram
from mvtool.quantization.calibration import CalibrationSet, Range

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node


def observe(program: StreamProgram, graph: GraphModule, calibration: CalibrationSet) -> dict[str, Range]:
    """Minimum and maximum of every float tensor of `graph`, by node name.

    Args:
        program: A lowered program; `graph` is its `exported.module()`, or one with the same inputs and outputs.
        graph: The graph to observe; it is not changed.
        calibration: Clips; each starts from the initial state.

    Raises:
        ConversionError: A tensor is not finite.
    """
    import torch

    skipped = len(program.outputs)
    names: list[str] = []
    watching: GraphModule | None = None
    lows = highs = torch.empty(0)
    with torch.no_grad():
        for clip in calibration.clips:
            states = [torch.from_numpy(array) for array in program.initial_ports()]
            for step in clip:
                frames = [torch.from_numpy(port.encode(a)) for port, a in zip(program.inputs, step, strict=True)]
                if watching is None:
                    names = _float_tensors(graph, [*frames, *states])
                    watching = _watching(graph, frozenset(names))
                    lows, highs = torch.full((len(names),), math.inf), torch.full((len(names),), -math.inf)
                *results, low, high = watching(*frames, *states)
                states = program.following(states, results[skipped:])
                torch.minimum(lows, low, out=lows)
                torch.maximum(highs, high, out=highs)
    return {name: _finite(name, *ends) for name, *ends in zip(names, lows.tolist(), highs.tolist(), strict=True)}


def _float_tensors(graph: GraphModule, arguments: list[Tensor]) -> list[str]:
    """Names of the nodes that have a range, in the order of the graph; found by one call, as not every node tells its type."""
    import torch
    from torch.fx import Interpreter

    names: list[str] = []

    class Finder(Interpreter):
        def run_node(self, n: Node) -> Any:
            value = super().run_node(n)
            if n.op != "output" and isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel():
                names.append(n.name)
            return value

    Finder(graph).run(*arguments)
    return names


def _watching(graph: GraphModule, watched: frozenset[str]) -> GraphModule:
    """The graph with two more outputs, the minima and the maxima of the tensors that are watched.

    Called as code it takes half the time of an interpreter that looks at every value.
    """
    import torch
    from torch.fx import Graph, GraphModule

    observing = Graph()
    copies: dict[Node, Node] = {}
    ends: list[tuple[Node, Node]] = []
    for node in graph.graph.nodes:
        if node.op == "output":
            both = [observing.call_function(torch.stack, (list(one),)) for one in zip(*ends, strict=True)]
            results = torch.fx.map_arg(node.args[0], lambda n: copies[n])
            observing.output((*results, *both))
            continue
        copies[node] = observing.node_copy(node, lambda n: copies[n])
        if node.name in watched:
            single = observing.call_method("float", (copies[node],))
            ends.append(
                (observing.call_function(torch.amin, (single,)), observing.call_function(torch.amax, (single,)))
            )
    return GraphModule(graph, observing)


def _finite(name: str, low: float, high: float) -> Range:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ConversionError(
            f"Tensor {name!r} is not finite during calibration (range {low} .. {high}). "
            "Check the weights, and that the calibration frames are preprocessed as in training."
        )
    return Range(low, high)
