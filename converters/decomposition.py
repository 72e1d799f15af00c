"""Decomposing an exported program in one pass over its graph.

`ExportedProgram.run_decompositions` executes the graph twice under layers that find out what it mutates and which of its
results are views of its inputs, and a third of a conversion is spent there. Here the graph is traced once, through PyTorch's
own tracer and functionalization, where nothing is mutated: the graph of a stream program, whose states go in and out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.export.graph_signature import ExportGraphSignature
    from torch.fx import GraphModule, Node

_Decomposed = tuple["GraphModule", "ExportGraphSignature", dict[str, Any]]


@contextmanager
def in_one_pass() -> Iterator[None]:
    """Inside, `ExportedProgram.run_decompositions` traces programs without mutations once; others as always."""
    from torch.export import exported_program

    original = exported_program._decompose_and_get_gm_with_new_signature_constants

    def decompose(ep: ExportedProgram, **tables: Any) -> _Decomposed:
        found = decomposed(ep, tables["cia_to_decomp"], tables["python_decomp_table"])
        return found or original(ep, **tables)

    with mock.patch.object(exported_program, "_decompose_and_get_gm_with_new_signature_constants", decompose):
        yield


def decomposed(exported: ExportedProgram, composite: Mapping[Any, Any], table: Mapping[Any, Any]) -> _Decomposed | None:
    """The graph in other operators, its signature and weights.

    Args:
        exported: It is not changed.
        composite: What composite operators come to; others of them stay whole.
        table: What any other operator comes to.

    Returns:
        None where the program mutates something, takes or gives anything but tensors, or makes constants.
    """
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.export.graph_signature import OutputKind
    from torch.fx import Node

    signature = exported.graph_signature
    values = [node.meta.get("val") for node in exported.graph.nodes if node.op == "placeholder"]
    if any(spec.kind is not OutputKind.USER_OUTPUT for spec in signature.output_specs):
        return None
    if any(_mutates(node) for node in exported.graph.nodes):
        return None
    if not values or not all(isinstance(value, FakeTensor) for value in values):
        return None
    module = _traced(exported.graph_module, values, composite, table)
    module.graph.eliminate_dead_code()
    results: Any = module.graph.output_node().args[0]
    if any(node.op == "get_attr" for node in module.graph.nodes) or not all(isinstance(r, Node) for r in results):
        return None
    return module, _signature(exported, module), dict(exported.state_dict)


def _mutates(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _traced(
    module: GraphModule, values: list[Any], composite: Mapping[Any, Any], table: Mapping[Any, Any]
) -> GraphModule:
    import torch
    from torch._dispatch.python import enable_python_dispatcher
    from torch._subclasses.functional_tensor import FunctionalTensorMode, dispatch_functionalize
    from torch.export import exported_program
    from torch.export._trace import _ignore_backend_decomps
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.traceback import preserve_node_meta

    interpreter = torch.fx.Interpreter(module)

    def run(*arguments: Any) -> Any:
        with preserve_node_meta():
            return interpreter.run(*arguments)

    with (
        _ignore_backend_decomps(),
        values[0].fake_mode,
        exported_program._override_composite_implicit_decomp(composite),
        enable_python_dispatcher(),
        torch.no_grad(),
    ):
        functional = dispatch_functionalize(run, FunctionalTensorMode(export=True))
        trace = make_fx(functional, decomposition_table=table, _allow_non_fake_inputs=True)
        traced: GraphModule = trace(*values)
    return traced


def _signature(exported: ExportedProgram, module: GraphModule) -> ExportGraphSignature:
    """The signature of the program, with the names that the new graph has; its placeholders get the old ones."""
    from torch.export.graph_signature import ExportGraphSignature, InputSpec, OutputSpec, TensorArgument

    graph = module.graph
    old = [node for node in exported.graph.nodes if node.op == "placeholder"]
    new = [node for node in graph.nodes if node.op == "placeholder"]
    taken = {node.name for node in old}
    for node in graph.nodes:
        if node.op != "placeholder" and node.name in taken:
            node._rename(f"{node.name}_result")
    for before, after in zip(old, new, strict=True):
        # Not by `_rename`, which would avoid names that were in use a moment ago.
        after.name = after.target = before.name
        after.meta = {**before.meta, **after.meta}
    results: list[Node] = list(graph.output_node().args[0])  # type: ignore[arg-type]
    module.recompile()
    inputs = [
        InputSpec(spec.kind, TensorArgument(name=node.name), spec.target, spec.persistent)
        for spec, node in zip(exported.graph_signature.input_specs, new, strict=True)
    ]
    outputs = [
        OutputSpec(spec.kind, TensorArgument(name=node.name), spec.target)
        for spec, node in zip(exported.graph_signature.output_specs, results, strict=True)
    ]
    return ExportGraphSignature(inputs, outputs)
