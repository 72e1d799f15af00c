"""ExecuTorch's passes without executing the graph after each.

The exporter decomposes operators by tracing the whole graph, and some twenty passes each end by interpreting it once to
refresh its metadata: half of a conversion and more. Most of them change nothing, or rename operators one by one. Here such
passes edit the graph where it stands, and example values are computed for what they changed. Graphs that need more go the
exporter's own way; the files are the same to the byte either way. Written against executorch 1.4.1, which the extra pins.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from mvtool.extras import require

if TYPE_CHECKING:
    import torch
    from torch import fx
    from torch.export import ExportedProgram

PURPOSE = "to write ExecuTorch programs"
HOOKS = ("call_operator", "call_submodule", "call_getitem", "placeholder", "output", "call_cond", "call_map")
"""Methods by which a pass changes what it interprets."""


@contextmanager
def without_retracing() -> Iterator[None]:
    """Inside, passes and decompositions edit graphs in place where that comes to the same."""
    from torch._export.passes.replace_view_ops_with_view_copy_ops_pass import ReplaceViewOpsWithViewCopyOpsPass
    from torch.export import ExportedProgram
    from torch.fx.passes.infra.pass_base import PassResult

    base = require("executorch.exir.pass_base", PURPOSE)
    interpret, decompose, copy_views = (
        base.ExportPass.call,
        ExportedProgram.run_decompositions,
        ReplaceViewOpsWithViewCopyOpsPass.call,
    )

    def call(self: Any, module: Any) -> Any:
        name = type(self).__name__
        nodes = [node for node in module.graph.nodes if node.op == "call_function"]
        if name in IN_PLACE:
            IN_PLACE[name](module)
        elif name in ACTS_ON:
            if any(map(ACTS_ON[name], nodes)):
                return interpret(self, module)
        elif any(getattr(type(self), h, None) is not getattr(base.ExportPass, h, None) for h in HOOKS) or (
            name in CHANGE_SHAPES and not all(map(_has_value, nodes))
        ):
            return interpret(self, module)
        # Interpreting a graph makes lowered modules its own, which later passes count on.
        if any(_lacks_value(module, node, modules=name == "ExportPass") for node in module.graph.nodes):
            return interpret(self, module)
        fill_values(module)
        return base.PassResult(module, True)

    def decomposed(self: ExportedProgram, decomp_table: Any = None, **options: Any) -> ExportedProgram:
        if not options and decomp_table is not None and write_out(self, decomp_table):
            return self
        traced: ExportedProgram = decompose(self, decomp_table, **options)
        return traced

    def copied(self: Any, module: Any) -> Any:
        if not all(_is_functional(n) for n in module.graph.nodes if n.op == "call_function"):
            return copy_views(self, module)
        views_to_copies(module)
        return PassResult(module, True)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(base.ExportPass, "call", call))
        stack.enter_context(mock.patch.object(ExportedProgram, "run_decompositions", decomposed))
        stack.enter_context(mock.patch.object(ReplaceViewOpsWithViewCopyOpsPass, "call", copied))
        yield


def write_out(exported: ExportedProgram, table: Mapping[Any, Any]) -> bool:
    """Write the operators of a functional graph that `table` decomposes in those that they come to.

    Args:
        exported: Changed in place, if all of it can be written so: nothing but 2D convolutions and reshapes of values that lie
            in order is in the table.
        table: Of decompositions, as `ExportedProgram.run_decompositions` takes it.

    Returns:
        Whether it could.
    """
    from torch.fx.traceback import NodeSource

    graph = exported.graph_module.graph
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    if not all(map(_is_functional, nodes)):
        return False
    written = {node: _written(node) for node in nodes if _is_decomposed(node.target, table)}
    if not all(written.values()):
        return False
    for node, found in written.items():
        if found is not None:
            node.target, node.args = found
    graph.eliminate_dead_code()
    for node in graph.nodes:
        # The exporter numbers operators by what they were traced from, one of several results by what made them.
        node.meta["from_node"] = [NodeSource(node.args[0] if node.target is operator.getitem else node)]
    exported.graph_module.recompile()
    return True


def _is_decomposed(target: Any, table: Mapping[Any, Any]) -> bool:
    """Whether `ExportedProgram.run_decompositions` would leave nothing of an operator.

    Composite operators that may give a view of their argument fall apart whatever the table says.
    """
    from torch._export.utils import _is_cia_op, _is_preservable_cia_op

    if target is operator.getitem:
        return False
    return target in table or (_is_cia_op(target) and not _is_preservable_cia_op(target))


def _written(node: fx.Node) -> tuple[Any, tuple[Any, ...]] | None:
    """Operator and arguments that a node comes to, where that is known."""
    import torch

    aten = torch.ops.aten
    if node.kwargs:
        return None
    if node.target is aten.conv2d.default:
        value, weight, *others = node.args
        if len(node.meta["val"].shape) != 4:
            return None
        rest: list[Any] = [None, [1, 1], [0, 0], [1, 1], 1]
        rest[: len(others)] = others
        bias, stride, padding, dilation, groups = rest
        return aten.convolution.default, (value, weight, bias, stride, padding, dilation, False, [0, 0], groups)
    if node.target is aten.reshape.default:
        source = node.all_input_nodes[0].meta.get("val")
        return (aten.view.default, node.args) if isinstance(source, torch.Tensor) and source.is_contiguous() else None
    return None


def views_to_copies(module: fx.GraphModule) -> None:
    """Replace operators that give views of their argument by those that give copies, which lie in order."""
    from torch._export.passes import replace_view_ops_with_view_copy_ops_pass as views

    moved: set[fx.Node] = set()
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        copy = None
        if node.target is not operator.getitem:
            known: Any = views._NON_FUNCTIONAL_OPS_TO_FUNCTIONAL_OPS
            copy = known.get(node.target) or views.get_view_copy_of_view_op(node.target._schema)
        if copy is not None:
            node.target = copy
        # A copy lies in order, and so does what is computed from it element by element.
        if (copy is not None and not _in_order(node)) or moved.intersection(node.all_input_nodes):
            del node.meta["val"]
            fill_value(node)
            moved.add(node)


def numbers_to_constants(module: fx.GraphModule) -> None:
    """Give operators that take tensors a constant instead of a number."""
    import torch

    for node in list(module.graph.nodes):
        if node.op != "call_function":
            continue
        for name, position in _numbers(node):
            given = node.kwargs[name] if position is None else node.args[position]
            with module.graph.inserting_before(node):
                constant = module.graph.get_attr(_held(module, torch.tensor(given)))
            constant.meta["val"] = getattr(module, str(constant.target))
            if position is None:
                node.update_kwarg(name, constant)
            else:
                node.update_arg(position, constant)
    module.recompile()


def _held(module: fx.GraphModule, value: torch.Tensor) -> str:
    """Name under which the module holds a new constant from now on."""
    number = 0
    while hasattr(module, f"_tensor_constant{number}"):
        number += 1
    setattr(module, f"_tensor_constant{number}", value)
    return f"_tensor_constant{number}"


def _numbers(node: fx.Node) -> list[tuple[str, int | None]]:
    """Where a node is given a number for a tensor: name of the argument, and its position unless it is given by name."""
    import torch

    found: list[tuple[str, int | None]] = []
    if not isinstance(node.target, torch._ops.OpOverload):
        return found
    for position, argument in enumerate(node.target._schema.arguments):
        if not isinstance(argument.type, torch.TensorType):
            continue
        if isinstance(node.kwargs.get(argument.name), float | int):
            found.append((argument.name, None))
        elif position < len(node.args) and isinstance(node.args[position], float | int):
            found.append((argument.name, position))
    return found


def to_edge_operators(module: fx.GraphModule) -> None:
    """Replace ATen operators by their names in the edge dialect."""
    replace = require("executorch.exir.passes.replace_aten_with_edge_pass", PURPOSE)
    for node in module.graph.nodes:
        if node.op == "call_function" and replace.should_lower_to_edge(node.target):
            node.target = replace.aten_to_edge(node.target)


IN_PLACE: dict[str, Callable[[Any], None]] = {
    "ScalarToTensorPass": numbers_to_constants,
    "OpReplacePass": to_edge_operators,
}
"""What each of these passes does, without interpreting the graph."""


def fill_values(module: fx.GraphModule) -> None:
    """Compute the example value of nodes that have none, and of conversions between int8 and float."""
    for node in module.graph.nodes:
        if node.op == "call_function" and not _has_value(node):
            fill_value(node)


def fill_value(node: fx.Node) -> None:
    """Compute the example value of a node from those of its arguments."""
    import torch

    arguments = torch.fx.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
    mode = next((a.fake_mode for a in _tensors(arguments) if hasattr(a, "fake_mode")), None)
    with ExitStack() as stack:
        if mode is not None:
            stack.enter_context(mode)
        target: Any = node.target
        node.meta["val"] = target(*arguments[0], **arguments[1])


def _has_value(node: fx.Node) -> bool:
    """Whether the example value is there; a pass that copies metadata may give a dequantize that of its quantize."""
    import torch

    value, name = node.meta.get("val"), getattr(node.target, "__name__", str(node.target))
    if "dequantize_per" in name:
        return value is not None and value.dtype is not torch.int8
    return value is not None and ("quantize_per" not in name or value.dtype is torch.int8)


def _lacks_value(module: fx.GraphModule, node: fx.Node, modules: bool) -> bool:
    """Whether a node reads something that has no example value; lowered modules, which never have one, count with `modules`."""
    import torch

    if node.op != "get_attr" or value_of(node) is not None:
        return False
    return modules or not isinstance(getattr(module, str(node.target), None), torch.nn.Module)


def value_of(node: Any) -> Any:
    """The example value of a node, None for anything without one."""
    return node.meta.get("val")


def _tensors(arguments: Any) -> list[Any]:
    import torch

    return [leaf for leaf in torch.utils._pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor)]


def _in_order(node: fx.Node) -> bool:
    import torch

    value = value_of(node)
    return isinstance(value, torch.Tensor) and value.is_contiguous()


def _is_functional(node: fx.Node) -> bool:
    """Whether a node calls an operator of PyTorch that leaves its arguments as they are, or takes one of several results."""
    import torch

    if node.target is operator.getitem:
        return True
    return isinstance(node.target, torch._ops.OpOverload) and not node.target._schema.is_mutable


def _named(*names: str) -> Callable[[Any], bool]:
    def acts(node: Any) -> bool:
        target = node.target
        return any(str(target).startswith(name) or name in getattr(target, "__name__", "") for name in names)

    return acts


def _mixes_types(node: Any) -> bool:
    """Whether an operator's arguments have not all the type of its result."""
    types = {getattr(value, "dtype", None) for value in (value_of(node), *map(value_of, node.all_input_nodes))}
    return len(types) > 1 or len(node.all_input_nodes) < sum(argument is not None for argument in node.args)


def _is_constant(node: Any) -> bool:
    """Whether a node computes from constants alone."""
    return all(n.op == "get_attr" or getattr(value_of(n), "constant", None) is not None for n in node.all_input_nodes)


_PROMOTED = _named("aten.add.", "aten.mul.", "aten.sub.", "aten.div.", "aten.minimum.")

ACTS_ON: dict[str, Callable[[Any], bool]] = {
    "SymToTensorPass": lambda node: False,
    "NormalizeTransposePass": _named("aten.t."),
    "ReplaceBrokenOpsWithFunctionalOpsPass": lambda node: bool(getattr(node.target, "is_view", False)),
    "RemoveMixedTypeOperators": lambda node: _PROMOTED(node) and _mixes_types(node),
    "DimOrderOpsRevertPass": _named("dim_order_ops."),
    "MemoryFormatOpsPass": _named("aten._to_copy", "aten.empty", "aten.clone"),
    "LegalizePortableDimOrderPass": _named(
        "aten._adaptive_avg", "aten.avg_pool", "aten.expand", "aten.mean", "aten.sum"
    ),
    "ConstPropPass": _is_constant,
}
"""Nodes that each of these passes changes, by their source; without one of them a pass only copies the graph.
Symbolic sizes do not occur: every port of a stream program has a fixed shape."""

CHANGE_SHAPES = frozenset({"DecomposeConcatenate", "Conv1dUnsqueezePass", "DecomposeBatchNorm"})
"""Passes after which nodes that stay have other shapes than before, if the pass added a node."""
