"""One step of the written package against the program it was made from.

A first look, on the file as it lies on disk, so that a wrong pass of coremltools is found where it
happens; the full proof over hundreds of frames is `mvtool verify`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mvtool.converters.coreml_ports import FLOAT32
from mvtool.errors import ConversionError, RuntimeLoadError
from mvtool.ports import AnyArray, InputPort, PortManifest, Precision, TensorPort, contiguous
from mvtool.program import StreamProgram
from mvtool.slots import split

# Largest mean |difference| of a tensor over its largest |value|. fp32: rounding of sums in another order. fp16:
# 2**-11 per operator, some tens of operators deep. int8-weights: fp32 on the same rounded weights. int8: the program rounds to float16 as the package does; what is left
# is a step of 1/255 here and there, where sums in another order fall on the other side of a tie.
BOUNDS = {Precision.FP32: 1e-5, Precision.FP16: 2e-2, Precision.INT8: 1e-2, Precision.INT8_WEIGHTS: 1e-5}
SEED = 20
HALF_OF_INT8 = 127
SMALLEST_MAGNITUDE = 1e-3
"""Tensors smaller than this are compared absolutely."""


def check_one_step(path: Path, program: StreamProgram, manifest: PortManifest) -> str:
    """Execute one step on noise.

    Args:
        path: Written package.
        program: What it was made from; its ports are the graph's own.
        manifest: Ports of the package.

    Returns:
        A sentence with the largest difference, or with the reason why the step could not be executed
        here: an operator that the reference evaluator does not know says nothing against the file.

    Raises:
        ConversionError: The file computes something else than the program.
    """
    from mvtool.runtimes.mlprogram.evaluator import Evaluator
    from mvtool.runtimes.mlprogram.loader import load_program

    given = _inputs(program, manifest)
    expected = _expected(program, manifest, given)
    try:
        got = Evaluator(load_program(path)).run(given)
    except RuntimeLoadError as error:
        return f"one step not executed: {error}"
    worst, where = max((_difference(got[name], value), name) for name, value in expected.items())
    bound = BOUNDS[manifest.precision]
    if not worst <= bound:
        raise ConversionError(
            f"{path.name} does not compute {manifest.model!r}: after one step, output {where!r} is off by {worst:.2g} of its "
            f"largest value, expected at most {bound:g} in {manifest.precision.value}. "
            + ("A value may exceed the float16 range of 65504. " if manifest.precision not in FLOAT32 else "")
            + "Convert to fp32 to find out, and report the model if that fails too."
        )
    return f"one step executed by the reference evaluator: largest mean difference {worst:.2g} at {where!r}"


def _inputs(program: StreamProgram, manifest: PortManifest) -> dict[str, AnyArray]:
    """Stored arrays for every input port: noise for the inputs, the reset value plus noise for the states.

    From reset alone a weight that multiplies a past frame would never be seen.
    """
    generator = np.random.default_rng(SEED)
    stored: dict[str, AnyArray] = {port.name: _noise(port, generator) for port in manifest.inputs}
    for binding in manifest.states:
        port, value = binding.input, binding.reset.array(binding.input)
        if port.dtype != "int32":
            reach = port.grid.scale * HALF_OF_INT8 if port.grid is not None else 1.0
            value = (value.astype(np.float32) + reach * generator.random(port.shape, np.float32)).astype(port.dtype)
        stored.update(zip((p.name for p in binding.inputs), split(value, binding.inputs), strict=True))
    return stored


def _noise(port: InputPort, generator: np.random.Generator) -> AnyArray:
    if port.dtype == "uint8":
        return generator.integers(0, 256, port.shape, np.uint8)
    values = generator.random(port.logical_shape, np.float32)
    return port.encode(values if port.image else 2 * values - 1)


def _expected(program: StreamProgram, manifest: PortManifest, given: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """Outputs of the program for the same step, as real numbers, by port name."""
    import torch

    from mvtool.verification.half import half_precision

    module = program.exported.module()
    if manifest.precision is Precision.INT8:
        half_precision(program)(module)
    values = [
        _real(port, given[port.name], graph)
        for port, graph in zip(manifest.input_ports, program.input_ports, strict=True)
    ]
    with torch.no_grad():
        results = module(*values)
    return {
        port.name: result.to(torch.float32).numpy() for port, result in zip(manifest.output_ports, results, strict=True)
    }


def _real(port: TensorPort, stored: AnyArray, graph: TensorPort) -> object:
    """The tensor that the program's graph takes where the package takes `stored`."""
    import torch

    real = stored
    if port.quantization is not None:
        offset = (stored.astype(np.int32) - port.quantization.zero_point).astype(np.float32)
        real = offset * np.float32(port.quantization.scale)
    dtype = "float32" if graph.quantization is not None else graph.dtype
    return torch.from_numpy(contiguous(real)).to(getattr(torch, dtype))


def _difference(got: AnyArray, expected: AnyArray) -> float:
    difference = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    return float(difference.mean() / max(float(np.abs(expected).max()), SMALLEST_MAGNITUDE))
