"""Float16 arithmetic in the simulation of an int8 Core ML artifact.

Such an artifact computes in float16 between its int8 operators, and one rounding to 11 bits moves a value that lies
near the border of two int8 steps across it. A float32 simulation would therefore differ by steps that no fault of the
artifact causes. Here every result is rounded to float16 as Core ML stores it, but for what the artifact keeps in
float32: the update of accumulators (running means, counters), and what is computed from them and from constants alone, such
as the encoding of a position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mvtool.ports import StateForm
from mvtool.runtimes.pytorch import PURE
from mvtool.runtimes.tap_sums import convolution
from mvtool.verification.integers import dequantize

if TYPE_CHECKING:
    from torch import Tensor

    from mvtool.program import StreamProgram

FLOAT16_SMALLEST_NORMAL = 2.0**-14
"""IEEE 754-2008, table 3.5; a smaller scale stays float32 in the artifact."""
ACCUMULATORS = frozenset({StateForm.MEAN, StateForm.COUNTER, StateForm.PHASE})
SUMS = frozenset({"conv2d", "linear", "matmul", "bmm", "mm", "mean", "sum", "avg_pool2d"})
# Element-wise operators of an accumulator's update.
UPDATES = frozenset({"add", "sub", "mul", "div", "maximum", "minimum", "clamp", "where", "reshape", "view", "squeeze"})


def half_precision(program: StreamProgram) -> Callable[[Any], None]:
    """An edit of the simulation's graph module that rounds as a float16 program does.

    Args:
        program: The quantized program; its states say which are accumulators.
    """

    def edit(module: Any) -> None:
        exact = _exact_nodes(program, module.graph)
        for node in list(module.graph.nodes):
            if _operator(node) in GRIDS:
                _half_scale(node)
                node.target = GRIDS[_operator(node)]
            if _operator(node) in SUMS:
                _widen(module.graph, node)
            if not _is_float_result(node):
                continue
            if node in exact or node.op == "get_attr":
                # What computes in float16 takes its operands in float16, what computes in float32 its constants in float32.
                _round_for(module.graph, node, [r for r in node.users if r not in exact and r.op != "output"])
            elif "hardswish" in str(node.target):
                node.target = hard_swish
            else:
                _round_for(module.graph, node, list(node.users))
        module.recompile()

    return edit


def _half_scale(node: Any) -> None:
    """Core ML stores the scale in the type of the arithmetic, as long as it can hold it."""
    scale = float(node.args[1])
    if scale >= FLOAT16_SMALLEST_NORMAL:
        node.args = (node.args[0], float(np.float16(scale)), *node.args[2:])


def steps_of(value: Tensor, scale: float) -> Tensor:
    """`value` in steps of an int8 grid, by division as Core ML defines it; PyTorch multiplies by the inverse."""
    return value / scale


def quantize(value: Tensor, scale: float, zero_point: int, low: int, high: int, dtype: Any) -> Tensor:
    """The grid's integers, halves to even."""
    return steps_of(value, scale).round_().add_(zero_point).clamp_(low, high).to(dtype)


GRIDS: dict[str, Callable[..., Tensor]] = {"quantize_per_tensor": quantize, "dequantize_per_tensor": dequantize}


def _widen(graph: Any, node: Any) -> None:
    """Compute sums in float64: the order of their terms then makes no difference to their float16 rounding."""
    with graph.inserting_before(node):
        node.args = tuple(graph.call_function(to_wide, (a,)) if isinstance(a, type(node)) else a for a in node.args)
    node.target = _wide(node.target)


def _wide(target: Any) -> Callable[..., Tensor]:
    compute = convolution if target.overloadpacket.__name__ == "conv2d" else target

    def wide(*arguments: Any) -> Tensor:
        result: Tensor = compute(*arguments)
        return result.float()

    wide.__name__ = f"wide_{target.overloadpacket.__name__}"
    return wide


def to_wide(value: Any) -> Any:
    """A tensor in float64; whatever else an argument may be as it is."""
    return value.double() if hasattr(value, "double") else value


def to_half(value: Tensor) -> Tensor:
    """Round to float16 and back."""
    return value.half().float()


for function in (to_half, to_wide, quantize):
    setattr(function, PURE, True)


def hard_swish(value: Tensor) -> Tensor:
    """Hard-swish as Core ML computes it in float16: a thresholded value times a rounded hard sigmoid."""
    gate = to_half((value / 6.0).add_(0.5).clamp_(0.0, 1.0))
    return to_half(value * gate)


def _round_for(graph: Any, node: Any, readers: Sequence[Any]) -> None:
    """Let `readers` see what `node` computes rounded to float16."""
    if not readers:
        return
    with graph.inserting_after(node):
        rounded = graph.call_function(to_half, (node,))
    for reader in readers:
        reader.replace_input_with(node, rounded)


def _is_float_result(node: Any) -> bool:
    import torch

    value = node.meta.get("val")
    computed = node.op in ("call_function", "get_attr", "placeholder")
    return computed and isinstance(value, torch.Tensor) and value.dtype == torch.float32 and bool(node.users)


def _exact_nodes(program: StreamProgram, graph: Any) -> set[Any]:
    """Accumulators, their updates, and what is computed from accumulators and constants alone."""
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    results = graph.output_node().args[0]
    loops = program.loops(placeholders[len(program.inputs) :], results[len(program.outputs) :])
    sums = [loop for state, loop in zip(program.states, loops, strict=True) if state.form in ACCUMULATORS]
    before = {node for nodes, _ in sums for node in nodes}
    after = {node for _, nodes in sums for node in nodes}
    updates = _reach(before, lambda node: node.users) & _reach(after, lambda node: node.all_input_nodes)
    return before | after | updates | _derived(graph, before)


def _reach(start: set[Any], neighbours: Callable[[Any], Iterable[Any]]) -> set[Any]:
    found, open_ends = set(start), list(start)
    while open_ends:
        for node in neighbours(open_ends.pop()):
            if node not in found and _operator(node) in UPDATES:
                found.add(node)
                open_ends.append(node)
    return found


def _derived(graph: Any, sources: set[Any]) -> set[Any]:
    derived = set(sources)
    for node in graph.nodes:
        operands = [n for n in node.all_input_nodes if n.op != "get_attr"]
        if node.op == "call_function" and operands and all(n in derived for n in operands):
            derived.add(node)
    return derived


def _operator(node: Any) -> str:
    """`add` of `aten.add.Tensor`; nothing of ports and weights, which may be called so too."""
    if node.op != "call_function":
        return ""
    name = str(node.target)
    return name.split(".")[1] if name.startswith(("aten.", "quantized_decomposed.")) else name
