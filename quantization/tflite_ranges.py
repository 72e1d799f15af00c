"""True ranges of every tensor of a float `.tflite` graph while the stream rolls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mvtool.errors import ConversionError
from mvtool.extras import require
from mvtool.ports import AnyArray
from mvtool.program import StreamProgram
from mvtool.quantization.calibration import CalibrationSet, Range


def observe(data: bytes, program: StreamProgram, calibration: CalibrationSet) -> dict[int, Range]:
    """Minimum and maximum of every computed or fed float tensor, by tensor index.

    The states roll in the float graph itself: each clip starts from the initial state, and each step's
    outputs are the next step's states. TFLite's own kernels compute, not a delegate, so that every
    intermediate tensor exists.

    Args:
        data: The float model's bytes; its ports have the program's order.
        program: Ports and initial states.
        calibration: Clips of logical inputs.

    Raises:
        ConversionError: A tensor is not finite, or a clip does not fit the model.
    """
    interpreter = _interpreter(data)
    fed, given = ([d["index"] for d in details()] for details in _sides(interpreter))
    watched = [d["index"] for d in interpreter.get_tensor_details() if d["dtype"] is np.float32]
    watched = _variable(interpreter, watched, fed)
    found: dict[int, Range] = {}
    for clip in calibration.clips:
        states: list[AnyArray] = program.initial_ports()
        for step in clip:
            inputs = [port.encode(array) for port, array in zip(program.inputs, step, strict=True)]
            for index, array in zip(fed, (*inputs, *states), strict=True):
                interpreter.set_tensor(index, array)
            interpreter.invoke()
            _widen(interpreter, watched, found)
            newest = [interpreter.get_tensor(index) for index in given[len(program.outputs) :]]
            states = program.following(states, newest)
    return found


def _interpreter(data: bytes) -> Any:
    litert = require("ai_edge_litert.interpreter", "to calibrate TFLite models")
    interpreter = litert.Interpreter(
        model_content=data,
        num_threads=1,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    return interpreter


def _sides(interpreter: Any) -> tuple[Any, Any]:
    return interpreter.get_input_details, interpreter.get_output_details


def _variable(interpreter: Any, candidates: list[int], fed: list[int]) -> list[int]:
    """Tensors that an operator writes or the caller feeds; constants and scratch space are left out."""
    written = {int(t) for operator in interpreter._get_ops_details() for t in operator["outputs"]}
    return [index for index in candidates if index in written or index in fed]


def _widen(interpreter: Any, watched: list[int], found: dict[int, Range]) -> None:
    for index in watched:
        array = interpreter.get_tensor(index)
        seen = Range(float(array.min()), float(array.max()))
        if not (math.isfinite(seen.low) and math.isfinite(seen.high)):
            name = interpreter._get_tensor_details(index, 0)["name"]
            raise ConversionError(
                f"Tensor {name!r} is not finite during calibration (range {seen.low} .. {seen.high}). "
                "Check the weights, and that the calibration frames are preprocessed as in training."
            )
        found[index] = found[index].union(seen) if index in found else seen
