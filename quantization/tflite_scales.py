"""One scale and zero point per int8 tensor, with the ties that operators and the state loop demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mvtool.converters.tflite_graph import Graph
from mvtool.errors import ConversionError
from mvtool.ports import Quantization
from mvtool.quantization.calibration import Range, affine
from mvtool.quantization.plan import ROUNDING
from mvtool.quantization.tflite_domains import CARRY, Domains, data_inputs, data_tensors

# TensorFlow Lite's int8 kernels define these outputs' parameters
# (https://ai.google.dev/edge/litert/models/quantization_spec, LOGISTIC and TANH).
FIXED_OUTPUT = {
    "LOGISTIC": Quantization(scale=1.0 / 256.0, zero_point=-128),
    "TANH": Quantization(scale=1.0 / 128.0, zero_point=0),
}


@dataclass(frozen=True)
class Scales:
    """Parameters of the int8 form of tensors.

    Attributes:
        of: Tensor to parameters.
        carried: `(id(operator), tensor)` of inputs that an operator needs in its output's parameters
            although the tensor itself is pinned to others.
    """

    of: Mapping[int, Quantization]
    carried: frozenset[tuple[int, int]]


def assign(graph: Graph, domains: Domains, ranges: Mapping[int, Range], pinned: Mapping[int, Quantization]) -> Scales:
    """Choose parameters for every tensor that has an int8 form.

    Args:
        graph: A float graph.
        domains: Which operators compute in int8.
        ranges: Observed range of each tensor.
        pinned: Tensors whose parameters are given: int8 ports.

    Raises:
        ConversionError: A tensor was never observed.
    """
    groups, carried = _tied(graph, domains, pinned)
    return Scales(groups.parameters(graph, ranges), frozenset(carried))


def widened(
    graph: Graph,
    domains: Domains,
    ranges: Mapping[int, Range],
    pinned: Mapping[int, Quantization],
    loops: Iterable[tuple[Sequence[int], Range]],
) -> list[Range]:
    """The ranges that int8 states need for all that shares their scale.

    A state that keeps some channels of a tensor, or some of its frames, has seen a part of its values only; with the
    state's own range the tensor would be cut off.

    Args:
        graph: A float graph.
        domains: Which operators compute in int8.
        ranges: Observed range of each tensor.
        pinned: Tensors whose parameters are given, without the states.
        loops: Input and output tensors, and range, of each int8 state.

    Returns:
        A range for each state; its own where the others lie in it but for rounding, which keeps a state's scale equal
        in all targets.

    Raises:
        ConversionError: A tensor was never observed.
    """
    states = list(loops)
    groups, _ = _tied(graph, domains, pinned)
    for ends, _ in states:
        for end in ends:
            groups.add(end)
            groups.tie(ends[0], end)
    united = groups.united(graph, ranges)
    return [_covering(own, united.get(groups.root(ends[0]), own)) for ends, own in states]


def _covering(own: Range, others: Range) -> Range:
    slack = ROUNDING * (own.high - own.low)
    inside = own.low - slack <= others.low and others.high <= own.high + slack
    return own if inside else own.union(others)


def _tied(graph: Graph, domains: Domains, pinned: Mapping[int, Quantization]) -> tuple[_Groups, set[tuple[int, int]]]:
    """Sets of tensors with one scale, and the inputs that could not join their operator's output (`Scales.carried`)."""
    groups = _Groups(dict(pinned))
    carried: set[tuple[int, int]] = set()
    operators = [o for o in graph.operators if o in domains]
    for operator in operators:
        fixed = FIXED_OUTPUT.get(graph.kind(operator))
        if fixed is not None:
            groups.fix(int(operator.outputs[0]), fixed)
    for operator in operators:
        tensors = data_tensors(graph, operator)
        for tensor in tensors:
            groups.add(tensor)
        if graph.kind(operator) in CARRY:
            output = int(operator.outputs[0])
            carried |= {
                (id(operator), t) for t in data_inputs(graph, operator) if t != output and not groups.tie(t, output)
            }
    return groups, carried


class _Groups:
    """Sets of tensors that share parameters; a set has at most one pin."""

    def __init__(self, pins: dict[int, Quantization]) -> None:
        self._parent: dict[int, int] = {}
        self._pin = pins
        for tensor in pins:
            self.add(tensor)

    def add(self, tensor: int) -> None:
        self._parent.setdefault(tensor, tensor)

    def fix(self, tensor: int, parameters: Quantization) -> None:
        """Pin a tensor that is not pinned yet; a port keeps its own parameters."""
        self.add(tensor)
        self._pin.setdefault(tensor, parameters)

    def root(self, tensor: int) -> int:
        while self._parent[tensor] != tensor:
            tensor = self._parent[tensor]
        return tensor

    def tie(self, first: int, second: int) -> bool:
        """Unite two sets unless they are pinned differently."""
        a, b = self.root(first), self.root(second)
        if a == b:
            return True
        pins = {self._pin[r] for r in (a, b) if r in self._pin}
        if len(pins) > 1:
            return False
        self._parent[max(a, b)] = min(a, b)
        if pins:
            self._pin[min(a, b)] = pins.pop()
        return True

    def parameters(self, graph: Graph, ranges: Mapping[int, Range]) -> dict[int, Quantization]:
        """Parameters of every tensor: its set's pin, or the union of its set's ranges."""
        chosen = {root: affine(r.low, r.high) for root, r in self.united(graph, ranges).items()}
        return {t: self._pin.get(self.root(t)) or chosen[self.root(t)] for t in self._parent}

    def united(self, graph: Graph, ranges: Mapping[int, Range]) -> dict[int, Range]:
        """The union of the ranges of every set without a pin, by its root."""
        united: dict[int, Range] = {}
        for tensor in self._parent:
            root = self.root(tensor)
            if root in self._pin:
                continue
            if tensor not in ranges:
                raise ConversionError(f"Tensor {graph.name(tensor)!r} has no range; calibration did not reach it.")
            united[root] = united[root].union(ranges[tensor]) if root in united else ranges[tensor]
        return united
