"""How a worker makes the artifact of each target from a lowered program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from mvtool.converters.jobs import Job
from mvtool.errors import ConversionError
from mvtool.ports import PortManifest, Precision, Runtime

if TYPE_CHECKING:
    from mvtool.converters.worker import Stages
    from mvtool.program import StreamProgram
    from mvtool.quantization.pt2e import QuantizedProgram


@dataclass(frozen=True)
class Emitted:
    """A written artifact.

    Attributes:
        ports: Its port manifest.
        delegation: What is known of its delegation.
    """

    ports: PortManifest
    delegation: dict[str, JsonValue] = field(default_factory=dict)


def _coreml(job: Job, program: StreamProgram, stages: Stages) -> Emitted:
    from mvtool.converters import coreml

    precision = job.precision or Precision.FP32
    if precision is Precision.INT8:
        program = _quantized(job, program, stages).program
    with stages.stage("emit"):
        return Emitted(coreml.emit(program, _output(job), precision, report=stages.note))


def _quantized(job: Job, program: StreamProgram, stages: Stages) -> QuantizedProgram:
    """Quantize by PT2E and leave the program as the simulation that verify holds the artifact against."""
    from mvtool.quantization.pt2e import quantize
    from mvtool.quantization.shared import load_shared

    if job.calibration is None or job.simulation is None:
        raise ConversionError(f"The job {job.label!r} lacks a calibration or a simulation folder.")
    with stages.stage("quantize"):
        calibration, ranges = load_shared(program, Path(job.calibration))
        quantized = quantize(program, calibration, ranges)
        quantized.save(Path(job.simulation))
    return quantized


def _output(job: Job) -> Path:
    if job.output is None:
        raise ConversionError(f"The job {job.label!r} lacks an output path.")
    return Path(job.output)


EMITTERS: dict[Runtime, Callable[[Job, StreamProgram, Stages], Emitted]] = {Runtime.COREML: _coreml}
