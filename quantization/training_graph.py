"""The graph of a stream that is trained with fake quantization.

It takes many clips and the states, and computes what the int8 kernels of an artifact compute, from the module's own
parameters. Batch norms with frozen statistics, ReZero scalars and other constant factors are part of the weights,
as functions of the parameters, so that a gradient reaches every one of them:

    y = conv(x; W g r, ((b - mean) g + beta) r),     g = gamma / sqrt(var + eps),     r a factor behind the norm

Which of its values are int8 is decided by `mvtool.quantization.plan` on the same graph of one clip, seen as the lowered
programs of the artifacts are: pictures (1, C, T, H, W) as (T, C, H, W), and 3D operators as the 2D ones they become.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from mvtool.converters.calling import plan_call
from mvtool.converters.capture import capture
from mvtool.converters.export import export_functional
from mvtool.converters.inputs import InputSpec
from mvtool.converters.lift import NamedNode, assemble, find_ends
from mvtool.converters.naming import NEXT_SUFFIX
from mvtool.converters.rewrites.nodes import argument
from mvtool.errors import ConversionError
from mvtool.program import ModelInfo, StreamProgram
from mvtool.quantization.fold_into_weights import constants_of, fold_into_weights, value_of
from mvtool.quantization.plan import Domains, find_domains, port_nodes
from mvtool.streaming.state import reset

aten = torch.ops.aten

FLAT = {
    aten.conv3d.default: aten.conv2d.default,
    aten.avg_pool3d.default: aten.avg_pool2d.default,
    aten.max_pool3d.default: aten.max_pool2d.default,
}
"""What 3D operators are in an artifact."""
VIEWS = (aten.view.default, aten._unsafe_view.default)


@dataclass(frozen=True)
class TrainingGraph:
    """A graph to train.

    Attributes:
        module: `(clips, states...) -> (logits, next states...)`; parameters and buffers bear their names in the trained module.
        program: One clip in the trained module's shapes; names the states in the order of the graph.
        domains: Which nodes of `module` are int8.
    """

    module: fx.GraphModule
    program: StreamProgram
    domains: Domains


def training_graph(single: nn.Module, many: nn.Module, shape: tuple[int, ...], info: ModelInfo) -> TrainingGraph:
    """Export a stream for training.

    Args:
        single: The stream for one video.
        many: The same for N videos; its parameters are trained.
        shape: Of the clips of one call, `(N, 3, T, H, W)`.
        info: Facts of the model, with the preprocessing.

    Raises:
        CaptureError: The stream cannot be captured.
        ConversionError: Its graph depends on the number of videos.
    """
    program = capture(single, [InputSpec(None, (1, *shape[1:]))], info, output_names=("logits",))
    one = _opened(program.exported)
    module = _opened(_of_many(many, shape, program))
    for graph in (one, module):
        fold_into_weights(graph)
    twins = _twins(one, module)
    found = _decide(program, one)

    def there(nodes: Iterable[fx.Node]) -> list[fx.Node]:
        return [twins[node] for node in nodes]

    groups = tuple(tuple(there(members)) for members in found.groups)
    domains = Domains(groups, *(frozenset(there(n)) for n in (found.int8_nodes, found.fused, found.weight_only)))
    _share_parameters(module, many)
    return TrainingGraph(module, program, domains)


def _of_many(module: nn.Module, shape: tuple[int, ...], program: StreamProgram) -> torch.export.ExportedProgram:
    """The graph of N videos with the ports of `program`."""
    module.eval()
    reset(module)
    clips = torch.zeros(shape)
    exported = export_functional(module, plan_call(module, [InputSpec(None, shape)], {}), [clips])
    ends = find_ends(exported)
    loops = {loop.source: loop for loop in ends.buffers}
    if set(loops) != {state.logical.source for state in program.states} or ends.written:
        raise ConversionError(f"{program.info.name} keeps other states with {shape[0]} videos than with one.")
    states = [(state.logical.name, loops[state.logical.source]) for state in program.states]
    (frames,), (logits,) = [n for n in ends.inputs if n is not None], [n for n in ends.outputs if n is not None]
    return assemble(
        exported,
        ends,
        [NamedNode(program.inputs[0].name, frames), *(NamedNode(name, loop.before) for name, loop in states)],
        [
            NamedNode(program.outputs[0].name, logits),
            *(NamedNode(name + NEXT_SUFFIX, loop.after) for name, loop in states),
        ],
        [clips, *(module.get_buffer(loop.source) for _, loop in states)],
    )


def _opened(exported: torch.export.ExportedProgram) -> fx.GraphModule:
    module = exported.module(check_guards=False)
    for node in list(module.graph.nodes):
        if node.op == "call_module":
            module.graph.erase_node(node)
        elif node.target in VIEWS:
            _write_as_reshape(node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _write_as_reshape(node: fx.Node) -> None:
    """One spelling of a new shape, whether or not the number of videos asks for a copy before it."""
    source = argument(node, 0)
    if source.target is aten.clone.default:
        node.replace_input_with(source, argument(source, 0))
    node.target = aten.reshape.default


def _twins(one: fx.GraphModule, many: fx.GraphModule) -> Mapping[fx.Node, fx.Node]:
    """Node of the graph of one video to that of many."""
    nodes, others = list(one.graph.nodes), list(many.graph.nodes)
    if [(n.op, _what(n)) for n in nodes] != [(n.op, _what(n)) for n in others]:
        raise ConversionError(
            "The model computes other operators for several videos than for one; it cannot be trained so."
        )
    return dict(zip(nodes, others, strict=True))


def _what(node: fx.Node) -> object:
    return None if node.op in ("placeholder", "output") else node.target


def _share_parameters(graph: fx.GraphModule, module: nn.Module) -> None:
    """Let the graph read the module's own parameters, not copies of them."""
    for name, parameter in module.named_parameters():
        path, _, leaf = name.rpartition(".")
        try:
            owner = graph.get_submodule(path)
        except AttributeError:
            continue
        if leaf in owner._parameters:
            owner.register_parameter(leaf, parameter)


def _decide(program: StreamProgram, module: fx.GraphModule) -> Domains:
    """The policy's decision, in nodes of `module`."""
    view, origins = _as_lowered(module)
    found = find_domains(program, view)

    def here(nodes: Iterable[fx.Node]) -> list[fx.Node]:
        return [origins[node] for node in nodes]

    groups = tuple(tuple(here(members)) for members in found.groups)
    return Domains(groups, *(frozenset(here(n)) for n in (found.int8_nodes, found.fused, found.weight_only)))


def _as_lowered(module: fx.GraphModule) -> tuple[fx.Graph, Mapping[fx.Node, fx.Node]]:
    """The graph as the policy knows it, and where its nodes come from; constants are `get_attr` nodes."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    constants = constants_of(module.graph)
    for node in module.graph.nodes:
        if node in constants:
            if any(user not in constants for user in node.users):
                copies[node] = graph.get_attr(f"constant_{len(copies)}")
                copies[node].meta["val"] = _flat(value_of(module, node))
        elif node.op == "output":
            graph.output(tuple(copies[value] for value in node.args[0]))
        else:
            copies[node] = graph.node_copy(node, lambda n: copies[n])
            copies[node].target = FLAT.get(node.target, node.target)
            copies[node].meta = {"val": _flat(node.meta["val"])}
    return graph, {copy: node for node, copy in copies.items()}


def _flat(value: object) -> object:
    """A stand-in for a tensor in the shape it has in an artifact."""
    if not isinstance(value, Tensor) or value.dim() != 5 or value.shape[0] != 1:
        return value
    _, channels, frames, height, width = value.shape
    return torch.empty((frames, channels, height, width), dtype=value.dtype, device="meta")


def frame_node(graph: TrainingGraph) -> fx.Node:
    """The placeholder of the clips."""
    return port_nodes(graph.module.graph)[0]
