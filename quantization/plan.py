"""Deciding, for every value of a graph, whether it is int8 and with which scale.

The plan is made on an `fx` graph whose parameters are `get_attr` nodes. Values that only move (cat,
slice, permute, ...) share one scale with their source, and a state's two ends share one with each other;
such values form a *group*, found by union-find, and a group's range is the union of its members' ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvtool.ports import Quantization
from mvtool.program import StreamProgram
from mvtool.quantization.calibration import Range, affine
from mvtool.quantization.policy import (
    ALL_STORED,
    CLAMP_OPERATORS,
    FLOAT_FORMS,
    PRODUCTS,
    ROOTS,
    SCORE_OPERATORS,
    SOFTMAXES,
    STATISTIC_OPERATORS,
    TOKEN_OPERATORS,
    Kernel,
    WeightForm,
    Weights,
    int8_inputs,
    int8_states,
    is_feature_map,
    is_rows,
    kernel_of,
)

if TYPE_CHECKING:
    from torch.fx import Graph, GraphModule, Node

WEIGHTED = frozenset({"conv2d", "linear"})

ORIGIN = "mvtool_constant"
"""Key of the metadata of a weight that was given another form: the name of the constant that it was made of."""

ROUNDING = 1e-3
"""Part of a range, a quarter of an int8 step: far above float32 rounding, far below anything that matters."""


@dataclass(frozen=True)
class Plan:
    """What becomes int8.

    Attributes:
        stored: Node name to quantization of its value; every reader sees the quantized value.
        int8_nodes: Names of the operators that read and write int8.
        fused: Names of operators whose result stays inside one kernel with its only reader: a convolution
            before its clamp, zero padding before its convolution.
        weight_only: Names of dense layers of the vector path: float activations, int8 weights.
        dynamic: Those of them whose kernel rounds its activations at run time.
    """

    stored: Mapping[str, Quantization]
    int8_nodes: frozenset[str]
    fused: frozenset[str]
    weight_only: frozenset[str]
    dynamic: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Domains:
    """Which values of a graph are int8, before anything is known of their ranges.

    Attributes:
        groups: Values that lie on an int8 grid, by the scale that they share.
        int8_nodes: See `Plan`, as are the others.
        fused: Their values lie on no grid.
        weight_only: Dense layers of the vector path.
    """

    groups: tuple[tuple[Node, ...], ...]
    int8_nodes: frozenset[Node]
    fused: frozenset[Node]
    weight_only: frozenset[Node]


def make_plan(
    program: StreamProgram,
    module: GraphModule,
    ranges: Mapping[str, Range],
    exact: frozenset[str] = frozenset(),
    vector_path: Weights = ALL_STORED,
) -> Plan:
    """Apply the policy to a graph.

    Args:
        program: Names the ports: the graph's placeholders and results, in order.
        module: The graph, with shapes in its nodes' metadata.
        ranges: Range per node name, from `observe`; the nodes of ports hold the shared port ranges.
        exact: Names of weights; the layers that they belong to stay float.
        vector_path: Form of the weights where activations are float.
    """
    found = find_domains(program, module.graph, exact)
    parameters: dict[str, Quantization] = {}
    for members in found.groups:
        quantization = affine(*_range_of(program, module.graph, members, ranges))
        parameters.update({node.name: quantization for node in members})
    dynamic = {n for n in found.weight_only if _weight_form(n, vector_path) is WeightForm.DYNAMIC}
    if vector_path.exact_gates:
        dynamic -= _before(module.graph, found.int8_nodes)
    return Plan(parameters, *map(_names, (found.int8_nodes, found.fused, found.weight_only, dynamic)))


def find_domains(program: StreamProgram, graph: Graph, exact: frozenset[str] = frozenset()) -> Domains:
    """The policy without ranges.

    Args:
        program: Names the ports.
        graph: With shapes in its nodes' metadata.
        exact: Names of weights; the layers that they belong to stay float.
    """
    kept = {node for node in graph.nodes if weight_name(node) in exact}
    updates = _float_updates(program, graph)
    int8_nodes = {node for node in graph.nodes if _computes_int8(node)}
    ends = _int8_ends(program, graph)
    # Movement is int8 exactly where what it moves already is, or where it makes a feature map.
    int8_nodes |= {n for n in graph.nodes if operator_of(n) and kernel_of(operator_of(n)) is Kernel.CARRY and _maps(n)}
    int8_nodes -= updates | _token_nodes(graph) | _statistics(graph) | with_activations(graph, kept | pooled(graph))
    fused = {node for node in int8_nodes if _is_fused(node, int8_nodes)}
    groups = _groups(program, graph, (int8_nodes | ends) - fused, int8_nodes)
    dense = {n for n in graph.nodes if operator_of(n) in WEIGHTED and n not in int8_nodes and _weight(n) is not None}
    return Domains(tuple(map(tuple, groups)), frozenset(int8_nodes), frozenset(fused), frozenset(dense - kept))


def _before(graph: Graph, targets: frozenset[Node]) -> set[Node]:
    """The nodes from which a way leads to one of `targets`."""
    found: set[Node] = set()
    for node in reversed(graph.nodes):
        if any(user in targets or user in found for user in node.users):
            found.add(node)
    return found


def plan_weights(module: GraphModule, weights: Weights) -> Plan:
    """A plan that leaves every activation float and gives each layer's weights their form."""
    forms = {n.name: _weight_form(n, weights) for n in module.graph.nodes if operator_of(n) in WEIGHTED and _weight(n)}
    rounded = frozenset(name for name, form in forms.items() if form is not WeightForm.FLOAT)
    dynamic = frozenset(name for name, form in forms.items() if form is WeightForm.DYNAMIC)
    return Plan({}, frozenset(), frozenset(), rounded, dynamic)


def _weight_form(node: Node, weights: Weights) -> WeightForm:
    if operator_of(node) == "linear":
        return weights.dense
    return weights.depthwise if is_depthwise(node) else weights.convolution


def is_depthwise(node: Node) -> bool:
    """Whether a layer is a convolution whose kernels see one channel each."""
    shape = shape_of(node.all_input_nodes[0])
    return operator_of(node) == "conv2d" and shape is not None and shape[1] == (node.args[6:] or (1,))[0]


def _names(nodes: Iterable[Node]) -> frozenset[str]:
    return frozenset(node.name for node in nodes)


def operator_of(node: Node) -> str:
    """Name of a node's ATen operator without overload, or `""`."""
    packet = getattr(node.target, "overloadpacket", None) if node.op == "call_function" else None
    return "" if packet is None else str(packet.__name__)


def shape_of(node: Node) -> tuple[int, ...] | None:
    """Shape of a node's float value; None for integers, lists and values without metadata."""
    value = node.meta.get("val")
    if value is None or not hasattr(value, "shape") or not value.dtype.is_floating_point:
        return None
    return tuple(int(size) for size in value.shape)


def data_inputs(node: Node) -> list[Node]:
    """Inputs whose values an int8 kernel reads: all but weight and bias."""
    return [node.all_input_nodes[0]] if operator_of(node) in WEIGHTED else list(node.all_input_nodes)


def result_nodes(graph: Graph) -> list[Node]:
    """The graph's results in order."""
    from torch.fx import Node as FxNode

    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    return [node for node in output.args[0] if isinstance(node, FxNode)]


def port_nodes(graph: Graph) -> list[Node]:
    """The graph's placeholders in order."""
    return [node for node in graph.nodes if node.op == "placeholder"]


def weight_name(node: Node) -> str | None:
    """Name of the constant that holds the weight of a convolution or dense layer, as the lowered program names it."""
    weight = _weight(node) if operator_of(node) in WEIGHTED else None
    return None if weight is None else str(weight.meta.get(ORIGIN, weight.target))


def with_activations(graph: Graph, layers: set[Node]) -> set[Node]:
    """Layers, and the operators without weights that nothing but them (and constants) leads to: activations, and what moves their values."""
    found = set(layers)
    for node in graph.nodes:
        operator = operator_of(node)
        if not operator or operator in WEIGHTED or kernel_of(operator) is Kernel.FLOAT:
            continue
        sources = [source for source in node.all_input_nodes if source.op != "get_attr"]
        if sources and all(source in found for source in sources):
            found.add(node)
    return found


def pooled(graph: Graph) -> set[Node]:
    """Layers over the channels of each position whose result is averaged over the picture and read by nothing else: the last ones before a head.

    They belong to the vector path. Their maps are small, a mean of few rounded values keeps the error of one, and a running mean adds it up.
    """
    found = set()
    for node in graph.nodes:
        if not (_maps(node) and is_pointwise(node)):
            continue
        members = with_activations(graph, {node})
        maps = {member for member in members if _maps(member)}
        readers = {user for member in maps for user in member.users} - maps
        if readers and readers <= members and {operator_of(reader) for reader in readers} == {"mean"}:
            found.add(node)
    return found


def is_pointwise(node: Node) -> bool:
    """Whether a layer is a dense one, or a convolution that sees one position at a time and all channels."""
    if _weight(node) is None:
        return False
    if operator_of(node) == "linear":
        return True
    kernel = node.args[1].meta.get("val")  # type: ignore[union-attr]
    before, after = shape_of(node.all_input_nodes[0]), shape_of(node)
    if operator_of(node) != "conv2d" or kernel is None or before is None or after is None:
        return False
    alone = (node.args[6:] or (1,))[0] == 1 and tuple(kernel.shape[2:]) == (1, 1)
    return bool(alone) and before[2:] == after[2:]


def _maps(node: Node) -> bool:
    shape = shape_of(node)
    return shape is not None and is_feature_map(shape)


def _weight(node: Node) -> Node | None:
    from torch.fx import Node as FxNode

    weight = node.args[1] if len(node.args) > 1 else None
    return weight if isinstance(weight, FxNode) and weight.op == "get_attr" else None


def _computes_int8(node: Node) -> bool:
    operator = operator_of(node)
    if not operator or kernel_of(operator) is not Kernel.COMPUTE or shape_of(node) is None:
        return False
    if operator in WEIGHTED and _weight(node) is None:
        return False
    if operator in ("add", "sub") and node.kwargs.get("alpha", 1) != 1:
        return False
    if any(shape_of(source) is None for source in node.all_input_nodes):
        return False
    # A pooled feature is the first value of the vector path: it leaves the map as float.
    return _maps(node) if operator == "mean" else _maps(node) or any(_maps(i) for i in data_inputs(node))


def _is_fused(node: Node, int8_nodes: set[Node]) -> bool:
    users = list(node.users)
    if len(users) != 1 or users[0] not in int8_nodes:
        return False
    reader, operator = operator_of(users[0]), operator_of(node)
    if operator in WEIGHTED:
        return reader in CLAMP_OPERATORS
    if operator == "add":
        return reader == "relu"
    return operator in ("pad", "constant_pad_nd") and reader == "conv2d" and _pads_space_with_zero(node)


def _pads_space_with_zero(node: Node) -> bool:
    amounts = list(node.args[1])  # type: ignore[arg-type]
    value = (node.args[3:] or (0,))[0] if operator_of(node) == "pad" else (node.args[2:] or (0,))[0]
    mode = node.args[2] if operator_of(node) == "pad" and len(node.args) > 2 else "constant"
    return mode == "constant" and not value and min(amounts) >= 0 and not any(amounts[4:])


def _int8_ends(program: StreamProgram, graph: Graph) -> set[Node]:
    names = {*int8_inputs(program)}
    kept = int8_states(program)
    names |= {port.name for s in program.states if s.logical.name in kept for port in (*s.inputs, *s.outputs)}
    pairs = (*zip(program.input_ports, port_nodes(graph), strict=True),)
    results = (*zip(program.output_ports, result_nodes(graph), strict=True),)
    return {node for port, node in (*pairs, *results) if port.name in names}


def _float_updates(program: StreamProgram, graph: Graph) -> set[Node]:
    """What leads from a state that stays float to its next value: in int8 the increments would be lost there."""
    places, results = port_nodes(graph)[len(program.inputs) :], result_nodes(graph)[len(program.outputs) :]
    updates: set[Node] = set()
    # State by state: one layer's mean leads to the next layer's, through all that lies between.
    for state, ((before, *_), (after, *_)) in zip(program.states, program.loops(places, results), strict=True):
        if state.form in FLOAT_FORMS:
            updates |= _reached(before, lambda node: node.users) & _reached(after, lambda node: node.all_input_nodes)
    return updates


def _token_nodes(graph: Graph) -> set[Node]:
    """Operators on tokens: all that attention and layer norms reach through rows, movement that leads to rows, and scores.

    A convolution is no operator on tokens, whatever the shape of its picture.
    """

    def is_row(node: Node) -> bool:
        shape = shape_of(node)
        return shape is not None and is_rows(shape)

    def moves(node: Node) -> bool:
        return bool(operator_of(node)) and kernel_of(operator_of(node)) is Kernel.CARRY

    def takes(node: Node) -> bool:
        return bool(operator_of(node)) and not operator_of(node).startswith("conv")

    def neighbours(node: Node) -> list[Node]:
        before = [source for source in node.all_input_nodes if is_row(source) or (moves(node) and moves(source))]
        after = [user for user in node.users if is_row(node) or (moves(node) and moves(user))]
        return [other for other in before + after if takes(other)]

    def on_rows(node: Node) -> bool:
        return any(map(is_row, (node, *node.all_input_nodes, *node.users)))

    starts = [node for node in graph.nodes if operator_of(node) in TOKEN_OPERATORS and on_rows(node)]
    return {node for start in starts for node in _reached(start, neighbours)} | _scores(graph)


def _scores(graph: Graph) -> set[Node]:
    """What stands between a product of attention and its softmax."""
    products = [node for node in graph.nodes if operator_of(node) in PRODUCTS]
    softmaxes = [node for node in graph.nodes if operator_of(node) in SOFTMAXES]
    return _between(products, softmaxes, SCORE_OPERATORS)


def _statistics(graph: Graph) -> set[Node]:
    """What makes the deviation of a norm with one per position, as layer norms of channels have, and what it scales.

    The variance is a picture there; beside it the small number that keeps the root finite is below any int8 step.
    """
    means = [node for node in graph.nodes if operator_of(node) == "mean"]
    roots = [node for node in graph.nodes if operator_of(node) in ROOTS and _maps(node)]
    scaled = {user for root in roots for user in root.users if operator_of(user) == "mul"}
    return _between(means, roots, STATISTIC_OPERATORS) | scaled


def _between(first: list[Node], last: list[Node], operators: frozenset[str]) -> set[Node]:
    """Nodes on the ways from `first` to `last` that go through `operators` and movement alone."""

    def passes(node: Node) -> bool:
        operator = operator_of(node)
        return bool(operator) and (operator in operators or kernel_of(operator) is Kernel.CARRY)

    ahead = {node for start in first for node in _reached(start, lambda n: filter(passes, n.users))}
    behind = {node for end in last for node in _reached(end, lambda n: filter(passes, n.all_input_nodes))}
    return ahead & behind


def _reached(start: Node, neighbours: Callable[[Node], Iterable[Node]]) -> set[Node]:
    found, open_ends = {start}, [start]
    while open_ends:
        new = [node for node in neighbours(open_ends.pop()) if node not in found]
        found.update(new)
        open_ends += new
    return found


def _groups(program: StreamProgram, graph: Graph, stored: set[Node], int8_nodes: set[Node]) -> Iterable[list[Node]]:
    parent: dict[Node, Node] = {node: node for node in graph.nodes if node in stored}

    def find(member: Node) -> Node:
        node = member
        while parent[node] is not node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def join(one: Node, other: Node) -> None:
        if one in parent and other in parent:
            parent[find(one)] = find(other)

    for node in parent:
        if node in int8_nodes and kernel_of(operator_of(node)) is Kernel.CARRY:
            for source in data_inputs(node):
                join(node, source)
    inputs, results = port_nodes(graph)[len(program.inputs) :], result_nodes(graph)[len(program.outputs) :]
    for before, after in program.loops(inputs, results):
        for end in (*before, *after):
            join(before[0], end)
    members: dict[Node, list[Node]] = {}
    for node in parent:
        members.setdefault(find(node), []).append(node)
    return members.values()


def _range_of(program: StreamProgram, graph: Graph, members: Sequence[Node], ranges: Mapping[str, Range]) -> Range:
    frames = {node for port, node in zip(program.inputs, port_nodes(graph), strict=False) if port.image}
    # The camera port's range is exact by definition; what merely moves its pixels adds nothing to it.
    if chosen := [ranges[node.name] for node in members if node in frames]:
        return _union(chosen)
    ends = {*port_nodes(graph), *result_nodes(graph)}
    total = _union([ranges[node.name] for node in members])
    if ported := [ranges[node.name] for node in members if node in ends]:
        # All targets share the ports' ranges; rounding differences between two graphs must not undo that.
        shared = _union(ported)
        slack = ROUNDING * (shared.high - shared.low)
        if shared.low - slack <= total.low and total.high <= shared.high + slack:
            return shared
    return total


def _union(ranges: Sequence[Range]) -> Range:
    return Range(min(r.low for r in ranges), max(r.high for r in ranges))
