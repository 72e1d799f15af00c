"""Spelling a lowered graph the way XNNPACK's delegate accepts it, and giving int8 graphs int8 ports.

Which ATen operators are delegated is decided operator by operator in
`executorch/backends/xnnpack/partition/config` (1.4.1): the mean of the last two axes with `keepdim` but no
other mean, division but no reciprocal, slices but no select, reshapes but no squeeze.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from mvtool.converters.rewrites.nodes import argument
from mvtool.converters.tflite_layout import TO_FIRST, TO_LAST, channels_last_inside
from mvtool.program import StreamProgram
from mvtool.quantization.policy import CLAMP_OPERATORS

if TYPE_CHECKING:
    from torch.export import ExportedProgram

aten = torch.ops.aten
RESHAPED = frozenset({"squeeze", "unsqueeze", "flatten", "unflatten", "view", "_unsafe_view"})
"""Operators that only rename axes: the values keep their order in memory."""
NARROW_INTEGERS = (torch.int32, torch.uint8)
SPLITS = frozenset({"split", "split_with_sizes", "chunk"})

Writer = Callable[[fx.Graph, fx.Node], fx.Node | None]


def spelled(program: StreamProgram) -> StreamProgram:
    """The program with channels-last values between operators, in operators that XNNPACK takes.

    Permutations stand directly around the operators that work on (N, C, H, W) pictures;
    `executorch_xnnpack` removes them again, because XNNPACK computes channels-last.
    """
    exported = channels_last_inside(program.exported)
    graph = exported.graph_module.graph
    for node in list(graph.nodes):
        if node.op == "call_function":
            _respell(graph, node)
    for node in list(graph.nodes):
        if node.op == "call_function" and _name(node) in CLAMP_OPERATORS:
            _clamp_in_place(graph, node)
    graph.eliminate_dead_code()
    exported.graph_module.recompile()
    return program.replace(exported=exported)


def with_int8_ports(exported: ExportedProgram, positions: set[int], results: set[int]) -> ExportedProgram:
    """A copy of a PT2E program whose ports take and give the int8 values themselves.

    Args:
        exported: Quantize alone reads the inputs in `positions`; dequantize makes every result in `results`.
        positions: Inputs to change, by position.
        results: Results to change, by position.
    """
    from torch.export.graph_signature import TensorArgument

    changed = copy.deepcopy(exported)
    graph, signature = changed.graph_module.graph, changed.graph_signature
    named = {node.name: node for node in graph.nodes}
    for position, name in enumerate(signature.user_inputs):
        if position in positions:
            placeholder = named[str(name)]
            placeholder.meta["val"] = placeholder.meta["val"].to(torch.int8)
            for quantize in list(placeholder.users):
                quantize.replace_all_uses_with(placeholder)
                graph.erase_node(quantize)
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    values = list(output.args[0])
    for position in results:
        values[position] = values[position].args[0]
        signature.output_specs[position].arg = TensorArgument(name=values[position].name)
    output.args = (tuple(values),)
    graph.eliminate_dead_code()
    changed.graph_module.recompile()
    return changed


def biases_apart(exported: ExportedProgram) -> ExportedProgram:
    """A copy in which dense layers with int8 weights and float activations add their bias by an operator of its own.

    XNNPACK's float kernels with int8 weights multiply the bias by the weight scale too (observed with
    executorch 1.4.1: results off by the bias, and exact without one).
    """
    changed = copy.deepcopy(exported)
    graph = changed.graph_module.graph
    for node in list(graph.nodes):
        bias = node.args[2] if node.target is aten.linear.default and len(node.args) > 2 else None
        if bias is None or not is_weight_only(node):
            continue
        node.args = node.args[:2]
        with graph.inserting_after(node):
            total = graph.call_function(aten.add.Tensor, (node, bias))
        total.meta = dict(node.meta)
        node.replace_all_uses_with(total, delete_user_cb=lambda user, total=total: user is not total)
    changed.graph_module.recompile()
    return changed


def inputs_apart(exported: ExportedProgram) -> ExportedProgram:
    """A copy of a program whose results that are inputs are copies of them.

    Such a result would be the input's own tensor: who places its memory would place the input's.
    """
    changed = copy.deepcopy(exported)
    graph, output = changed.graph, changed.graph.output_node()
    results = list(argument(output, 0))
    for position, node in enumerate(results):
        if node.op == "placeholder":
            with graph.inserting_before(output):
                results[position] = graph.call_function(aten.clone.default, (node,))
            results[position].meta["val"] = node.meta["val"]
            changed.graph_signature.output_specs[position].arg.name = results[position].name
    output.args = (tuple(results),)
    changed.graph_module.recompile()
    return changed


def is_weight_only(node: fx.Node) -> bool:
    """Whether a dense layer, of ATen or of the exporter's own dialect, has int8 weights and computes on floats.

    Only one that reads int8 and makes int8 is an int8 kernel, and one that reads what was rounded at run time is a dynamic one.
    """
    source, weight = node.args[:2]
    if not isinstance(weight, fx.Node) or "dequantize_per_channel" not in str(weight.target):
        return False
    if isinstance(source, fx.Node) and "quantized_decomposed.dequantize_per_tensor.tensor" in str(source.target):
        return False
    reads = isinstance(source, fx.Node) and "quantized_decomposed.dequantize_per_tensor" in str(source.target)
    return not (reads and _leads_to_quantize(node))


def _leads_to_quantize(node: fx.Node) -> bool:
    """Whether a quantize alone reads the node, or a clamp of it that one kernel computes with it."""
    users = list(node.users)
    if len(users) == 1 and any(clamp in str(users[0].target) for clamp in ("relu", "hardtanh")):
        users = list(users[0].users)
    return len(users) == 1 and _is_quantize(users[0])


def _is_quantize(node: fx.Node) -> bool:
    return "quantized_decomposed.quantize_per_tensor" in str(node.target)


def _name(node: fx.Node) -> str:
    return node.target.overloadpacket.__name__ if hasattr(node.target, "overloadpacket") else ""


def _clamp_in_place(graph: fx.Graph, node: fx.Node) -> None:
    """Clamp a convolution's result before it is permuted: XNNPACK computes the two as one, without rounding between."""
    permuted, *bounds = node.args
    if not isinstance(permuted, fx.Node) or _name(permuted) != "permute" or len(permuted.users) != 1:
        return
    convolved = permuted.args[0]
    if not isinstance(convolved, fx.Node) or _name(convolved) != "conv2d" or len(convolved.users) != 1:
        return
    with graph.inserting_before(node):
        clamped = _call(graph, node.target, (convolved, *bounds))
        node.replace_all_uses_with(_call(graph, aten.permute.default, (clamped, permuted.args[1])))
    graph.erase_node(node)


def _slices(graph: fx.Graph, node: fx.Node) -> None:
    """The parts of a split, each as a slice."""
    arguments: tuple[Any, ...] = node.args
    source, _, axis = (*arguments, node.kwargs.get("dim", 0))[:3]
    sizes = [part.shape[axis] for part in node.meta["val"]]
    for part in list(node.users):
        number = argument(part, 1)
        start = sum(sizes[:number])
        with graph.inserting_before(part):
            piece = _call(graph, aten.slice.Tensor, (source, axis, start, start + sizes[number]))
        part.replace_all_uses_with(piece)
        graph.erase_node(part)
    graph.erase_node(node)


def _respell(graph: fx.Graph, node: fx.Node) -> None:
    name = _name(node)
    if name in SPLITS:
        _slices(graph, node)
        return
    writer = WRITERS.get(name) or (_reshape if name in RESHAPED else None)
    if writer is None:
        return
    with graph.inserting_before(node):
        replacement = writer(graph, node)
    if replacement is not None:
        node.replace_all_uses_with(replacement)
        graph.erase_node(node)


def _call(graph: fx.Graph, target: Any, arguments: tuple[Any, ...]) -> fx.Node:
    node = graph.call_function(target, arguments)
    values = fx.map_arg(arguments, lambda n: n.meta["val"])
    node.meta["val"] = target(*values)
    return node


def _reshape(graph: fx.Graph, node: fx.Node) -> fx.Node:
    return _call(graph, aten.reshape.default, (node.args[0], list(node.meta["val"].shape)))


def _mean(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """A mean over neighbouring axes, or over all frames and positions of a clip, as that of a picture's last two axes."""
    arguments: tuple[Any, ...] = node.args
    source = arguments[0]
    shape, result = list(source.meta["val"].shape), list(node.meta["val"].shape)
    axes = sorted(axis % len(shape) for axis in arguments[1] or ())
    if len(shape) == 4 and axes in ([1, 2], [0, 1, 2]):
        source = _call(graph, aten.permute.default, (source, list(TO_FIRST)))
    elif len(shape) != 4 or axes not in ([2, 3], [0, 2, 3]):
        return _mean_of_rows(graph, source, axes, result)
    value = _call(graph, aten.mean.dim, (source, [2, 3], True))
    if len(axes) == 3:  # (T, C, 1, 1): the frames become the rows of one picture
        frames = _call(graph, aten.permute.default, (value, [2, 1, 0, 3]))
        value = _call(graph, aten.mean.dim, (frames, [2, 3], True))
    value = _call(graph, aten.permute.default, (value, list(TO_LAST))) if axes[-1] == 2 else value
    return value if list(value.meta["val"].shape) == result else _call(graph, aten.reshape.default, (value, result))


def _mean_of_rows(graph: fx.Graph, source: fx.Node, axes: list[int], result: list[int]) -> fx.Node | None:
    """The mean over neighbouring axes with others behind them: of the rows of a picture one pixel wide."""
    shape = list(source.meta["val"].shape)
    if not axes or axes != list(range(axes[0], axes[-1] + 1)):
        return None
    before, rows, behind = (
        math.prod(part) for part in (shape[: axes[0]], shape[axes[0] : axes[-1] + 1], shape[axes[-1] + 1 :])
    )
    value = _call(graph, aten.reshape.default, (source, [before, rows, 1, behind]))
    value = _call(graph, aten.permute.default, (value, list(TO_FIRST)))
    value = _call(graph, aten.mean.dim, (value, [2, 3], True))
    return _call(graph, aten.reshape.default, (value, result))


def _amax(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """The largest value of a picture, as a pool of its whole size."""
    arguments: tuple[Any, ...] = node.args
    source, result = arguments[0], list(node.meta["val"].shape)
    axes = sorted(axis % 4 for axis in arguments[1] or ())
    if source.meta["val"].dim() != 4 or axes not in ([1, 2], [2, 3]):
        return None
    first = axes[-1] == 2
    value = _call(graph, aten.permute.default, (source, list(TO_FIRST))) if first else source
    value = _call(graph, aten.max_pool2d.default, (value, list(value.meta["val"].shape[2:]), [1, 1]))
    value = _call(graph, aten.permute.default, (value, list(TO_LAST))) if first else value
    return value if list(value.meta["val"].shape) == result else _call(graph, aten.reshape.default, (value, result))


def _select(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    source, axis, index = node.args
    size = source.meta["val"].shape[axis]  # type: ignore[union-attr]
    start = index % size
    part = _call(graph, aten.slice.Tensor, (source, axis, start, start + 1))
    return _call(graph, aten.reshape.default, (part, list(node.meta["val"].shape)))


def _silu(graph: fx.Graph, node: fx.Node) -> fx.Node:
    return _call(graph, aten.mul.Tensor, (node.args[0], _call(graph, aten.sigmoid.default, (node.args[0],))))


def _hardsigmoid(graph: fx.Graph, node: fx.Node) -> fx.Node:
    scaled = _call(graph, aten.mul.Tensor, (node.args[0], 1.0 / 6.0))
    return _call(graph, aten.clamp.default, (_call(graph, aten.add.Tensor, (scaled, 0.5)), 0.0, 1.0))


def _pad(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    mode = node.args[2] if len(node.args) > 2 else "constant"
    value = node.args[3] if len(node.args) > 3 and node.args[3] is not None else 0.0
    if mode != "constant":
        return None
    return _call(graph, aten.constant_pad_nd.default, (node.args[0], node.args[1], value))


def _whole_number(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Arithmetic of an integer without axes and a number, as that of a tensor (1,).

    The exporter makes the number an int64 without axes, and two of these have the wider type as their result.
    """
    source, value = node.args[0], node.meta["val"]
    if value.dim() or value.dtype not in NARROW_INTEGERS or node.all_input_nodes != [source] or node.kwargs:
        return None
    widened = _call(graph, aten.reshape.default, (source, [1]))
    return _call(graph, aten.reshape.default, (_call(graph, node.target, (widened, *node.args[1:])), []))


WRITERS: dict[str, Writer] = {
    **dict.fromkeys(("add", "sub", "mul", "rsub", "remainder"), _whole_number),
    "amax": _amax,
    "mean": _mean,
    "select": _select,
    "silu": _silu,
    "hardsigmoid": _hardsigmoid,
    "pad": _pad,
}
