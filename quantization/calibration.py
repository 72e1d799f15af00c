"""Calibration clips, and the true ranges of ports and states in a really rolled stream.

All three targets share what is here: the clips, the ranges of the ports (`port_ranges`) and the one
function that turns a range into a scale and a zero point (`affine`). States are never invented: every
clip starts from the model's initial state and the float model itself produces every later one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mvtool.errors import ConversionError, VideoError
from mvtool.ports import AnyArray, Preprocessing, Quantization, TensorPort, contiguous
from mvtool.program import StreamProgram

if TYPE_CHECKING:
    from torch.fx import GraphModule

Step = tuple[AnyArray, ...]
"""Logical model inputs of one call, in port order: float32, or whole numbers where the model takes them."""

Clip = tuple[Step, ...]
"""Consecutive calls; the state is reset before the first."""

STREAM_STEPS = 50
"""Fewest steps of a stream whose state ranges are trusted. The buffers of the MoViNet family are full after
at most 14 frames (facts of the family); running means need a few times that to settle."""

INT8_MIN, INT8_MAX = -128, 127

FORCED_IMAGE_RANGE = (0.0, 1.0)
"""Gives exactly scale 1/255 and zero point -128: a camera byte enters with its top bit flipped."""


class Range(NamedTuple):
    """Smallest and largest real value seen; both finite."""

    low: float
    high: float

    def union(self, other: Range) -> Range:
        """The smallest range that holds both."""
        return Range(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class CalibrationSet:
    """Clips of logical model inputs.

    Attributes:
        clips: Clip, then step, then input, in the trained model's shapes.
        bundled: The clips are mvtool's own, not the user's data.
        origin: Where the clips come from, for reports; no machine paths.
        notes: What the user should know, one sentence each; shown as warnings.
    """

    clips: tuple[Clip, ...]
    bundled: bool = False
    origin: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a set without a single step."""
        if not self.clips or not all(self.clips):
            raise VideoError(
                f"The calibration set {self.origin!r} holds {len(self.clips)} clips, at least one of them without "
                "frames; expected one clip with one frame or more."
            )

    @property
    def steps(self) -> int:
        """Number of calls over all clips."""
        return sum(len(clip) for clip in self.clips)

    def extended(self, minimum: int) -> CalibrationSet:
        """Play every clip shorter than `minimum` steps to and fro until it is that long.

        Turning round keeps the motion continuous, where a repeat from the start would show the
        model a cut that its user's video does not have.
        """
        short = sum(len(clip) < minimum for clip in self.clips)
        if not short:
            return self
        note = (
            f"{short} calibration clips are shorter than {minimum} steps and are played to and fro: "
            "state ranges need that many to settle. Longer clips calibrate better."
        )
        clips = tuple(tuple(clip[_bounce(i, len(clip))] for i in range(max(minimum, len(clip)))) for clip in self.clips)
        return replace(self, clips=clips, notes=(*self.notes, note))

    def save(self, path: Path) -> None:
        """Write an uncompressed `.npz`: `clip<i>_input<j>` with steps stacked on a new first axis."""
        arrays = {
            f"clip{i}_input{j}": np.stack([step[j] for step in clip])
            for i, clip in enumerate(self.clips)
            for j in range(len(clip[0]))
        }
        with path.open("wb") as stream:
            np.savez(
                stream,
                bundled=np.asarray(self.bundled),
                origin=np.asarray(self.origin),
                notes=np.asarray(self.notes, dtype=np.str_),
                **arrays,  # type: ignore[arg-type]
            )

    @classmethod
    def load(cls, path: Path) -> CalibrationSet:
        """Read what `save` wrote.

        Raises:
            VideoError: The file is not one of ours.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                stacks = {key: data[key] for key in data.files}
            bundled, origin, notes = stacks.pop("bundled"), stacks.pop("origin"), stacks.pop("notes")
        except (OSError, ValueError, KeyError) as error:
            raise VideoError(f"{path.name} is not a saved calibration set: {error}. Calibrate again.") from error
        counts: dict[int, int] = {}
        for key in stacks:
            clip = int(key.removeprefix("clip").partition("_")[0])
            counts[clip] = counts.get(clip, 0) + 1
        clips = tuple(
            tuple(zip(*(stacks[f"clip{i}_input{j}"] for j in range(counts[i])), strict=True)) for i in sorted(counts)
        )
        return cls(clips, bool(bundled), str(origin), tuple(str(note) for note in notes))


@dataclass(frozen=True)
class RolledStep:
    """One call of the float model.

    Attributes:
        clip: Index of the clip.
        index: Step within the clip; 0 starts from the initial state.
        inputs: Input port name to real values in the port's shape: model inputs and states.
        outputs: Output port name to real values in the port's shape: model outputs and next states.
    """

    clip: int
    index: int
    inputs: dict[str, AnyArray]
    outputs: dict[str, AnyArray]


def rolled(program: StreamProgram, calibration: CalibrationSet) -> Iterator[RolledStep]:
    """Run the float model over every clip, each from the initial state.

    Args:
        program: Captured or lowered; its ports decide names and shapes.
        calibration: Clips with one array per model input.

    Raises:
        ConversionError: A clip does not fit the model's inputs.
    """
    import torch

    step = graph_step(program)
    with torch.no_grad():
        for clip_index, clip in enumerate(calibration.clips):
            values = program.initial_ports()
            for index, inputs in enumerate(clip):
                fed = [*_encode_inputs(program, inputs), *values]
                given = step(fed)
                values = program.following(values, given[len(program.outputs) :])
                yield RolledStep(
                    clip_index, index, _named(program.input_ports, fed), _named(program.output_ports, given)
                )


def graph_step(
    program: StreamProgram, edit: Callable[[GraphModule], None] | None = None
) -> Callable[[Sequence[AnyArray]], list[AnyArray]]:
    """The program's graph as a function of port arrays.

    A captured graph takes tensors of the trained model's shapes, a lowered one those of its ports; the
    returned function always takes and gives the ports' shapes.

    Args:
        program: Captured or lowered; it is not changed.
        edit: Changes the graph before it runs.
    """
    import torch

    module = program.exported.module()
    if edit is not None:
        edit(module)
    lowered = graph_takes_ports(program)

    def run(arrays: Sequence[AnyArray]) -> list[AnyArray]:
        ports = program.input_ports
        given = arrays if lowered else [p.decode(a) for p, a in zip(ports, arrays, strict=True)]
        result = module(*(torch.from_numpy(contiguous(a)) for a in given))
        tensors = (result,) if isinstance(result, torch.Tensor) else tuple(result)
        # A copy, because an output may be a view of an input or of a later-reused buffer.
        found = [t.detach().numpy().copy() for t in tensors]
        return found if lowered else [p.encode(a) for p, a in zip(program.output_ports, found, strict=True)]

    return run


def graph_takes_ports(program: StreamProgram) -> bool:
    """Whether the graph's own inputs have the shapes of the ports, not those of the trained model."""
    names = program.exported.graph_signature.user_inputs
    shapes = {n.name: n.meta["val"].shape for n in program.exported.graph.nodes if n.op == "placeholder"}
    return all(tuple(shapes[str(n)]) == p.shape for n, p in zip(names, program.input_ports, strict=True))


def port_ranges(
    program: StreamProgram, calibration: CalibrationSet, seen: Callable[[RolledStep], None] = lambda step: None
) -> dict[str, Range]:
    """True minimum and maximum of every port, by port name.

    Both sides of a state get the same range: the union of what entered and what left. Frame ports of
    video models get the range that camera bytes can reach, whatever the clips show.

    Args:
        program: Captured or lowered.
        calibration: Clips that the stream is rolled on.
        seen: Called with every step.

    Raises:
        ConversionError: A tensor is not finite.
    """
    ranges: dict[str, Range] = {}
    for step in rolled(program, calibration):
        for name, array in (*step.inputs.items(), *step.outputs.items()):
            found = _range(name, array)
            ranges[name] = ranges[name].union(found) if name in ranges else found
        seen(step)
    for state in program.states:
        seen_there = [ranges[port.name] for port in (*state.inputs, *state.outputs)]
        ranges.update(dict.fromkeys((port.name for port in state.ports), reduce(Range.union, seen_there)))
    for port in program.inputs:
        if port.image and program.info.preprocessing is not None:
            ranges[port.name] = image_range(program.info.preprocessing)
    return ranges


def image_range(preprocessing: Preprocessing) -> Range:
    """Real values at the frame port of the bytes 0 and 255; (0, 1) where nothing but `x / 255` is applied."""
    ends = [
        (byte - mean) / std
        for byte in preprocessing.range
        for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True)
    ]
    return Range(min(ends), max(ends))


def affine(low: float, high: float) -> Quantization:
    """Asymmetric int8 quantization of the range `low`..`high`.

    The range is widened to hold 0, so that zero padding and empty buffers are exact. The scale is a
    float32 number, because that is what every runtime stores.

    Raises:
        ConversionError: The range is not finite or is upside down.
    """
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        raise ConversionError(f"The range {low} .. {high} cannot be quantized; expected finite numbers in order.")
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < np.finfo(np.float32).tiny * 255:
        # A tensor that is always 0: any scale is right, this one stays in proportion to its neighbours.
        low, high = FORCED_IMAGE_RANGE
    scale = float(np.float32((high - low) / (INT8_MAX - INT8_MIN)))
    zero_point = int(np.clip(np.rint(INT8_MIN - low / scale), INT8_MIN, INT8_MAX))
    return Quantization(scale=scale, zero_point=zero_point)


def _bounce(index: int, length: int) -> int:
    period = max(2 * (length - 1), 1)
    place = index % period
    return min(place, period - place) if length > 1 else 0


def _encode_inputs(program: StreamProgram, inputs: Step) -> list[AnyArray]:
    if len(inputs) != len(program.inputs):
        raise ConversionError(
            f"A calibration step holds {len(inputs)} arrays; the model {program.info.name!r} takes "
            f"{[port.name for port in program.inputs]}."
        )
    return [port.encode(array) for port, array in zip(program.inputs, inputs, strict=True)]


def _named(ports: Sequence[TensorPort], arrays: Sequence[AnyArray]) -> dict[str, AnyArray]:
    return {port.name: array for port, array in zip(ports, arrays, strict=True)}


def _range(name: str, array: AnyArray) -> Range:
    found = Range(float(array.min()), float(array.max()))
    if not all(map(math.isfinite, found)):
        raise ConversionError(
            f"Port {name!r} is not finite during calibration (range {found.low} .. {found.high}). "
            "Check the weights, and that the calibration frames are preprocessed as in training."
        )
    return found
