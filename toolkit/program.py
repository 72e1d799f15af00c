"""The stream program: the one object that travels from capture to the emitters.

A `StreamProgram` is a functional graph for ONE step. Its inputs are the model inputs followed by the
states, its outputs the model outputs followed by the new states, in the order of the port tuples:

    (inputs..., states...) -> (outputs..., next states...)

Passes never change a program; they return a new one with one more entry in `rewrites`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from mvtool.ports import (
    AnyArray,
    InputPort,
    LogicalState,
    OutputPort,
    PortManifest,
    Precision,
    Preprocessing,
    ResetBytes,
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


@dataclass(frozen=True)
class StateSpec:
    """One state of a program.

    Attributes:
        logical: Name, meaning and shape in the trained model.
        form: How the state holds the past.
        initial: Logical value before the first frame, shape `logical.shape`.
        input: Port that takes the state.
        output: Port that gives it back.
    """

    logical: LogicalState
    form: StateForm
    initial: AnyArray
    input: TensorPort
    output: TensorPort


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
        return (*self.inputs, *(s.input for s in self.states))

    @property
    def output_ports(self) -> tuple[TensorPort, ...]:
        """Model outputs, then next states: the result order of the graph."""
        return (*self.outputs, *(s.output for s in self.states))

    @property
    def is_stream(self) -> bool:
        """Whether the program carries state from call to call."""
        return bool(self.states)

    def initial_ports(self) -> list[AnyArray]:
        """Initial states as float port arrays, in state order."""
        return [s.input.encode(s.initial) for s in self.states]

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


def _binding(state: StateSpec) -> StateBinding:
    stored = state.input.encode(np.asarray(state.initial))
    return StateBinding(
        state=state.logical.name, form=state.form, input=state.input, output=state.output, reset=ResetBytes.of(stored)
    )
