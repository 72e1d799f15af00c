"""One step of a written `.tflite` against the program it came from, before the file is handed out.

This finds broken files: swapped ports, refused scales, lost operators. `mvtool verify` proves the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mvtool.errors import ConversionError
from mvtool.extras import require
from mvtool.ports import AnyArray, PortManifest, Precision
from mvtool.program import StreamProgram

FP32_ERROR = 1e-4
"""Largest |difference| over the largest |reference| of a tensor."""

INT8_ERROR = 1.0
"""Norm of the difference over the norm of the reference. Untrained weights lose much in int8, but a swapped port
or a lost operator gives a difference as large as the value itself."""

WEIGHTS_ERROR = 0.05
"""The same for float arithmetic on int8 weights: the converter may make a dense layer of a product with a constant, whose
weights the program did not round."""

SEED = 20_240_229


def smoke_check(
    data: bytes, program: StreamProgram, manifest: PortManifest, inputs: Sequence[AnyArray] | None = None
) -> None:
    """Execute one step from the initial state.

    Args:
        data: The artifact's bytes.
        program: What it should compute.
        manifest: Its ports.
        inputs: Logical model inputs; noise in [0, 1), the range of frames, where none are given.

    Raises:
        ConversionError: It does not load, or computes something else.
    """
    fed = [*(inputs or _noise(program)), *_initial(program)]
    expected = dict(zip((p.name for p in program.output_ports), _reference(program, fed), strict=True))
    found = _execute(data, [p.encode(a) for p, a in zip(manifest.input_ports, fed, strict=True)], program.info.name)
    measure, limit = LIMITS[manifest.precision]
    for port, array in zip(manifest.output_ports, found, strict=True):
        error = measure(port.decode(array), expected[port.name])
        if not error <= limit:
            raise ConversionError(
                f"The written model {program.info.name} gives {port.name!r} with a relative error of {error:.1e} in "
                f"the first step; at most {limit:.0e} is expected. Please report this model."
            )


def _noise(program: StreamProgram) -> list[AnyArray]:
    random = np.random.default_rng(SEED)
    return [random.random(p.logical_shape, dtype=np.float32).astype(p.dtype) for p in program.inputs]


def _initial(program: StreamProgram) -> list[AnyArray]:
    """Logical values of the state ports before the first step."""
    ports = (port for state in program.states for port in state.inputs)
    return [port.decode(array) for port, array in zip(ports, program.initial_ports(), strict=True)]


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


def _largest_error(found: AnyArray, expected: AnyArray) -> float:
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-3)
    return float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)) / scale


def _norm_error(found: AnyArray, expected: AnyArray) -> float:
    # A thousandth per element is the floor, as for the largest error.
    floor = 1e-3 * float(np.sqrt(max(expected.size, 1)))
    difference = found.astype(np.float64) - expected.astype(np.float64)
    return float(np.linalg.norm(difference)) / max(float(np.linalg.norm(expected.astype(np.float64))), floor)


LIMITS: dict[Precision, tuple[Callable[[AnyArray, AnyArray], float], float]] = {
    Precision.FP32: (_largest_error, FP32_ERROR),
    Precision.INT8: (_norm_error, INT8_ERROR),
    Precision.INT8_DYNAMIC: (_norm_error, INT8_ERROR),
    Precision.INT8_WEIGHTS: (_norm_error, WEIGHTS_ERROR),
}
"""How a tensor is compared, and the largest difference that is allowed."""
