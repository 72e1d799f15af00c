"""The Core ML emitter: a lowered stream program becomes an `.mlpackage` (ML program, iOS 17 and later).

    fp32  every value float32, state float32
    fp16  values float16, state float16; running means, counters and other accumulators float32
    int8  static int8 weights and activations from a PT2E program (W8A8), the rest as in fp16
    int8-weights  int8 weights from a PT2E program, everything else as in fp32

The choices and their reasons are in `docs/decisions/003-coreml-artifacts.md`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvtool.converters.coreml_check import check_one_step
from mvtool.converters.coreml_graph import accumulators, prepared
from mvtool.converters.coreml_grids import state_grids
from mvtool.converters.coreml_package import write_package
from mvtool.converters.coreml_ports import FLOAT32, core_ml_ports, with_grids
from mvtool.converters.coreml_precision import float16_selector
from mvtool.converters.coreml_spec import check_ports, describe, float_types, name_values, strip
from mvtool.converters.coreml_tools import (
    Specification,
    conversion_errors,
    coremltools,
    quiet,
    remarks,
    without_validation,
)
from mvtool.converters.progress import part
from mvtool.errors import ConversionError, UsageError
from mvtool.ports import InputPort, PortManifest, Precision, Runtime, TensorPort
from mvtool.program import StreamProgram

if TYPE_CHECKING:
    from torch.export import ExportedProgram

EXTENSION = ".mlpackage"
Report = Callable[[str], None]

# coremltools 9.0 rescales both operands of a quantized addition so that one scale becomes 1; in float16 the
# other then overflows once the two ranges differ by more than a factor of 256, and the sum saturates silently.
PASSES_LEFT_OUT = {"common::distributive_quantized_binary_op_scale_normalization"}


@dataclass(frozen=True)
class _Draft:
    """What coremltools made.

    Attributes:
        specification: The model, ports under provisional names.
        weights: Folder of the weight blob, None where there is none.
    """

    specification: Specification
    weights: Path | None


def emit(
    program: StreamProgram, path: Path, precision: Precision, *, report: Report = lambda message: None
) -> PortManifest:
    """Write a program as a Core ML package.

    Args:
        program: Lowered: at most 4 axes everywhere, one positional input per port. For int8 its graph
            holds the quantize and dequantize operators of PT2E; ports are float all the same.
        path: Package to write; an existing one is replaced when the new one is complete.
        precision: Arithmetic of the file.
        report: Told what coremltools remarked on, and how far the written file was from the program.

    Returns:
        The port manifest, the same as in the package's metadata key `mvtool.ports`.

    Raises:
        UsageError: `path` does not end in `.mlpackage`.
        ConversionError: An operator has no Core ML form, a state is not tied, or the written file does
            not compute the program.
        MissingExtraError: coremltools is not installed.
    """
    if path.suffix != EXTENSION:
        raise UsageError(f"A Core ML package is written to a path ending in {EXTENSION}, got {path.name!r}.")
    coremltools()
    with quiet():
        exported = prepared(program)
    summed = accumulators(program, exported)
    described = core_ml_ports(program, precision, summed)
    with tempfile.TemporaryDirectory(prefix="mvtool-coreml-") as scratch:
        draft = _convert(described, exported, precision, summed, Path(scratch), report)
        manifest = _finish(draft.specification, described, precision)
        write_package(draft.specification, draft.weights, path)
    with part("check"):
        report(check_one_step(path, program, manifest))
    return manifest


def _convert(
    program: StreamProgram,
    exported: ExportedProgram,
    precision: Precision,
    summed: frozenset[str],
    scratch: Path,
    report: Report,
) -> _Draft:
    ct = coremltools()
    with quiet() as log, conversion_errors(program.info.name, log), without_validation():
        model = ct.convert(
            exported,
            convert_to="mlprogram",
            inputs=[_input_type(ct, i, port, program) for i, port in enumerate(program.input_ports)],
            outputs=[
                ct.TensorType(name=_provisional("out", i), dtype=_numpy_type(port))
                for i, port in enumerate(program.output_ports)
            ],
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=_compute_precision(ct, program, precision, summed),
            pass_pipeline=_passes(ct),
            skip_model_load=True,
            package_dir=str(scratch / f"draft{EXTENSION}"),
        )
    for remark in remarks(log):
        report(f"coremltools: {remark}")
    weights = Path(model.weights_dir) if model.weights_dir else None
    return _Draft(model.get_spec(), weights if weights is not None and any(weights.iterdir()) else None)


def _finish(specification: Specification, program: StreamProgram, precision: Precision) -> PortManifest:
    """Name, check and describe the model, in place."""
    names = {_provisional("in", i): port.name for i, port in enumerate(program.input_ports)}
    names |= {_provisional("out", i): port.name for i, port in enumerate(program.output_ports)}
    name_values(specification, names)
    strip(specification)
    manifest = program.manifest(Runtime.COREML, precision)
    check_ports(specification, manifest)
    if precision in FLOAT32 and (found := float_types(specification) - {"FLOAT32"}):
        raise ConversionError(
            f"The {precision} Core ML model of {program.info.name!r} computes in {', '.join(sorted(found))}; expected FLOAT32 "
            "alone. Remove casts to half precision from the model."
        )
    if precision is Precision.INT8:
        manifest = with_grids(program, state_grids(specification, manifest)).manifest(Runtime.COREML, precision)
    describe(specification, manifest)
    return manifest


def _passes(ct: Any) -> Any:
    pipeline = ct.PassPipeline.DEFAULT
    pipeline.remove_passes(PASSES_LEFT_OUT)
    return pipeline


def _compute_precision(ct: Any, program: StreamProgram, precision: Precision, summed: frozenset[str]) -> Any:
    if precision in FLOAT32:
        return ct.precision.FLOAT32
    sums = [state for state in program.states if state.logical.name in summed]
    integers = [state for state in program.states if state.input.dtype == "int32"]
    return ct.transform.FP16ComputePrecision(
        float16_selector(
            {_provisional("in", port.position) for state in sums for port in state.inputs},
            {_provisional("out", port.position) for state in sums for port in state.outputs},
            {_provisional("in", port.position) for state in integers for port in state.inputs},
        )
    )


def _provisional(side: str, index: int) -> str:
    """A name that no value of a graph has: coremltools renames a port whose name is taken."""
    return f"mvtool_port_{side}_{index}"


def _input_type(ct: Any, index: int, port: TensorPort, program: StreamProgram) -> Any:
    name = _provisional("in", index)
    if not (isinstance(port, InputPort) and port.core_ml_image):
        return ct.TensorType(name=name, shape=port.shape, dtype=_numpy_type(port))
    scaling, preprocessing = port.quantization, program.info.preprocessing
    if scaling is None or preprocessing is None:
        raise ConversionError(f"Image port {port.name!r} has no byte scale; this is a defect of the conversion.")
    return ct.ImageType(
        name=name,
        shape=port.shape,
        scale=scaling.scale,
        bias=[-scaling.scale * scaling.zero_point] * 3,
        color_layout=getattr(ct.colorlayout, preprocessing.colour),
    )


def _numpy_type(port: TensorPort) -> Any:
    import numpy as np

    return np.dtype(port.dtype).type
