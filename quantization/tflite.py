"""int8 for TensorFlow Lite: calibrate the float artifact's own graph, then rewrite it.

mvtool quantizes the graph itself instead of asking ai-edge-quantizer, because the state loop, ports of
mixed types, and ranges shared with the other targets are what that tool cannot express
(`docs/decisions/006-tflite.md`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

from mvtool.converters.progress import part
from mvtool.converters.tflite_graph import Graph
from mvtool.errors import ConversionError
from mvtool.ports import Precision, Quantization, Runtime
from mvtool.program import StreamProgram
from mvtool.quantization.calibration import CalibrationSet, Range, affine, port_ranges
from mvtool.quantization.layers import constants, fingerprint
from mvtool.quantization.policy import FLOAT_FORMS, WEIGHTS, int8_inputs, int8_states
from mvtool.quantization.proportions import refuse, violations
from mvtool.quantization.pt2e import no_weights
from mvtool.quantization.tflite_domains import Domains, decide
from mvtool.quantization.tflite_ranges import observe
from mvtool.quantization.tflite_rewrite import Rewriter, float_weights_left
from mvtool.quantization.tflite_scales import Scales, assign, widened


@dataclass(frozen=True)
class TFLiteQuantization:
    """What int8 needs to know.

    Attributes:
        calibration: Clips that the stream is rolled on.
        ranges: Range of each port by name, shared by all targets; computed when not given.
        exact: Names of weights of the lowered program whose layers stay float, see `mvtool.quantization.layers`.
    """

    calibration: CalibrationSet
    ranges: Mapping[str, Range] | None = None
    exact: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Quantized:
    """Result of `quantize`.

    Attributes:
        graph: The int8 graph.
        ports: Parameters of each int8 port, by name.
        left: What stays float although it works on feature maps, with the reason.
    """

    graph: Graph
    ports: Mapping[str, Quantization]
    left: tuple[str, ...]


def quantize(graph: Graph, program: StreamProgram, settings: TFLiteQuantization) -> Quantized:
    """Quantize a float graph.

    Args:
        graph: As `export_float` returned it; changed in place.
        program: The lowered program that the graph came from.
        settings: Calibration.

    Raises:
        ConversionError: A tensor is not finite, scales are out of proportion, or a state would not be tied.
    """
    ranges = settings.ranges or port_ranges(program, settings.calibration)
    # Serialising drops unused tensors, so it comes before anything is named by its index.
    with part("calibration"):
        observed = observe(graph.serialise(), program, settings.calibration)
    exact = frozenset(fingerprint(value) for name, value in constants(program).items() if name in settings.exact)
    domains = decide(graph, _int8_tensors(graph, program), _float_states(graph, program), exact)
    ranges = _with_what_states_share(graph, program, domains, observed, ranges)
    ports = port_parameters(program, ranges)
    inputs = {i: ports[p.name] for i, p in enumerate(program.input_ports) if p.name in ports}
    outputs = {i: ports[p.name] for i, p in enumerate(program.output_ports) if p.name in ports}
    pinned = {graph.inputs[i]: q for i, q in inputs.items()} | {graph.outputs[i]: q for i, q in outputs.items()}
    scales = assign(graph, domains, observed, pinned)
    Rewriter(graph, domains, scales, inputs, outputs).run()
    refuse(violations(graph), program.info.name)
    check_ties(graph, program)
    left = [f"{count} x {reason}" for reason, count in sorted(domains.left.items())]
    left += [
        f"{place}: keeps float weights, XNNPACK has no dynamic kernel"
        for place in float_weights_left(graph, domains.exact)
    ]
    return Quantized(graph, ports, tuple(left))


def quantize_weights(graph: Graph, program: StreamProgram, precision: Precision) -> tuple[str, ...]:
    """Round the weights of a float graph and leave everything else float.

    Args:
        graph: As `export_float` returned it; changed in place.
        program: The lowered program that the graph came from.
        precision: `int8-dynamic` or `int8-weights`.

    Returns:
        The operators that keep float weights, one line each.

    Raises:
        UsageError: There are no weights to round.
    """
    rewriter = Rewriter(
        graph, Domains(frozenset()), Scales({}, frozenset()), {}, {}, WEIGHTS[Runtime.TFLITE, precision]
    )
    rewriter.run()
    if not rewriter.rounded_weights:
        raise no_weights(program)
    return tuple(float_weights_left(graph))


def _float_states(graph: Graph, program: StreamProgram) -> list[tuple[int, int]]:
    """Tensors at both ends of the states whose float value is the point; each is one tensor."""
    loops = zip(program.states, _loops(graph, program), strict=True)
    return [(before[0], after[0]) for state, (before, after) in loops if state.form in FLOAT_FORMS]


def _int8_tensors(graph: Graph, program: StreamProgram) -> frozenset[int]:
    """Tensors of the ports that are int8."""
    chosen, kept = int8_inputs(program), int8_states(program)
    inputs = [graph.inputs[i] for i, port in enumerate(program.inputs) if port.name in chosen]
    loops = zip(program.states, _loops(graph, program), strict=True)
    ends = [t for state, loop in loops if state.logical.name in kept for side in loop for t in side]
    return frozenset([*inputs, *ends])


def _loops(graph: Graph, program: StreamProgram) -> list[tuple[list[int], list[int]]]:
    """Input tensors and output tensors of every state."""
    return program.loops(graph.inputs[len(program.inputs) :], graph.outputs[len(program.outputs) :])


def _with_what_states_share(
    graph: Graph,
    program: StreamProgram,
    domains: Domains,
    observed: Mapping[int, Range],
    ranges: Mapping[str, Range],
) -> dict[str, Range]:
    """`ranges` of the ports, those of int8 states widened to all that shares their scale."""
    parameters, kept = port_parameters(program, ranges), int8_states(program)
    pinned = {graph.inputs[i]: parameters[p.name] for i, p in enumerate(program.inputs) if p.name in parameters}
    loops = zip(program.states, _loops(graph, program), strict=True)
    states = [(state, [*before, *after]) for state, (before, after) in loops if state.logical.name in kept]
    own = [(ends, reduce(Range.union, (ranges[p.name] for p in (*s.inputs, *s.outputs)))) for s, ends in states]
    found = dict(ranges)
    for (state, _), wide in zip(states, widened(graph, domains, observed, pinned, own), strict=True):
        found.update({port.name: wide for port in state.ports})
    return found


def port_parameters(program: StreamProgram, ranges: Mapping[str, Range]) -> dict[str, Quantization]:
    """Parameters of the ports that are int8, by port name; both sides of a state get the same.

    Raises:
        ConversionError: A port has no range.
    """
    states = int8_states(program)
    chosen = int8_inputs(program)
    names = [p.name for p in program.inputs if p.name in chosen]
    names += [p.name for s in program.states if s.logical.name in states for p in s.ports]
    missing = [name for name in names if name not in ranges]
    if missing:
        raise ConversionError(f"The calibration of {program.info.name} gave no range for the ports {missing}.")
    return {name: affine(ranges[name].low, ranges[name].high) for name in names}


def check_ties(graph: Graph, program: StreamProgram) -> None:
    """Check on the graph's own outputs that each state leaves as it enters.

    The signature is not asked: it can point at another tensor than the graph's output.

    Raises:
        ConversionError: A state's two sides differ in type, scale or zero point.
    """
    for state, (before, after) in zip(program.states, _loops(graph, program), strict=True):
        sides = [(graph.dtype(t), graph.quantization(t)) for t in (*before, *after)]
        if other := [side for side in sides if side != sides[0]]:
            raise ConversionError(
                f"State {state.logical.name!r} enters as {sides[0]} and leaves as {other[0]}; both sides of the loop "
                "must agree. Please report this model."
            )
