"""From a graph module with weights as attributes to an exported program, without tracing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mvtool.converters.lift import call_of

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node


def as_program(module: GraphModule) -> ExportedProgram:
    """The program that `torch.export.export` makes of `module`, which has nothing left to trace.

    Args:
        module: Functional, in operators of PyTorch, one result tuple; parameters and buffers are `get_attr` nodes. Its graph is
            copied. An example value that is there holds for the copy.

    Returns:
        Parameters, then buffers, as far as they are read, then the module's inputs are the inputs of its graph, each under the
        name that `torch.export.export` gives it, if nothing else has that name.
    """
    import torch
    from torch.export import ExportedProgram
    from torch.export.graph_signature import (
        ExportGraphSignature,
        InputKind,
        InputSpec,
        OutputKind,
        OutputSpec,
        TensorArgument,
    )

    mode = _mode(module)
    graph = torch.fx.Graph()
    read = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    every = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    held = {name: value for name, value in every if name in read}
    entries: list[InputSpec] = []
    weights: dict[str, Node] = {}
    for name, value in held.items():
        parameter = isinstance(value, torch.nn.Parameter)
        node = graph.placeholder(f"{'p' if parameter else 'b'}_{name.replace('.', '_')}")
        node.target = node.name
        node.meta["val"] = mode.from_tensor(value, static_shapes=True)
        kind, persistent = (InputKind.PARAMETER, None) if parameter else (InputKind.BUFFER, True)
        entries.append(InputSpec(kind, TensorArgument(name=node.name), name, persistent))
        weights[name] = node
    copies: dict[Node, Node] = {}
    inputs = []
    for node in module.graph.nodes:
        if node.op == "get_attr":
            copies[node] = weights[str(node.target)]
        elif node.op != "output":
            copies[node] = graph.node_copy(node, copies.__getitem__)
            _value(copies[node], mode)
            if node.op == "placeholder":
                copies[node].target = copies[node].name
                entries.append(InputSpec(InputKind.USER_INPUT, TensorArgument(name=copies[node].name), None))
                inputs.append(copies[node].meta["val"])
    results = [copies[node] for node in module.graph.output_node().args[0]]  # type: ignore[union-attr,index]
    graph.output(tuple(results))
    return ExportedProgram(
        root=torch.nn.Module(),
        graph=graph,
        graph_signature=ExportGraphSignature(
            entries, [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(name=node.name), None) for node in results]
        ),
        state_dict=held,
        range_constraints={},
        module_call_graph=[call_of(len(inputs), len(results))],
        example_inputs=(tuple(torch.zeros(value.shape, dtype=value.dtype) for value in inputs), {}),
        constants={},
    )


def _mode(module: GraphModule) -> Any:
    """The mode of the example values that the graph has."""
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    values = (node.meta.get("val") for node in module.graph.nodes)
    return next((v.fake_mode for v in values if isinstance(v, FakeTensor)), FakeTensorMode(shape_env=ShapeEnv()))


def _value(node: Node, mode: Any) -> None:
    """Give a node an example value of `mode` unless it has one."""
    import torch

    known: Any = node.meta.get("val")
    if isinstance(known, torch.Tensor) and getattr(known, "fake_mode", None) is mode:
        return
    if node.op == "placeholder":
        node.meta["val"] = mode.from_tensor(torch.empty(known.shape, dtype=known.dtype), static_shapes=True)
        return
    arguments, named = torch.fx.map_arg((node.args, node.kwargs), lambda source: source.meta["val"])
    target: Any = node.target
    with mode:
        node.meta["val"] = target(*arguments, **named)
