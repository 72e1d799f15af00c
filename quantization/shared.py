"""Clips and port ranges that all int8 targets of a build share.

Ranges are measured once, on the captured program, in the trained model's own units. A target whose port
holds a multiple of the logical value scales the range by that multiplier, so every artifact of a build
quantizes a state with the same real step.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mvtool.errors import ConversionError
from mvtool.program import StreamProgram
from mvtool.quantization.calibration import CalibrationSet, Range, port_ranges
from mvtool.quantization.state_ranges import Recorder

CLIPS_FILE = "clips.npz"
RANGES_FILE = "ranges.json"
_RANGES = TypeAdapter(dict[str, tuple[float, float]])


def save_shared(program: StreamProgram, calibration: CalibrationSet, folder: Path, record: Path | None = None) -> None:
    """Measure the ports of the captured `program` and write clips and ranges into `folder`.

    Args:
        program: Captured.
        calibration: Clips that the stream is rolled on.
        folder: For what the targets share.
        record: File for the ranges of states after every step; a model without states gets none.

    Raises:
        ConversionError: A tensor is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    calibration.save(folder / CLIPS_FILE)
    recorder = Recorder(program)
    ranges = {name: tuple(found) for name, found in port_ranges(program, calibration, recorder.add).items()}
    if record is not None and program.is_stream:
        record.parent.mkdir(parents=True, exist_ok=True)
        found = recorder.record(calibration.origin, len(calibration.clips))
        record.write_text(found.model_dump_json(by_alias=True) + "\n", encoding="utf-8")
    (folder / RANGES_FILE).write_bytes(_RANGES.dump_json(ranges))  # type: ignore[arg-type]


def load_shared(program: StreamProgram, folder: Path) -> tuple[CalibrationSet, dict[str, Range]]:
    """Read what `save_shared` wrote, with the ranges in the units of the ports of the lowered `program`.

    Raises:
        ConversionError: The files are missing or malformed.
    """
    try:
        stored = _RANGES.validate_json((folder / RANGES_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise ConversionError(f"The calibration in {folder} cannot be read: {error}. Convert again.") from error
    sources = {port.name: (port.name, port.multiplier) for port in (*program.inputs, *program.outputs)}
    for state in program.states:
        # A slot holds what the whole state of the captured program does.
        sources.update({port.name: (state.input.name, port.multiplier) for port in state.ports})
    ranges = {
        name: Range(stored[source][0] * factor, stored[source][1] * factor)
        for name, (source, factor) in sources.items()
        if source in stored
    }
    return CalibrationSet.load(folder / CLIPS_FILE), ranges
