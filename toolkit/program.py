"""The stream program: the one object that travels from capture to the emitters.

A `StreamProgram` is a functional graph for ONE step. Its inputs are the model inputs followed by the
states, its outputs the model outputs followed by the new states, in the order of the port tuples:

    (inputs..., states...) -> (outputs..., next states...)

Passes never change a program; they return a new one with one more entry in `rewrites`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mvtool import slots
from mvtool.ports import (
    AnyArray,
    Binding,
    InputPort,
    LogicalState,
    OutputPort,
    PortManifest,
    Precision,
    Preprocessing,
    ResetBytes,
    RingBinding,
    Runtime,
    StateBinding,
    StateForm,
    TensorPort,
)

if TYPE_CHECKING:
    from torch.export import ExportedProgram


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model beside its graph.

    Attributes:
        name: Registry name, or a name derived from the user's factory.
        untrained: The weights are a deterministic fill.
        frames_per_step: Video frames per call.
        frame_rate: Frames per second the model was trained at.
        preprocessing: For video models.
        labels: Name of the label set of the logits.
        class_names: The labels themselves, where they are no list that ships with mvtool.
        calibration: Generated clips that int8 is calibrated on where the user gives none, see `mvtool.datasets.spec`; the
            bundled clip if not set.
    """

    name: str
    untrained: bool = False
    frames_per_step: int = 1
    frame_rate: float | None = None
    preprocessing: Preprocessing | None = None
    labels: str | None = None
    class_names: tuple[str, ...] = ()
    calibration: str | None = None


T = TypeVar("T")
PortT = TypeVar("PortT", bound=TensorPort)


@dataclass(frozen=True)
class Slots:
    """Ports of a state whose entries are ports of their own, see `mvtool.ports.RingBinding`.

    Attributes:
        axis: Axis of the logical state that they lie along.
        inputs: Oldest first.
        outputs: The newest entries, oldest first.
    """

    axis: int
    inputs: tuple[TensorPort, ...]
    outputs: tuple[TensorPort, ...]


@dataclass(frozen=True)
class StateSpec:
    """One state of a program.

    Attributes:
        logical: Name, meaning and shape in the trained model.
        form: How the state holds the past.
        initial: Logical value before the first frame, shape `logical.shape`.
        input: Port that takes the state; where it has slots, one that would take them all.
        output: Port that gives it back; the same.
        slots: Given where the graph takes the entries one by one.
    """

    logical: LogicalState
    form: StateForm
    initial: AnyArray
    input: TensorPort
    output: TensorPort
    slots: Slots | None = None

    @property
    def inputs(self) -> tuple[TensorPort, ...]:
        """What the graph takes."""
        return (self.input,) if self.slots is None else self.slots.inputs

    @property
    def outputs(self) -> tuple[TensorPort, ...]:
        """What the graph gives."""
        return (self.output,) if self.slots is None else self.slots.outputs

    @property
    def ports(self) -> tuple[TensorPort, ...]:
        """Ports of the graph and those that describe the whole state."""
        whole = () if self.slots is None else (self.input, self.output)
        return (*whole, *self.inputs, *self.outputs)

    def with_ports(self, change: Callable[[TensorPort], TensorPort]) -> StateSpec:
        """A copy with every port changed."""
        parts = self.slots
        if parts is not None:
            parts = Slots(parts.axis, tuple(map(change, parts.inputs)), tuple(map(change, parts.outputs)))
        return replace(self, input=change(self.input), output=change(self.output), slots=parts)

    def initial_ports(self) -> list[AnyArray]:
        """The first value of `inputs`, as port arrays."""
        return slots.split(self.input.encode(np.asarray(self.initial)), self.inputs)


@dataclass(frozen=True)
class RewriteReport:
    """What one rewrite did.

    Attributes:
        name: Name of the rewrite.
        changed: Number of places changed.
        max_difference: Largest |after - before| over all outputs and states of a rolled check,
            divided by the largest |before| of that tensor; 0.0 when nothing changed.
        details: One line per kind of place changed.
        left_alone: Places that matched in part and were left, with the reason.
    """

    name: str
    changed: int
    max_difference: float
    details: tuple[str, ...] = ()
    left_alone: tuple[str, ...] = ()


@dataclass(frozen=True)
class StreamProgram:
    """A functional step graph with named ports; see the module docstring."""

    exported: ExportedProgram
    info: ModelInfo
    inputs: tuple[InputPort, ...]
    states: tuple[StateSpec, ...]
    outputs: tuple[OutputPort, ...]
    rewrites: tuple[RewriteReport, ...] = field(default=())

    def replace(self, **changes: object) -> StreamProgram:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def input_ports(self) -> tuple[TensorPort, ...]:
        """Model inputs, then state inputs: the argument order of the graph."""
        return (*self.inputs, *(p for s in self.states for p in s.inputs))

    @property
    def output_ports(self) -> tuple[TensorPort, ...]:
        """Model outputs, then next states: the result order of the graph."""
        return (*self.outputs, *(p for s in self.states for p in s.outputs))

    def numbered(self) -> StreamProgram:
        """A copy whose ports have the positions of their order."""
        places_in, places_out = itertools.count(), itertools.count()

        def placed(ports: Iterable[PortT], places: Iterator[int]) -> tuple[PortT, ...]:
            return tuple(port.model_copy(update={"position": next(places)}) for port in ports)

        inputs, outputs = placed(self.inputs, places_in), placed(self.outputs, places_out)
        states = []
        for state in self.states:
            before, after = placed(state.inputs, places_in), placed(state.outputs, places_out)
            if state.slots is None:
                states.append(replace(state, input=before[0], output=after[0]))
            else:
                states.append(replace(state, slots=Slots(state.slots.axis, before, after)))
        return replace(self, inputs=inputs, outputs=outputs, states=tuple(states))

    @property
    def is_stream(self) -> bool:
        """Whether the program carries state from call to call."""
        return bool(self.states)

    def initial_ports(self) -> list[AnyArray]:
        """What the state ports take before the first step, as float port arrays in port order."""
        return [array for state in self.states for array in state.initial_ports()]

    def loops(self, given: Sequence[T], results: Sequence[T]) -> list[tuple[list[T], list[T]]]:
        """What belongs to the inputs and to the outputs of every state.

        Args:
            given: One for each state port that the graph takes, in their order.
            results: One for each that it gives.
        """
        before, after = iter(given), iter(results)
        return [([next(before) for _ in s.inputs], [next(after) for _ in s.outputs]) for s in self.states]

    def following(self, given: Sequence[T], results: Sequence[T]) -> list[T]:
        """What the state ports take in the next step; see `loops` for the arguments."""
        return [value for held, newest in self.loops(given, results) for value in slots.moved_up(held, newest)]

    def manifest(self, runtime: Runtime, precision: Precision) -> PortManifest:
        """The port manifest of an artifact whose ports are those of this program."""
        return PortManifest(
            model=self.info.name,
            runtime=runtime,
            precision=precision,
            untrained=self.info.untrained,
            frames_per_step=self.info.frames_per_step,
            frame_rate=self.info.frame_rate,
            preprocessing=self.info.preprocessing,
            inputs=self.inputs,
            logical_states=tuple(s.logical for s in self.states),
            states=tuple(_binding(s) for s in self.states),
            outputs=self.outputs,
            labels=self.info.labels,
            class_names=self.info.class_names,
        )


def _binding(state: StateSpec) -> Binding:
    name, reset = state.logical.name, ResetBytes.of(state.input.encode(np.asarray(state.initial)))
    if state.slots is None:
        return StateBinding(state=name, form=state.form, input=state.input, output=state.output, reset=reset)
    axis, inputs, outputs = state.slots.axis, state.slots.inputs, state.slots.outputs
    return RingBinding(state=name, form=StateForm.RING, axis=axis, inputs=inputs, outputs=outputs, reset=reset)
