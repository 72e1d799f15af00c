"""Which operators of a `.tflite` graph compute in int8.

The policy is `quantization/policy.py`: feature maps are int8, the vector path stays float. An operator
computes in int8 if it reads or writes a feature map and XNNPACK has an int8 kernel for it; the kinds below
are those whose one-operator int8 models were fully delegated (ai-edge-litert 2.3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from mvtool.converters.tflite_graph import Graph
from mvtool.errors import ConversionError
from mvtool.quantization.layers import fingerprint
from mvtool.quantization.policy import is_feature_map, is_rows

COMPUTE = frozenset(
    {
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "FULLY_CONNECTED",
        "ADD",
        "SUB",
        "MUL",
        "MEAN",
        "SUM",
        "LOGISTIC",
        "TANH",
        "LEAKY_RELU",
    }
)
CARRY = frozenset(
    {
        "CONCATENATION",
        "SLICE",
        "STRIDED_SLICE",
        "RESHAPE",
        "TRANSPOSE",
        "PAD",
        "MAX_POOL_2D",
        "RESIZE_BILINEAR",
        "REDUCE_MAX",
        "REDUCE_MIN",
    }
)
"""Operators that move values: input and output share scale and zero point."""

CLAMPS = {"RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}
"""Activations without an int8 kernel of their own, and their number as a fused activation of ADD."""

TOKENS = frozenset({"BATCH_MATMUL", "RSQRT"})
"""Operators whose rows are tokens: products of attention, and what a layer norm becomes."""
SCORES = CARRY | {"ADD", "SUB", "MUL", "DIV", "SELECT", "SELECT_V2", "TANH", "MAXIMUM", "MINIMUM"}
"""Operators that stand between a product of attention and its softmax; heads may be on a fourth axis there."""
STATISTICS = CARRY | {"MEAN", "SUM", "SUB", "MUL", "ADD", "SQUARED_DIFFERENCE"}
"""Operators that stand between the mean of a norm and its root."""
CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})

HAS_WEIGHTS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})


@dataclass(frozen=True)
class Domains:
    """The decision for each operator.

    Attributes:
        int8: Identities (`id`) of the operators that compute in int8.
        exact: Identities of the layers that were asked to stay float, weights included.
        left: Kind and reason of operators on feature maps that stay float, with how many there are.
    """

    int8: frozenset[int]
    exact: frozenset[int] = frozenset()
    left: Counter[str] = field(default_factory=Counter)

    def __contains__(self, operator: Any) -> bool:
        """Whether `operator` computes in int8."""
        return id(operator) in self.int8


def decide(
    graph: Graph,
    int8_ports: frozenset[int],
    float_states: Iterable[tuple[int, int]] = (),
    exact: frozenset[str] = frozenset(),
) -> Domains:
    """Decide for every operator.

    Args:
        graph: A float graph.
        int8_ports: Tensors of the ports that are int8.
        float_states: Input and output tensor of the states that stay float; in int8 their increments would be lost,
            so what leads from one to the other computes in float.
        exact: `fingerprint` of each weight whose layer stays float.
    """
    chosen: set[int] = set()
    left: Counter[str] = Counter()
    # State by state: one layer's mean leads to the next layer's, through all that lies between.
    updates = {operator for before, after in float_states for operator in _update(graph, before, after)}
    layers = _with_weights(graph, exact)
    kept = updates | _token_operators(graph) | _statistics(graph) | _with_activations(graph, layers | _pooled(graph))
    for operator in graph.operators:
        if id(operator) in kept:
            continue
        tensors = data_tensors(graph, operator)
        if not tensors or not any(is_feature_map(graph.shape(t)) for t in tensors):
            continue
        reason = _obstacle(graph, operator)
        if reason is None:
            chosen.add(id(operator))
        else:
            left[f"{graph.kind(operator)}: {reason}"] += 1
    return Domains(frozenset(chosen - _pointless(graph, chosen, int8_ports)), frozenset(layers), left)


def _with_weights(graph: Graph, fingerprints: frozenset[str]) -> set[int]:
    """Identities of the operators whose weights have these fingerprints.

    Raises:
        ConversionError: There is none with one of them.
    """
    weighted = [o for o in graph.operators if fingerprints and graph.kind(o) in HAS_WEIGHTS]
    values = {id(operator): graph.constant(int(operator.inputs[1])) for operator in weighted}
    found = {identity: fingerprint(value) for identity, value in values.items() if value is not None}
    if missing := fingerprints - set(found.values()):
        raise ConversionError(
            f"{len(missing)} of the {len(fingerprints)} layers that were to stay float have other weights in the exported graph. "
            "Please report this model."
        )
    return {identity for identity, value in found.items() if value in fingerprints}


def _pooled(graph: Graph) -> set[int]:
    """Identities of the layers over channels whose result is averaged over the picture and read by nothing else, see `plan`."""
    readers, found = graph.readers(), set()
    for operator in graph.operators:
        if not _is_pointwise(graph, operator):
            continue
        members = _with_activations(graph, {id(operator)})
        inside = [other for other in graph.operators if id(other) in members]
        maps = {int(t) for other in inside for t in other.outputs if is_feature_map(graph.shape(int(t)))}
        behind = [r for t in maps for r in readers.get(t, ()) if int(r.outputs[0]) not in maps]
        pools = all(id(r) in members and graph.kind(r) in ("MEAN", "SUM") for r in behind)
        if behind and pools and not maps & set(graph.outputs):
            found.add(id(operator))
    return found


def _is_pointwise(graph: Graph, operator: Any) -> bool:
    if graph.kind(operator) not in ("CONV_2D", "FULLY_CONNECTED") or graph.constant(int(operator.inputs[1])) is None:
        return False
    before, after = graph.shape(int(operator.inputs[0])), graph.shape(int(operator.outputs[0]))
    kernel = graph.shape(int(operator.inputs[1]))
    alone = graph.kind(operator) == "FULLY_CONNECTED" or (kernel[1:3] == (1, 1) and kernel[3] == before[3])
    return is_feature_map(after) and before[:-1] == after[:-1] and alone


def _with_activations(graph: Graph, layers: set[int]) -> set[int]:
    """Identities of layers and of the operators without weights that nothing but them (and constants) leads to, see `plan`."""
    found, made = set(layers), {int(t) for o in graph.operators if id(o) in layers for t in o.outputs}
    for operator in graph.operators:
        kind = graph.kind(operator)
        if kind in HAS_WEIGHTS or kind not in COMPUTE | CARRY | CLAMPS.keys():
            continue
        sources = data_inputs(graph, operator)
        if sources and made.issuperset(sources):
            found.add(id(operator))
            made.update(int(t) for t in operator.outputs)
    return found


def _update(graph: Graph, before: int, after: int) -> set[int]:
    """Identities of the operators between a state and its next value."""
    ahead, behind = {before}, {after}
    forward, backward = set(), set()
    for operator in graph.operators:
        if ahead & {int(t) for t in operator.inputs}:
            ahead.update(int(t) for t in operator.outputs)
            forward.add(id(operator))
    for operator in reversed(graph.operators):
        if behind & {int(t) for t in operator.outputs}:
            behind.update(int(t) for t in operator.inputs if t >= 0)
            backward.add(id(operator))
    return forward & backward


def _token_operators(graph: Graph) -> set[int]:
    """Identities of the operators on tokens: all that `TOKENS` reach through rows, and movement that leads to rows."""
    readers, writers = graph.readers(), graph.writers()

    def leads_on(operator: Any, other: Any, tensor: int) -> bool:
        moves = graph.kind(operator) in CARRY and graph.kind(other) in CARRY
        return is_rows(graph.shape(tensor)) or moves

    def neighbours(operator: Any) -> list[Any]:
        sources = [(writers[t], t) for t in data_inputs(graph, operator) if t in writers]
        users = [(reader, int(t)) for t in operator.outputs for reader in readers.get(int(t), ())]
        found = [other for other, tensor in (*sources, *users) if leads_on(operator, other, tensor)]
        return [other for other in found if graph.kind(other) not in CONVOLUTIONS]

    def on_rows(operator: Any) -> bool:
        results = [int(t) for o in operator.outputs for reader in readers.get(int(o), ()) for t in reader.outputs]
        return any(is_rows(graph.shape(t)) for t in (*data_tensors(graph, operator), *results))

    starts = [operator for operator in graph.operators if graph.kind(operator) in TOKENS and on_rows(operator)]
    return _reached(starts, neighbours) | _score_operators(graph)


def _score_operators(graph: Graph) -> set[int]:
    """Identities of what stands between a product of attention and its softmax."""
    products = [operator for operator in graph.operators if graph.kind(operator) == "BATCH_MATMUL"]
    softmaxes = [operator for operator in graph.operators if graph.kind(operator) == "SOFTMAX"]
    return _between(graph, products, softmaxes, SCORES)


def _statistics(graph: Graph) -> set[int]:
    """Identities of what makes the deviation of a norm with one per position, and of what it scales; see `plan`."""
    means = [operator for operator in graph.operators if graph.kind(operator) in ("MEAN", "SUM")]
    roots = [
        operator
        for operator in graph.operators
        if graph.kind(operator) in ("RSQRT", "SQRT") and is_feature_map(graph.shape(int(operator.outputs[0])))
    ]
    readers = graph.readers()
    scaled = [r for root in roots for r in readers.get(int(root.outputs[0]), ()) if graph.kind(r) in ("MUL", "DIV")]
    return _between(graph, means, roots, STATISTICS) | {id(operator) for operator in scaled}


def _between(graph: Graph, first: list[Any], last: list[Any], kinds: frozenset[str]) -> set[int]:
    """Identities of the operators on the ways from `first` to `last` that go through `kinds` alone."""
    readers, writers = graph.readers(), graph.writers()

    def after(operator: Any) -> list[Any]:
        found = [reader for t in operator.outputs for reader in readers.get(int(t), ())]
        return [other for other in found if graph.kind(other) in kinds]

    def before(operator: Any) -> list[Any]:
        found = [writers[t] for t in data_inputs(graph, operator) if t in writers]
        return [other for other in found if graph.kind(other) in kinds]

    return _reached(first, after) & _reached(last, before)


def _reached(starts: list[Any], neighbours: Callable[[Any], list[Any]]) -> set[int]:
    """Identities of `starts` and of all operators that `neighbours` leads to."""
    todo, found = list(starts), {id(operator) for operator in starts}
    while todo:
        new = [other for other in neighbours(todo.pop()) if id(other) not in found]
        found.update(map(id, new))
        todo += new
    return found


def data_tensors(graph: Graph, operator: Any) -> list[int]:
    """Float tensors that an operator reads and writes, constants left out."""
    return [*data_inputs(graph, operator), *(int(t) for t in operator.outputs if graph.dtype(int(t)) == "float32")]


def data_inputs(graph: Graph, operator: Any) -> list[int]:
    """Float tensors that an operator reads, constants left out."""
    inputs = [int(t) for t in operator.inputs if t >= 0]
    return [t for t in inputs if graph.dtype(t) == "float32" and graph.constant(t) is None]


def _obstacle(graph: Graph, operator: Any) -> str | None:
    """Why an operator cannot compute in int8, None if it can."""
    kind = graph.kind(operator)
    if kind not in COMPUTE | CARRY | CLAMPS.keys():
        return "XNNPACK has no int8 kernel"
    if any(graph.dtype(int(t)) != "float32" for t in operator.outputs):
        return "the result is not a real number"
    if kind in HAS_WEIGHTS and any(graph.constant(int(t)) is None for t in operator.inputs[1:] if t >= 0):
        return "the weights are not constant"
    if (
        kind == "FULLY_CONNECTED"
        and graph.shape(int(operator.inputs[0]))[-1:] != graph.shape(int(operator.inputs[1]))[-1:]
    ):
        return "the weights span more than the last axis"
    return None


def _pointless(graph: Graph, chosen: set[int], int8_ports: frozenset[int]) -> set[int]:
    """Operators that only move values between float operators: int8 would only round them."""
    carriers = [o for o in graph.operators if id(o) in chosen and graph.kind(o) in CARRY]
    useful = {
        t for o in graph.operators if id(o) in chosen and graph.kind(o) not in CARRY for t in data_tensors(graph, o)
    }
    useful |= int8_ports
    changed = True
    kept: set[int] = set()
    while changed:
        changed = False
        for operator in carriers:
            tensors = data_tensors(graph, operator)
            if id(operator) not in kept and useful & set(tensors):
                kept.add(id(operator))
                useful |= set(tensors)
                changed = True
    return {id(o) for o in carriers} - kept
