"""Graph changes without which coremltools 9.0 refuses a program, or writes a wrong one.

Each keeps the values: decompositions of operators that coremltools lacks (GRU and LSTM among them),
constants that it would fold with an int8 overflow, and outputs that are not tensors of their own.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from mvtool.converters.decomposition import in_one_pass
from mvtool.errors import ConversionError
from mvtool.ports import StateForm
from mvtool.program import StreamProgram

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import Node

MAX_RANK = 4
# A decomposition may bring in operators that need one themselves; nothing seen needs more than two rounds.
DECOMPOSITION_ROUNDS = 4


def prepared(program: StreamProgram) -> ExportedProgram:
    """A copy of the program's graph that coremltools can read.

    Raises:
        ConversionError: An operator has neither a Core ML form nor a decomposition, or a tensor has
            more than 4 axes.
    """
    exported = _without_unknown_operators(_copied(program.exported), program.info.name)
    _refuse_high_ranks(exported, program.info.name)
    _fold_scalar_dequantizations(exported)
    _separate_outputs(exported)
    exported.graph_module.recompile()
    return exported


def accumulators(program: StreamProgram, exported: ExportedProgram) -> frozenset[str]:
    """Names of the states that add up over the whole stream.

    Such a state is a running mean or a vector (no more than one axis longer than 1) that reaches its own
    next value through element-wise arithmetic alone: running means, sums, counters, gated averages.

    Args:
        program: Names the states.
        exported: Its prepared graph.
    """
    signature = exported.graph_signature
    nodes = {node.name: node for node in exported.graph.nodes}
    sources = signature.user_inputs[len(program.inputs) :]
    results = signature.user_outputs[len(program.outputs) :]
    return frozenset(
        state.logical.name
        for state, ((source, *_), (result, *_)) in zip(program.states, program.loops(sources, results), strict=True)
        if (state.form is StateForm.MEAN or sum(size > 1 for size in state.input.shape) <= 1)
        and state.input.dtype == "float32"
        and _reaches(nodes[str(source)], nodes[str(result)])
    )


def _copied(exported: ExportedProgram) -> ExportedProgram:
    """A copy in the dialect that coremltools reads, ATEN.

    `run_decompositions` traces the graph anew, 8 s of processor time for an int8 MoViNet-A0. A graph
    whose operators it would leave as they are is copied instead.
    """
    import torch

    if not all(_is_plain(node.target) for node in _calls(exported)):
        with in_one_pass():
            traced: ExportedProgram = exported.run_decompositions({})
        return traced
    return torch.export.ExportedProgram(
        root=exported.graph_module,
        graph=copy.deepcopy(exported.graph),
        graph_signature=copy.deepcopy(exported.graph_signature),
        state_dict=exported.state_dict,
        range_constraints=exported.range_constraints,
        module_call_graph=exported.module_call_graph,
        example_inputs=exported.example_inputs,
        constants=exported.constants,
    )


def _is_plain(target: Any) -> bool:
    """Whether an operator changes nothing in place and is not composed of others, or is read whole."""
    import torch

    aten = torch.ops.aten
    if target is operator.getitem:
        return True
    if not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable:
        return False
    read_whole = {aten.conv1d.default, aten.conv2d.default, aten.linear.default, aten.reshape.default, aten.pad.default}
    composed = target.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    return target in read_whole or not composed


def _without_unknown_operators(exported: ExportedProgram, model: str) -> ExportedProgram:
    table: Mapping[Any, Callable[..., Any]] | None = None
    for _ in range(DECOMPOSITION_ROUNDS):
        unknown = _unknown_operators(exported)
        if not unknown:
            return exported
        table = table or _decompositions()
        known = {target: table[target] for target in unknown if target in table}
        if not known:
            break
        exported = exported.run_decompositions(known)
    unknown = _unknown_operators(exported)
    if unknown:
        names = ", ".join(sorted(str(target) for target in unknown))
        raise ConversionError(
            f"{model!r} uses operators that Core ML has no form for: {names}. Expected operators that "
            "coremltools or PyTorch's decompositions cover. Replace them in the model, or convert without "
            "the target 'coreml'."
        )
    return exported


def _decompositions() -> Mapping[Any, Callable[..., Any]]:
    import torch

    return torch.export.default_decompositions()


def _unknown_operators(exported: ExportedProgram) -> set[Any]:
    from coremltools.converters.mil.frontend.torch import is_torch_fx_node_supported

    # Asked by the full name, as the frontend looks it up; for a node the function drops the namespace.
    unknown = set()
    for target in {node.target for node in _calls(exported)} - {operator.getitem}:
        name = target.name() if hasattr(target, "name") else getattr(target, "__name__", str(target))
        if not is_torch_fx_node_supported(SimpleNamespace(op="call_function", target=name)):
            unknown.add(target)
    return unknown


def _calls(exported: ExportedProgram) -> Iterable[Node]:
    return [node for node in exported.graph.nodes if node.op == "call_function"]


def _refuse_high_ranks(exported: ExportedProgram, model: str) -> None:
    """Refuse tensors of a step with more than 4 axes; constants are reshaped during the conversion."""
    inputs = set(exported.graph_signature.user_inputs)
    computed: set[Node] = set()
    for node in exported.graph.nodes:
        if node.name not in inputs and not computed.intersection(node.all_input_nodes):
            continue
        computed.add(node)
        value = node.meta.get("val")
        rank = getattr(value, "ndim", 0)
        if rank > MAX_RANK:
            what = getattr(node.target, "__name__", node.target)
            raise ConversionError(
                f"{model!r} holds a tensor of {rank} axes {tuple(value.shape)} at {node.name!r} ({what}); the Core ML "
                f"artifact may hold at most {MAX_RANK}. Lower the program first (`mvtool.converters.lowering`)."
            )


def _fold_scalar_dequantizations(exported: ExportedProgram) -> None:
    """Replace `dequantize(scalar constant)` by its value.

    coremltools 9.0 subtracts the zero point in int8 there, so the constant 1 stored as 127 with zero
    point -128 becomes `scale * -1` (`frontend/torch/quantization_ops.py`, `_dequantize_general`).
    """
    for node in list(_calls(exported)):
        if "dequantize" not in getattr(node.target, "__name__", "") or node.meta["val"].ndim != 0:
            continue
        stored = _constant(exported, node.args[0])
        if stored is None:
            continue
        scale, zero_point = node.args[1], node.args[2]
        value = (float(stored) - float(_scalar(exported, zero_point))) * float(_scalar(exported, scale))
        for user in list(node.users):
            user.replace_input_with(node, value)  # type: ignore[arg-type]
        exported.graph.erase_node(node)


def _constant(exported: ExportedProgram, node: Any) -> torch.Tensor | None:
    signature = exported.graph_signature
    for names, values in (
        (signature.inputs_to_parameters, exported.state_dict),
        (signature.inputs_to_buffers, exported.state_dict),
        (signature.inputs_to_buffers, exported.constants),
        (signature.inputs_to_lifted_tensor_constants, exported.constants),
    ):
        key = names.get(node.name)
        if key is not None and key in values:
            return cast("torch.Tensor", values[key])
    return None


def _scalar(exported: ExportedProgram, argument: Any) -> Any:
    return argument if isinstance(argument, (int, float)) else _constant(exported, argument)


def _separate_outputs(exported: ExportedProgram) -> None:
    """Give every output a tensor of its own.

    coremltools 9.0 loses a port where an output is an input, or where two outputs are one tensor, and
    drops every operator that does nothing; `maximum(x, x)` is `x` and stays.
    """
    import torch

    output = exported.graph.output_node()
    results = list(cast("tuple[Node, ...]", output.args[0]))
    taken: set[Node] = set()
    for index, node in enumerate(results):
        root = _root(node)
        if root.op == "placeholder" or root in taken:
            boolean = root.meta["val"].dtype is torch.bool
            target = torch.ops.aten.logical_and.default if boolean else torch.ops.aten.maximum.default
            with exported.graph.inserting_before(output):
                copy = exported.graph.call_function(target, (node, node))
            copy.meta["val"] = node.meta["val"]
            results[index] = copy
            exported.graph_signature.output_specs[index].arg.name = copy.name
        taken.add(root)
    output.args = (tuple(results),)


def _root(node: Node) -> Node:
    """Where the values of `node` come from, through operators that keep every element in place."""
    import torch

    aten = torch.ops.aten
    keeping = {
        aten.clone.default, aten.alias.default, aten.detach.default, aten.contiguous.default, aten.view.default,
        aten.reshape.default, aten._unsafe_view.default, aten.slice.Tensor, aten.expand.default,
        aten._to_copy.default, aten.dropout.default, aten.lift_fresh_copy.default,
    }  # fmt: skip
    neutral = {aten.mul.Tensor: 1, aten.div.Tensor: 1, aten.add.Tensor: 0, aten.sub.Tensor: 0}
    while node.op == "call_function":
        if node.target not in keeping and not _is_neutral(node, neutral):
            break
        source = node.args[0]
        if not isinstance(source, type(node)) or source.meta["val"].shape != node.meta["val"].shape:
            break
        if source.meta["val"].dtype != node.meta["val"].dtype:
            break
        node = source
    return node


def _is_neutral(node: Node, neutral: Mapping[Any, int]) -> bool:
    """Whether `node` multiplies by one, adds zero, or permutes nothing."""
    import torch

    if node.target is torch.ops.aten.permute.default:
        order = cast("list[int]", node.args[1])
        return list(order) == sorted(order)
    return node.target in neutral and node.args[1:] == (neutral[node.target],)


def _reaches(source: Node, result: Node) -> bool:
    """Whether element-wise arithmetic alone leads from `source` to `result`."""
    import torch

    aten = torch.ops.aten
    arithmetic = {
        aten.add.Tensor, aten.sub.Tensor, aten.rsub.Scalar, aten.mul.Tensor, aten.div.Tensor, aten.lerp.Scalar,
        aten.lerp.Tensor, aten.clone.default, aten.view.default, aten.reshape.default, aten.expand.default,
        aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.remainder.Scalar, aten.maximum.default,
        aten.minimum.default, aten.clamp.default, aten.where.self,
    }  # fmt: skip
    seen: set[Node] = set()
    waiting = [source]
    while waiting:
        node = waiting.pop()
        for user in node.users:
            if user in seen or user.op != "call_function" or user.target not in arithmetic:
                continue
            if user is result:
                return True
            seen.add(user)
            waiting.append(user)
    return False
