"""One step of a written `.tflite` against the program it came from, before the file is handed out.

This finds broken files: swapped ports, refused scales, lost operators. `mvtool verify` proves the numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mvtool.errors import ConversionError
from mvtool.extras import require
from mvtool.ports import AnyArray, PortManifest
from mvtool.program import StreamProgram

FP32_ERROR = 1e-4
"""Largest |difference| over the largest |reference| of a tensor."""

INT8_ERROR = 0.5
"""An int8 step differs from the float one; a swapped port or a lost operator differs by about the value itself."""

SEED = 20_240_229


def smoke_check(data: bytes, program: StreamProgram, manifest: PortManifest) -> None:
    """Execute one step from the initial state.

    Args:
        data: The artifact's bytes.
        program: What it should compute.
        manifest: Its ports.

    Raises:
        ConversionError: It does not load, is not fully delegated where XNNPACK is there, or computes something else.
    """
    inputs = _inputs(program)
    expected = dict(zip((p.name for p in program.output_ports), _reference(program, inputs), strict=True))
    found = _execute(data, [p.encode(a) for p, a in zip(manifest.input_ports, inputs, strict=True)], program.info.name)
    int8 = any(p.quantization for p in manifest.input_ports)
    for port, array in zip(manifest.output_ports, found, strict=True):
        error = _error(port.decode(array), expected[port.name])
        if not error <= (INT8_ERROR if int8 else FP32_ERROR):
            raise ConversionError(
                f"The written model {program.info.name} gives {port.name!r} with an error of {error:.1e} of its largest "
                f"value in the first step; at most {INT8_ERROR if int8 else FP32_ERROR:.0e} is expected. "
                "Please report this model."
            )


def _inputs(program: StreamProgram) -> list[AnyArray]:
    """Logical inputs: noise in [0, 1), the range of frames, then the initial states."""
    random = np.random.default_rng(SEED)
    frames = [random.random(p.logical_shape, dtype=np.float32).astype(p.dtype) for p in program.inputs]
    return [*frames, *(np.asarray(s.initial) for s in program.states)]


def _reference(program: StreamProgram, inputs: list[AnyArray]) -> list[AnyArray]:
    """Logical outputs of the program's own graph."""
    import torch

    arguments = [torch.from_numpy(p.encode(a)) for p, a in zip(program.input_ports, inputs, strict=True)]
    with torch.no_grad():
        results = program.exported.module()(*arguments)
    results = (results,) if isinstance(results, torch.Tensor) else results
    return [p.decode(r.detach().numpy()) for p, r in zip(program.output_ports, results, strict=True)]


def _execute(data: bytes, arrays: list[AnyArray], model: str) -> list[AnyArray]:
    litert = require("ai_edge_litert.interpreter", "to check the written TFLite model")
    try:
        interpreter: Any = litert.Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
        for detail, array in zip(interpreter.get_input_details(), arrays, strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
    except (RuntimeError, ValueError) as error:
        raise ConversionError(
            f"TensorFlow Lite refuses the model written for {model}: {error}. Please report this model."
        ) from error


def _error(found: AnyArray, expected: AnyArray) -> float:
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-3)
    return float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)) / scale
