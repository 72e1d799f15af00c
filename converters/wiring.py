"""From graph ends to named ports: the step between the exported graph and the stream program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils import _pytree as pytree

from mvtool.converters import capture_checks
from mvtool.converters.calling import CallPlan
from mvtool.converters.lift import Ends, Loop, NamedNode, assemble
from mvtool.converters.naming import NEXT_SUFFIX, Names, identifier
from mvtool.converters.rollout import Feedback, Rollout
from mvtool.converters.state_forms import describe_state
from mvtool.errors import CaptureError
from mvtool.ports import InputPort, LogicalState, OutputPort, TensorPort
from mvtool.program import ModelInfo, StateSpec, StreamProgram
from mvtool.streaming.state import StateInfo

MAX_PORT_AXES = 4
LOGITS = "logits"
FRAME = "frame"


@dataclass(frozen=True)
class Wiring:
    """Everything known when ports are made.

    Attributes:
        plan: How the module is called.
        feedback: Explicit states.
        rollout: What the eager module did.
        ends: Open ends of the functional graph.
        declared: What the module says of its buffers.
        output_names: Names that replace the derived ones.
    """

    plan: CallPlan
    feedback: tuple[Feedback, ...]
    rollout: Rollout
    ends: Ends
    declared: Mapping[str, StateInfo]
    output_names: tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """Where the eager value of a port is found in a `Step`.

    Attributes:
        input: Index of the input spec.
        leaf: Index of the output leaf.
        buffer: Name of the buffer.
    """

    input: int | None = None
    leaf: int | None = None
    buffer: str | None = None


@dataclass(frozen=True)
class Wired:
    """A program and, per port, where the eager module holds the same value.

    Attributes:
        program: The captured program.
        inputs: One source per `program.inputs`.
        outputs: One source per `program.output_ports`.
        remarks: What the user should know.
    """

    program: StreamProgram
    inputs: tuple[Origin, ...]
    outputs: tuple[Origin, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _State:
    name: str
    loop: Loop
    initial: Tensor
    source: Origin


def wire(exported: ExportedProgram, wiring: Wiring, info: ModelInfo) -> Wired:
    """Name the ports, lift the states and build the program.

    Raises:
        CaptureError: A port has a type that no manifest knows, the number of `output_names` is
            wrong, or nothing leaves the model.
    """
    names = Names()
    places = _input_nodes(wiring)
    fed = {feedback.position for feedback in wiring.feedback}
    used = [p for p in range(len(wiring.plan.specs)) if p not in fed and places[p].users]
    inputs = [(position, name) for position, name in zip(used, _input_names(wiring.plan, used, names), strict=True)]
    outputs = _outputs(wiring, info, names)
    states = _states(wiring, places, names)
    constants = _constants(exported, wiring.ends)
    _check(wiring, inputs, outputs, states)
    step = wiring.rollout.steps[0]
    program = assemble(
        exported,
        wiring.ends,
        [NamedNode(name, places[position]) for position, name in inputs]
        + [NamedNode(state.name, state.loop.before) for state in states],
        [NamedNode(name, node) for name, node, _ in outputs]
        + [NamedNode(state.name + NEXT_SUFFIX, state.loop.after) for state in states],
        [step.inputs[position] for position, _ in inputs] + [state.initial for state in states],
    )
    return Wired(
        program=StreamProgram(
            exported=program,
            info=info,
            inputs=tuple(_input_port(wiring.plan, name, p, index) for index, (p, name) in enumerate(inputs)),
            states=tuple(
                _state_spec(wiring, info, s, constants, len(inputs) + i, len(outputs) + i) for i, s in enumerate(states)
            ),
            outputs=tuple(_output_port(name, node, index) for index, (name, node, _) in enumerate(outputs)),
        ),
        inputs=tuple(Origin(input=position) for position, _ in inputs),
        outputs=(*(source for _, _, source in outputs), *(state.source for state in states)),
        remarks=tuple(_remarks(wiring, places, fed, states)),
    )


def nominal_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape with at most 4 axes and as many elements: leading axes of size 1 go first, then axes are merged.

    Examples:
        >>> nominal_shape((1, 3, 8, 32, 32)), nominal_shape((2, 3, 8, 4, 4)), nominal_shape(())
        ((3, 8, 32, 32), (6, 8, 4, 4), ())
    """
    sizes = list(shape)
    while len(sizes) > MAX_PORT_AXES and 1 in sizes:
        sizes.remove(1)
    surplus = len(sizes) - MAX_PORT_AXES
    return tuple(sizes) if surplus <= 0 else (math.prod(sizes[: surplus + 1]), *sizes[surplus + 1 :])


def _input_nodes(wiring: Wiring) -> list[Node]:
    """Placeholder of every input spec."""
    markers = [torch.empty(0) for _ in wiring.plan.specs]
    leaves = pytree.tree_flatten(wiring.plan.arguments(markers))[0]
    nodes: dict[int, Node] = {}
    for leaf, node in zip(leaves, wiring.ends.inputs, strict=True):
        if node is not None:
            nodes[next(i for i, marker in enumerate(markers) if marker is leaf)] = node
    return [nodes[position] for position in range(len(markers))]


def _input_names(plan: CallPlan, used: Sequence[int], names: Names) -> list[str]:
    images = [position for position in used if plan.specs[position].is_image]
    return [
        names.unique(FRAME if plan.specs[p].name is None and images == [p] else identifier(plan.paths[p])) for p in used
    ]


def _outputs(wiring: Wiring, info: ModelInfo, names: Names) -> list[tuple[str, Node, Origin]]:
    """Model outputs in order, then buffers that are written but never read."""
    leaves = wiring.rollout.steps[0].outputs
    fed = {feedback.output for feedback in wiring.feedback}
    kept = [(i, n) for i, n in enumerate(wiring.ends.outputs) if n is not None and i not in fed]
    wanted = [leaves[index].name for index, _ in kept]
    if len(kept) == 1 and wanted == ["output"] and info.labels is not None and leaves[kept[0][0]].value.ndim == 2:
        wanted = [LOGITS]
    if wiring.output_names:
        if len(wiring.output_names) != len(wanted):
            raise CaptureError(
                f"{len(wiring.output_names)} output names are given ({', '.join(wiring.output_names)}) for {len(wanted)} "
                f"outputs ({', '.join(wanted)}); name each of them."
            )
        wanted = list(wiring.output_names)
    found = [(names.unique(name), node, Origin(leaf=index)) for name, (index, node) in zip(wanted, kept, strict=True)]
    found += [(names.unique(name), node, Origin(buffer=name)) for name, node in wiring.ends.written.items()]
    return found


def _states(wiring: Wiring, places: Sequence[Node], names: Names) -> list[_State]:
    states = []
    order = list(wiring.rollout.initial)
    # torch.export may list assigned buffers of submodules in an order of its own.
    for loop in sorted(wiring.ends.buffers, key=lambda loop: order.index(loop.source)):
        initial = wiring.rollout.initial[loop.source]
        states.append(_State(names.unique_pair(loop.source, "_state"), loop, initial, Origin(buffer=loop.source)))
    leaves = wiring.rollout.steps[0].outputs
    for feedback in wiring.feedback:
        path, node, after = (
            wiring.plan.paths[feedback.position],
            places[feedback.position],
            wiring.ends.outputs[feedback.output],
        )
        if after is None:
            raise CaptureError(f"The output {leaves[feedback.output].name!r} paired with {path!r} is a constant.")
        loop = Loop(f"{path}={leaves[feedback.output].name}", node, after)
        states.append(_State(names.unique_pair(path, "_state"), loop, feedback.initial, Origin(leaf=feedback.output)))
    return states


def _check(wiring: Wiring, inputs: Sequence[Any], outputs: Sequence[Any], states: Sequence[_State]) -> None:
    for state in states:
        capture_checks.check_dtype(f"The state {state.loop.source!r}", state.initial, "Register it as float32.")
    for name, node, _ in outputs:
        capture_checks.check_dtype(
            f"The output {name!r}", node.meta["val"], "Convert it in forward, e.g. with .float()."
        )
    if not outputs:
        raise CaptureError("The model returns no tensor beside its states; return what the app should see.")
    if not inputs:
        raise CaptureError("The model reads none of its inputs; the graph would compute constants.")


def _tensor_fields(name: str, position: int, tensor: Tensor) -> dict[str, Any]:
    return {
        "name": name,
        "position": position,
        "shape": nominal_shape(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "logical_shape": tuple(tensor.shape),
        "permutation": tuple(range(tensor.ndim)),
    }


def _input_port(plan: CallPlan, name: str, spec_position: int, position: int) -> InputPort:
    spec = plan.specs[spec_position]
    layout = spec.layout if len(spec.shape) <= MAX_PORT_AXES else None
    tensor = torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device="meta")
    return InputPort(
        **_tensor_fields(name, position, tensor), image=spec.is_image, logical_layout=spec.layout, layout=layout
    )


def _output_port(name: str, node: Node, position: int) -> OutputPort:
    return OutputPort(**_tensor_fields(name, position, node.meta["val"]), meaning=LOGITS if name == LOGITS else "")


def _constants(exported: ExportedProgram, ends: Ends) -> dict[Node, Tensor]:
    """Values of the placeholders of weights."""
    values = {**exported.constants, **exported.state_dict}
    return {
        node: values[str(entry.target)]
        for node, entry in ends.weights
        if isinstance(values.get(str(entry.target)), Tensor)
    }


def _state_spec(
    wiring: Wiring, info: ModelInfo, state: _State, constants: Mapping[Node, Tensor], position: int, next_position: int
) -> StateSpec:
    declared = wiring.declared.get(state.loop.source)
    known = describe_state(
        state.loop.source, state.loop.before, state.loop.after, declared, info.frames_per_step, constants
    )
    fields = _tensor_fields(state.name, position, state.initial)
    return StateSpec(
        logical=LogicalState(
            name=state.name,
            source=state.loop.source,
            meaning=known.meaning,
            shape=fields["logical_shape"],
            dtype=fields["dtype"],
            frames_held=known.frames_held,
        ),
        form=known.form,
        initial=state.initial.numpy().copy(),
        input=TensorPort(**fields),
        output=TensorPort(**{**fields, "name": state.name + NEXT_SUFFIX, "position": next_position}),
    )


def _remarks(wiring: Wiring, places: Sequence[Node], fed: set[int], states: Sequence[_State]) -> list[str]:
    unread = [wiring.plan.paths[p] for p, node in enumerate(places) if not node.users]
    remarks = [f"the input {path} is never read and has no port" for path in unread]
    remarks += [
        f"the buffer {name} is written but never read: it leaves the model as an output, not as state"
        for name in wiring.ends.written
    ]
    remarks += [
        f"the buffer {name} is written back unchanged: it is a constant of the graph" for name in wiring.ends.unchanged
    ]
    remarks += [
        f"the state {state.loop.source} is {str(state.initial.dtype).removeprefix('torch.')}: mobile delegates take "
        "floating-point state only and split the graph here; a float32 buffer counts exactly to 16.7 million"
        for state in states
        if not state.initial.dtype.is_floating_point
    ]
    remarks += [
        f"{change.path} is built by the first call ({change.before} to {change.after}) and frozen since"
        for change in wiring.rollout.settled
    ]
    return remarks
