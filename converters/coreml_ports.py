"""What the ports of a Core ML artifact hold: image, multi-array of float32, float16 or int32.

Core ML at iOS 17 takes float16, float32, float64 and int32 at its ports and nothing else
(`coremltools/converters/mil/backend/mil/passes/adjust_io_to_supported_types.py`), so int8 states
travel as floats whose values lie on the int8 grid, and int64 and bool states as int32.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TypeVar

from mvtool.errors import ConversionError
from mvtool.ports import DType, InputPort, Precision, Preprocessing, Quantization, TensorPort
from mvtool.program import StateSpec, StreamProgram

PortT = TypeVar("PortT", bound=TensorPort)
FLOAT32 = frozenset({Precision.FP32, Precision.INT8_WEIGHTS})
"""Precisions whose arithmetic and states are float32."""
PORT_TYPES: Mapping[str, DType] = {
    "float32": "float32",
    "float16": "float32",
    "int8": "float32",
    "uint8": "float32",
    "int32": "int32",
    "int64": "int32",
    "bool": "int32",
}


def core_ml_ports(program: StreamProgram, precision: Precision, accumulators: AbstractSet[str]) -> StreamProgram:
    """The program with its ports described as Core ML will hold them; the graph is untouched.

    Args:
        program: Lowered program.
        precision: In fp16 and int8, states travel as float16: the values inside are no finer, and
            the bytes copied per step halve.
        accumulators: Names of states that add up over the whole stream. They stay float32, since a
            float16 sum stops moving once its increment falls below half a unit in the last place.

    Raises:
        ConversionError: A port has no axes.
    """
    for port in (*program.input_ports, *program.output_ports):
        if not port.shape:
            raise ConversionError(
                f"Port {port.name!r} of {program.info.name!r} is a scalar; Core ML ports have at least one axis. "
                "Lower the program first, or give the tensor the shape (1,)."
            )
    return program.replace(
        inputs=tuple(_input(p, program) for p in program.inputs),
        states=tuple(_state(s, precision, accumulators) for s in program.states),
        outputs=tuple(_typed(p, PORT_TYPES[p.dtype]) for p in program.outputs),
    )


def with_grids(program: StreamProgram, grids: Mapping[str, Quantization]) -> StreamProgram:
    """The program whose states named in `grids` declare the int8 grid that their values lie on."""
    return program.replace(
        states=tuple(
            s.with_ports(lambda port, s=s: port.model_copy(update={"grid": grids.get(s.logical.name)}))  # type: ignore[misc]
            for s in program.states
        )
    )


def byte_scale(preprocessing: Preprocessing | None) -> Quantization | None:
    """The map from a camera byte to the model's real value, where one scale and zero point give it.

    `real = (byte / 255 * (high - low) + low - mean) / std` has to equal `scale * (byte - zero_point)`
    for all three channels, with a whole zero point.

    Returns:
        None where it does not; the frame is then a multi-array and the app computes real values.
    """
    if preprocessing is None or len(set(preprocessing.mean)) > 1 or len(set(preprocessing.std)) > 1:
        return None
    low, high = preprocessing.range
    scale = (high - low) / 255 / preprocessing.std[0]
    zero_point = -(low - preprocessing.mean[0]) / preprocessing.std[0] / scale
    if abs(zero_point - round(zero_point)) > 1e-6:
        return None
    return Quantization(scale=scale, zero_point=round(zero_point))


def _input(port: InputPort, program: StreamProgram) -> InputPort:
    quantization = byte_scale(program.info.preprocessing)
    is_image = port.image and len(port.shape) == 4 and port.shape[:2] == (1, 3) and port.dtype in ("float32", "int8")
    if is_image and quantization is not None:
        return port.model_copy(update={"dtype": "uint8", "quantization": quantization, "core_ml_image": True})
    return _typed(port, PORT_TYPES[port.dtype])


def _state(state: StateSpec, precision: Precision, accumulators: AbstractSet[str]) -> StateSpec:
    dtype = PORT_TYPES[state.input.dtype]
    if dtype == "float32" and precision not in FLOAT32 and state.logical.name not in accumulators:
        dtype = "float16"
    return state.with_ports(lambda port: _typed(port, dtype))


def _typed(port: PortT, dtype: DType) -> PortT:
    return port.model_copy(update={"dtype": dtype, "quantization": None})
