"""Which element types the ports of each runtime take, and what stands for the others.

Core ML takes float32, float16 and int32 at its ports (see `coreml_ports`). litert-torch writes int64 ports as int32,
and LiteRT aborts the process on arithmetic in uint8 and int8 (ai-edge-litert 2.3). ExecuTorch takes the model's own
types, except half precision, which its portable kernels lack. int8 is left to quantized ports. Where a port differs
from the model's tensor, the graph casts on entry and on exit.
"""

from __future__ import annotations

from collections.abc import Mapping

from mvtool.errors import ConversionError
from mvtool.ports import DType, Runtime, TensorPort

_NARROW: Mapping[str, DType] = {"float32": "float32", "int32": "int32", "int64": "int32", "bool": "int32"}
_OWN: Mapping[str, DType] = {"float32": "float32", "int32": "int32", "int64": "int64", "bool": "bool", "uint8": "uint8"}
PORT_TYPES: Mapping[Runtime, Mapping[str, DType]] = {
    Runtime.TFLITE: _NARROW,
    Runtime.COREML: _NARROW,
    Runtime.EXECUTORCH: _OWN,
}


def port_type(port: TensorPort, target: Runtime) -> DType:
    """Element type that stands for that of a captured port.

    Raises:
        ConversionError: The runtime has none.
    """
    found = PORT_TYPES[target].get(port.dtype)
    if found is None:
        raise ConversionError(
            f"The port {port.name!r} is {port.dtype}; a port of {target.value} holds {', '.join(PORT_TYPES[target])}. "
            "Use int32 for whole numbers and float32 for others, and convert inside forward."
        )
    return found
