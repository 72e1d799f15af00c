"""How far the values of each state reach after every step of a clip.

int8 can only hold a state if its range settles: what still grows after the last calibrated frame leaves the range in a longer stream.
The record is written beside a build's references and drawn by `mvtool quantize`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ConfigDict, Field, ValidationError

from mvtool.errors import ManifestError, UsageError
from mvtool.extras import require
from mvtool.files import atomic_path
from mvtool.plotting import COLOURS
from mvtool.ports import Document, StateForm
from mvtool.program import StreamProgram
from mvtool.quantization.calibration import RolledStep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STATE_RANGES_SCHEMA = "mvtool.state-ranges/1"
COUNTING = frozenset({StateForm.COUNTER, StateForm.PHASE})
SETTLED = 0.02
"""A range that the last quarter of the steps widens by no more than this share of it has settled."""


class StateRange(Document):
    """Range of one state.

    Attributes:
        state: Its name.
        form: How it holds the past.
        low: Smallest value that left step 0, 1, ... of any clip.
        high: Largest.
    """

    state: str
    form: StateForm
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def settled(self) -> bool:
        """Whether the last quarter of the steps brought (nearly) nothing that was not seen before; a counter need not, it is float."""
        if self.form in COUNTING:
            return True
        early = max(1, len(self.low) - len(self.low) // 4)
        width = max(self.high) - min(self.low)
        before = max(self.high[:early]) - min(self.low[:early])
        return width - before <= SETTLED * width


class StateRanges(Document):
    """Ranges of all states of a stream.

    Attributes:
        schema_id: Always `mvtool.state-ranges/1`; the JSON key is `schema`.
        model: Name of the model.
        origin: What it was calibrated on.
        clips: Number of clips.
        states: In the order of the ports.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_id: Literal["mvtool.state-ranges/1"] = Field(default="mvtool.state-ranges/1", alias="schema")
    model: str
    origin: str
    clips: int
    states: tuple[StateRange, ...]


class Recorder:
    """Collects the ranges while the float stream rolls.

    Args:
        program: Captured, so that values have the trained model's units.
    """

    def __init__(self, program: StreamProgram) -> None:
        """Nothing is seen yet."""
        self._program = program
        self._seen: dict[str, list[tuple[float, float]]] = {state.logical.name: [] for state in program.states}

    def add(self, step: RolledStep) -> None:
        """Take in what left one step."""
        for state in self._program.states:
            array, seen = step.outputs[state.output.name], self._seen[state.logical.name]
            low, high = float(array.min()), float(array.max())
            if step.index == len(seen):
                seen.append((low, high))
            else:
                before = seen[step.index]
                seen[step.index] = min(low, before[0]), max(high, before[1])

    def record(self, origin: str, clips: int) -> StateRanges:
        """Everything that was seen."""
        states = []
        for state in self._program.states:
            low, high = np.array(self._seen[state.logical.name]).T
            # Seven digits are float32's own.
            texts = [tuple(float(f"{value:.7g}") for value in ends) for ends in (low, high)]
            states.append(StateRange(state=state.logical.name, form=state.form, low=texts[0], high=texts[1]))
        return StateRanges(model=self._program.info.name, origin=origin, clips=clips, states=tuple(states))


def read(path: Path) -> StateRanges:
    """Read a record.

    Raises:
        ManifestError: It is missing or malformed.
    """
    try:
        return StateRanges.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ManifestError(
            f"{path} is no readable record of state ranges: {error}. Convert with --int8 again."
        ) from error


def plot(ranges: StateRanges, target: Path) -> None:
    """Draw the range of every state but counters against the number of the frame, one picture per form.

    Each line is the width of a state's range up to that step, as a share of its final width: a line that is flat at the right end has
    settled.

    Args:
        ranges: Record.
        target: Its suffix chooses the format.

    Raises:
        UsageError: There are counters only.
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "to draw plots")
    from matplotlib.figure import Figure

    forms = list(dict.fromkeys(state.form for state in ranges.states if state.form not in COUNTING))
    if not forms:
        raise UsageError(f"{ranges.model} has no state but counters; there is nothing to draw.")
    figure = Figure(figsize=(8, 1.2 + 2.2 * len(forms)), layout="constrained")
    figure.suptitle(
        f"{ranges.model}: ranges of states over {ranges.clips} clips of {ranges.origin}", fontsize=10, x=0.01, ha="left"
    )
    for axes, form in zip(figure.subplots(len(forms), 1, sharex=True, squeeze=False)[:, 0], forms, strict=True):
        _lines(axes, form, [state for state in ranges.states if state.form is form])
    axes.set_xlabel("step of the stream")
    with atomic_path(target) as partial:
        figure.savefig(partial, dpi=110, format=target.suffix.removeprefix("."))


def _lines(axes: Axes, form: StateForm, states: Iterable[StateRange]) -> None:
    listed = list(states)
    for state in listed:
        width = np.maximum.accumulate(state.high) - np.minimum.accumulate(state.low)
        colour = COLOURS[0] if state.settled else COLOURS[1]
        axes.plot(
            range(1, len(width) + 1),
            100 * width / max(width[-1], np.finfo(float).tiny),
            color=colour,
            lw=0.9,
            alpha=0.7,
        )
    growing = sum(not state.settled for state in listed)
    axes.set_title(f"{form}, {len(listed)} in all, {growing} still growing at the end", fontsize=9, loc="left")
    axes.set_ylabel("% of final width")
    axes.set_ylim(0, 105)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
