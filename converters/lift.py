"""Graph surgery: mutated buffers and `input=output` pairs become named states.

torch.export lists buffers that a module writes as BUFFER inputs with BUFFER_MUTATION outputs. Here they
become user inputs and user outputs, and everything is put into the order of a `StreamProgram`:

    (parameters, buffers, constants, inputs..., states...) -> (outputs..., next states...)

The graph must be functional (`run_decompositions`) before it comes here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mvtool.errors import CaptureError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram
    from torch.export.graph_signature import InputSpec as GraphInput
    from torch.fx import Graph, Node


@dataclass(frozen=True)
class Loop:
    """A value that leaves a step and enters the next one.

    Attributes:
        source: Buffer name, or `input=output`.
        before: Placeholder that takes the value.
        after: Node that computes the next value.
    """

    source: str
    before: Node
    after: Node


@dataclass(frozen=True)
class Ends:
    """The open ends of a functional graph.

    Attributes:
        weights: Placeholders of parameters, buffers that stay, and constants, with their signature entries.
        inputs: Placeholder of each user tensor, in call order; None stands for a constant argument.
        buffers: Buffers that the graph mutates and reads.
        written: Buffers that the graph writes but never reads: name to the node that is written.
        unchanged: Buffers that the graph writes back as they were.
        outputs: Result of each leaf of the module's output; None where the leaf is not a tensor.
    """

    weights: tuple[tuple[Node, GraphInput], ...]
    inputs: tuple[Node | None, ...]
    buffers: tuple[Loop, ...]
    written: Mapping[str, Node]
    unchanged: tuple[str, ...]
    outputs: tuple[Node | None, ...]


def find_ends(exported: ExportedProgram) -> Ends:
    """Sort the inputs and outputs of a functional graph by what they are.

    Raises:
        CaptureError: A parameter or an argument of `forward` is written, or an input is neither tensor nor constant.
    """
    from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument

    graph = exported.graph
    _remove_copies(graph)
    graph.eliminate_dead_code()
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    results = _results(graph)
    signature = exported.graph_signature
    next_value: dict[str, Node] = {}
    outputs: list[Node | None] = []
    for spec, node in zip(signature.output_specs, results, strict=True):
        if spec.kind is OutputKind.BUFFER_MUTATION and spec.target is not None:
            next_value[spec.target] = node
        elif spec.kind is OutputKind.USER_OUTPUT:
            outputs.append(node if isinstance(spec.arg, TensorArgument) else None)
        else:
            raise CaptureError(
                f"The forward pass writes {spec.target!r} ({spec.kind.name.lower().replace('_', ' ')}); only registered "
                "buffers may be written. Compute a new tensor instead of writing an argument or a parameter in place."
            )
    weights: list[tuple[Node, GraphInput]] = []
    inputs: list[Node | None] = []
    loops: list[Loop] = []
    written: dict[str, Node] = {}
    unchanged: list[str] = []
    for entry, node in zip(signature.input_specs, placeholders, strict=True):
        after = next_value.get(entry.target or "") if entry.kind is InputKind.BUFFER else None
        if entry.kind is InputKind.USER_INPUT:
            inputs.append(None if isinstance(entry.arg, ConstantArgument) else node)
        elif entry.kind not in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            raise CaptureError(
                f"The graph needs {entry.target!r} of kind {entry.kind.name.lower()}, which no runtime can hold; "
                "expected tensors only."
            )
        elif after is None or after is node:
            weights.append((node, entry))
            unchanged += [str(entry.target)] if after is node else []
        elif _read(node):
            loops.append(Loop(str(entry.target), node, after))
        else:
            written[str(entry.target)] = after
    return Ends(tuple(weights), tuple(inputs), tuple(loops), written, tuple(unchanged), tuple(outputs))


def _remove_copies(graph: Graph) -> None:
    """In a functional graph a copy computes nothing, unless a view behind it needs its strides."""
    import torch

    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.clone.default):
        source: Any = node.args[0]
        if source.meta["val"].stride() == node.meta["val"].stride():
            node.replace_all_uses_with(source)
            graph.erase_node(node)


def _read(placeholder: Node) -> bool:
    return len(placeholder.users) > 0


def _results(graph: Graph) -> list[Any]:
    return list(graph.output_node().args[0])  # type: ignore[arg-type]


@dataclass(frozen=True)
class NamedNode:
    """A graph end with the name of its port."""

    name: str
    node: Node


def assemble(
    exported: ExportedProgram,
    ends: Ends,
    inputs: Sequence[NamedNode],
    outputs: Sequence[NamedNode],
    examples: Sequence[Tensor],
) -> ExportedProgram:
    """Make the functional program with exactly these user inputs and outputs, in this order.

    Args:
        exported: Program whose graph is taken over; do not use it afterwards.
        ends: What `find_ends` said of it.
        inputs: Model inputs, then states.
        outputs: Model outputs, then next states.
        examples: One tensor per input.

    Returns:
        A program without mutations, whose state_dict and constants hold only what its graph reads.
    """
    import torch
    from torch.export import ExportedProgram
    from torch.export.graph_signature import ExportGraphSignature, InputKind, OutputKind, OutputSpec, TensorArgument
    from torch.export.graph_signature import InputSpec as GraphInput

    graph = exported.graph
    results = _distinct(graph, [end.node for end in outputs])
    graph.output_node().args = (tuple(results),)
    users = {end.node for end in inputs}
    weights = [(node, entry) for node, entry in ends.weights if node.users]
    for node in [n for n in graph.nodes if n.op == "placeholder"]:
        if node not in users and all(node is not kept for kept, _ in weights):
            graph.erase_node(node)
    _order(graph, [node for node, _ in weights] + [end.node for end in inputs])
    for end in inputs:
        _rename(graph, end)
    entries = [entry for _, entry in weights] + [
        GraphInput(InputKind.USER_INPUT, TensorArgument(name=end.node.name), None) for end in inputs
    ]
    exits = [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(name=node.name), None) for node in results]
    targets = {entry.target for _, entry in weights}
    graph.lint()
    program = ExportedProgram(
        root=exported.graph_module,
        graph=graph,
        graph_signature=ExportGraphSignature(entries, exits),
        state_dict={name: value for name, value in exported.state_dict.items() if name in targets},
        range_constraints={},
        module_call_graph=[call_of(len(inputs), len(outputs))],
        example_inputs=(tuple(examples), {}),
        constants={name: value for name, value in exported.constants.items() if name in targets},
    )
    assert isinstance(program, torch.export.ExportedProgram)
    return program


def _distinct(graph: Graph, nodes: Sequence[Node]) -> list[Node]:
    """Give every output a node of its own.

    A tensor that leaves twice, or an input that leaves untouched, is refused or miscompiled by some
    runtimes (google-ai-edge/litert-samples#198), so a copy stands between.
    """
    import torch

    seen: set[Node] = set()
    results: list[Node] = []
    for node in nodes:
        if node in seen or node.op == "placeholder":
            with graph.inserting_before(graph.output_node()):
                copy = graph.call_function(torch.ops.aten.clone.default, (node,))
            copy.meta = dict(node.meta)
            node = copy
        seen.add(node)
        results.append(node)
    return results


def _order(graph: Graph, placeholders: Sequence[Node]) -> None:
    first = next(iter(graph.nodes))
    for node in placeholders:
        if node is first:
            first = first.next
        else:
            first.prepend(node)


def _rename(graph: Graph, end: NamedNode) -> None:
    """Name a placeholder like its port where no other node has this name already."""
    if end.node.name != end.name and all(node.name != end.name for node in graph.nodes):
        end.node._rename(end.name)
        end.node.target = end.node.name


def call_of(inputs: int, outputs: int) -> Any:
    """How a program is called: tensors in, a tuple of tensors out."""
    from torch.export import ModuleCallEntry, ModuleCallSignature
    from torch.utils._pytree import tree_flatten

    return ModuleCallEntry(
        fqn="",
        signature=ModuleCallSignature(
            inputs=[],
            outputs=[],
            in_spec=tree_flatten((tuple(range(inputs)), {}))[1],
            out_spec=tree_flatten(tuple(range(outputs)))[1],
        ),
    )
