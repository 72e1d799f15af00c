"""The golden file: a few inputs and what the fp32 PyTorch stream gives for them, from reset.

An app's unit test feeds the inputs one by one and compares the outputs. `golden.npz` holds, for
`frames` steps on a new first axis:

    input_<name>      pictures as camera bytes, uint8 `(frames, [T,] H, W, 3)` RGB; other inputs in logical shape
    output_<name>     float32 in logical shape

Pictures are stored before `Preprocessing`'s scaling to `range`, `mean` and `std`, and after its crop.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvtool.errors import ManifestError
from mvtool.files import write_atomic
from mvtool.ports import AnyArray, InputPort, PortManifest, Precision
from mvtool.session import Session
from mvtool.verification.bounds import ERROR_FLOOR, FP16_LIMIT, FP32_LIMIT
from mvtool.verification.frames import FrameSource, logical_picture, steps_for

GOLDEN_FRAMES = 8
_INT8_MARGIN = 2.0
_INT8_LEAST = 0.02


@dataclass(frozen=True)
class Golden:
    """The contents of a golden file.

    Attributes:
        inputs: Input name to stacked arrays as stored.
        outputs: Output name to stacked logical arrays.
    """

    inputs: dict[str, AnyArray]
    outputs: dict[str, AnyArray]

    @property
    def frames(self) -> int:
        """Number of steps."""
        return len(next(iter(self.outputs.values())))

    def step(self, manifest: PortManifest, index: int) -> tuple[AnyArray, ...]:
        """Logical inputs of step `index`, counted from 0, for a session with that manifest."""
        return tuple(self._logical(port, manifest, self.inputs[port.name][index]) for port in manifest.inputs)

    def _logical(self, port: InputPort, manifest: PortManifest, stored: AnyArray) -> AnyArray:
        if not _is_picture(port):
            return stored
        frames = stored if stored.ndim == 4 else stored[None]
        return logical_picture(frames.astype(np.uint8), port, manifest.preprocessing)

    def error(self, outputs: dict[str, AnyArray], index: int) -> float:
        """Largest error of the outputs of step `index`: max|difference| / max(max|expected|, 1e-3)."""
        errors = [0.0]
        for name, stack in self.outputs.items():
            expected = stack[index].astype(np.float64)
            scale = max(float(np.max(np.abs(expected), initial=0.0)), ERROR_FLOOR)
            errors.append(float(np.max(np.abs(outputs[name] - expected), initial=0.0)) / scale)
        return max(errors)


def _is_picture(port: InputPort) -> bool:
    return port.image and port.logical_layout is not None


def make_golden(session: Session, frames: int | None = None, seed: int = 0) -> Golden:
    """Run the first `frames` steps of `FrameSource` through the fp32 PyTorch stream.

    Args:
        session: `mvtool.runtimes.pytorch.open_program` of the captured program; it is reset before and after.
        frames: Number of steps; by default `GOLDEN_FRAMES` of a stream, and the clips that verify replays.
        seed: Of the inputs.
    """
    manifest = session.manifest
    if frames is None:
        frames = GOLDEN_FRAMES if manifest.states else steps_for(stream=False, frames_per_step=manifest.frames_per_step)
    source = FrameSource(manifest.inputs, manifest.preprocessing, seed)
    inputs: dict[str, list[AnyArray]] = {port.name: [] for port in manifest.inputs}
    outputs: dict[str, list[AnyArray]] = {port.name: [] for port in manifest.outputs}
    session.reset()
    for index in range(frames):
        for name, array in session.step(*source.step(index)).items():
            outputs[name].append(array)
        for number, port in enumerate(manifest.inputs):
            stored = source.pictures(port, index) if _is_picture(port) else source.step(index)[number]
            inputs[port.name].append(stored)
    session.reset()
    return Golden(_stacked(inputs), _stacked(outputs))


def _stacked(lists: dict[str, list[AnyArray]]) -> dict[str, AnyArray]:
    return {name: np.stack(arrays) for name, arrays in lists.items()}


def write_golden(golden: Golden, path: Path) -> None:
    """Write `golden` atomically; the same contents give the same bytes."""
    arrays: dict[str, NDArray[np.generic]] = {f"input_{name}": array for name, array in golden.inputs.items()}
    arrays |= {f"output_{name}": array for name, array in golden.outputs.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomic(path, buffer.getvalue())


def read_golden(path: Path) -> Golden:
    """Read a golden file.

    Raises:
        ManifestError: It is missing, truncated, or not a golden file.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ManifestError(f"The golden file {path} cannot be read: {error}. Convert the model again.") from error
    sides = [
        {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        for prefix in ("input_", "output_")
    ]
    if not sides[0] or not sides[1] or len({len(array) for array in arrays.values()}) != 1:
        raise ManifestError(
            f"{path} is not a golden file: it holds {sorted(arrays)}; expected input_* and output_* of one length."
        )
    return Golden(*sides)


def int8_tolerance(golden: Golden, simulation: Session) -> float:
    """Tolerance for quantized artifacts: twice the error of the free-running simulation, at least 0.02.

    Args:
        golden: Of the fp32 stream.
        simulation: Session of the quantized PyTorch program; it is reset before and after.
    """
    simulation.reset()
    steps = range(golden.frames)
    errors = [golden.error(simulation.step(*golden.step(simulation.manifest, i)), i) for i in steps]
    simulation.reset()
    return max(_INT8_LEAST, _INT8_MARGIN * max(errors))


def tolerances(quantized: Mapping[Precision, float]) -> dict[Precision, float]:
    """Tolerances of the golden file by precision; those of quantized ones from `int8_tolerance`."""
    return {Precision.FP32: FP32_LIMIT, Precision.FP16: FP16_LIMIT, **quantized}
