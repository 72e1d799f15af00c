"""How a worker makes the artifact of each target from a lowered program."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from mvtool.converters.jobs import Job
from mvtool.errors import ConversionError
from mvtool.ports import PortManifest, Precision, Runtime
from mvtool.quantization.policy import VECTOR_PATH, WEIGHTS

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
        simulation: The quantized PyTorch program that it was made from, where there is one.
    """

    ports: PortManifest
    delegation: dict[str, JsonValue] = field(default_factory=dict)
    simulation: StreamProgram | None = None


def _tflite(job: Job, program: StreamProgram, exact: frozenset[str], stages: Stages) -> Emitted:
    from mvtool.converters import tflite
    from mvtool.converters.tflite_delegation import delegation
    from mvtool.quantization.shared import load_shared
    from mvtool.quantization.tflite import TFLiteQuantization

    quantization = None
    if job.precision is Precision.INT8:
        with stages.stage("calibration"):
            calibration, ranges = load_shared(program, _calibration(job))
        quantization = TFLiteQuantization(calibration, ranges, exact)
    with stages.stage("emit"):
        ports = tflite.emit(
            program, _output(job), precision=_precision(job), quantization=quantization, report=stages.note
        )
    with stages.stage("delegation"):
        return Emitted(ports, delegation(_output(job)))


def _executorch(job: Job, program: StreamProgram, exact: frozenset[str], stages: Stages) -> Emitted:
    from mvtool.converters import executorch

    with stages.stage("prepare"):
        prepared = executorch.prepare(program)
    precision = _precision(job)
    quantized = _quantized(job, prepared, exact, stages) if precision.quantized else None
    with stages.stage("emit"):
        emission = executorch.emit(quantized or prepared, _output(job), precision=precision, report=stages.note)
    outside: dict[str, JsonValue] = {**Counter(emission.outside)}
    found: dict[str, JsonValue] = {"delegates": emission.delegates, "operators_outside": outside}
    if quantized is not None and (left := quantized.float_weights()):
        found["float_weights"] = {**left}
    return Emitted(emission.manifest, found, None if quantized is None else quantized.program)


def _coreml(job: Job, program: StreamProgram, exact: frozenset[str], stages: Stages) -> Emitted:
    from mvtool.converters import coreml

    precision = _precision(job)
    if precision.quantized:
        program = _quantized(job, program, exact, stages).program
    with stages.stage("emit"):
        ports = coreml.emit(program, _output(job), precision, report=stages.note)
    return Emitted(ports, simulation=program if precision.quantized else None)


def _quantized(job: Job, program: StreamProgram, exact: frozenset[str], stages: Stages) -> QuantizedProgram:
    """Quantize by PT2E and leave the program as the simulation that verify holds the artifact against."""
    from mvtool.quantization.pt2e import quantize, quantize_weights
    from mvtool.quantization.shared import load_shared

    if job.simulation is None or job.target is None:
        raise ConversionError(f"The job {job.label!r} lacks a simulation folder or a target.")
    with stages.stage("quantize"):
        if _precision(job) is Precision.INT8:
            calibration, ranges = load_shared(program, _calibration(job))
            quantized = quantize(program, calibration, ranges, exact, VECTOR_PATH[job.target])
        else:
            quantized = quantize_weights(program, WEIGHTS[job.target, _precision(job)])
    with stages.stage("save"):
        quantized.save(Path(job.simulation))
    return quantized


def golden_limit(job: Job, captured: StreamProgram, emitted: Emitted) -> float | None:
    """Error that a quantized artifact may have on the golden file; None where none is defined.

    Its simulation is at hand here; whoever assembles the build would have to read it again.
    """
    from mvtool.golden import int8_tolerance, make_golden
    from mvtool.runtimes import open_file
    from mvtool.runtimes.pytorch import open_program

    if not _precision(job).quantized:
        return None
    session = open_file(_output(job)) if emitted.simulation is None else open_program(emitted.simulation)
    found = int8_tolerance(make_golden(open_program(captured)), session)
    return found if math.isfinite(found) else None


def _precision(job: Job) -> Precision:
    return job.precision or Precision.FP32


def _calibration(job: Job) -> Path:
    if job.calibration is None:
        raise ConversionError(f"The job {job.label!r} lacks a calibration.")
    return Path(job.calibration)


def _output(job: Job) -> Path:
    if job.output is None:
        raise ConversionError(f"The job {job.label!r} lacks an output path.")
    return Path(job.output)


EMITTERS: dict[Runtime, Callable[[Job, StreamProgram, frozenset[str], Stages], Emitted]] = {
    Runtime.TFLITE: _tflite,
    Runtime.EXECUTORCH: _executorch,
    Runtime.COREML: _coreml,
}
"""The third argument names the weights of the lowered program whose layers stay float in int8."""
