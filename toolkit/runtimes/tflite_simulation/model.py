"""A `.tflite` file as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mvtool.errors import RuntimeLoadError
from mvtool.extras import require
from mvtool.ports import AnyArray

# TensorType of tflite/converter/schema/schema.fbs.
DTYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8"}
ACTIVATIONS = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6", 4: "tanh"}


@dataclass(frozen=True)
class Tensor:
    """One tensor.

    Attributes:
        name: Name in the file.
        shape: Shape in the file.
        dtype: Element type.
        value: Constant value, None for a computed one.
        scales: None, or one scale, or one per channel.
        zero_points: As many.
        axis: Axis of the channels.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    value: AnyArray | None
    scales: AnyArray | None
    zero_points: AnyArray | None
    axis: int

    @property
    def quantized(self) -> bool:
        """Whether the tensor stores real numbers as integers."""
        return self.scales is not None and self.dtype in ("int8", "uint8", "int16", "int32")

    @property
    def scale(self) -> float:
        """The one scale.

        Raises:
            RuntimeLoadError: There is none, or one per channel.
        """
        if self.scales is None or self.scales.size != 1:
            raise RuntimeLoadError(f"Tensor {self.name!r} has no single scale.")
        return float(self.scales[0])

    @property
    def zero_point(self) -> int:
        """The zero point that belongs to `scale`."""
        return 0 if self.zero_points is None else int(self.zero_points[0])

    @property
    def real(self) -> AnyArray:
        """The constant's real value, float32; integers without a scale stay integers.

        Raises:
            RuntimeLoadError: The tensor is no constant.
        """
        if self.value is None:
            raise RuntimeLoadError(f"Tensor {self.name!r} is computed, but an operator needs it as a constant.")
        if self.scales is None:
            return self.value
        shape = [1] * self.value.ndim
        if self.scales.size > 1:
            shape[self.axis] = -1
        zeros = np.zeros_like(self.scales) if self.zero_points is None else self.zero_points
        offset = self.value.astype(np.float64) - zeros.reshape(shape)
        return (offset * self.scales.astype(np.float64).reshape(shape)).astype(np.float32)


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        kind: Name in the schema, for example `CONV_2D`.
        inputs: Tensor indices, -1 for one that is left out.
        outputs: Tensor indices.
        options: Fields of its table of options.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """One subgraph.

    Attributes:
        tensors: All tensors.
        operators: In execution order.
        inputs: Tensor indices in position order.
        outputs: Tensor indices in position order.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_model(path: Path) -> Model:
    """Parse a file.

    Raises:
        RuntimeLoadError: It is no `.tflite`, or holds more than one subgraph.
        MissingExtraError: ai-edge-litert, which brings the schema, is not installed.
    """
    schema = require("ai_edge_litert.schema_py_generated", "to simulate TFLite models")
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise RuntimeLoadError(f"{path} is not a TFLite file: got {data[4:8]!r}, expected b'TFL3'.")
    root = schema.Model.GetRootAs(data, 0)
    if root.SubgraphsLength() != 1:
        raise RuntimeLoadError(f"{path} has {root.SubgraphsLength()} subgraphs, expected 1.")
    graph = root.Subgraphs(0)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    tensors = [_tensor(root, graph.Tensors(i), data) for i in range(graph.TensorsLength())]
    listed = [_operator(schema, root, graph.Operators(i), names) for i in range(graph.OperatorsLength())]
    operators = [operator for operator in listed if not _fold(operator, tensors)]
    return Model(tuple(tensors), tuple(operators), _indices(graph.InputsAsNumpy()), _indices(graph.OutputsAsNumpy()))


def _fold(operator: Operator, tensors: list[Tensor]) -> bool:
    """Compute the float form of stored int8 weights, as runtimes do when they load a model; False for other operators."""
    if operator.kind != "DEQUANTIZE" or tensors[operator.inputs[0]].value is None:
        return False
    result = operator.outputs[0]
    tensors[result] = replace(tensors[result], value=tensors[operator.inputs[0]].real)
    return True


def _indices(array: Any) -> tuple[int, ...]:
    return () if isinstance(array, int) else tuple(int(i) for i in array)


def _tensor(root: Any, tensor: Any, data: bytes) -> Tensor:
    shape = tuple(int(n) for n in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()
    dtype = DTYPES.get(tensor.Type(), f"type {tensor.Type()}")
    # The shape of a scalar, operand of its RESHAPE, is a constant without elements and so without bytes.
    raw = b"" if 0 in shape else _bytes(root.Buffers(tensor.Buffer()), data)
    value = None if raw is None else np.frombuffer(raw, dtype=dtype).reshape(shape)
    scales = zeros = None
    axis = 0
    parameters = tensor.Quantization()
    if parameters is not None and parameters.ScaleLength():
        scales, axis = parameters.ScaleAsNumpy().copy(), parameters.QuantizedDimension()
        zeros = parameters.ZeroPointAsNumpy().copy() if parameters.ZeroPointLength() else None
    return Tensor(tensor.Name().decode(), shape, dtype, value, scales, zeros, axis)


def _bytes(buffer: Any, data: bytes) -> bytes | None:
    """Constants lie in the FlatBuffer, or behind it at an offset (quantizers of Google write them so)."""
    if buffer.Size():
        return data[buffer.Offset() : buffer.Offset() + buffer.Size()]
    return bytes(buffer.DataAsNumpy().tobytes()) if buffer.DataLength() else None


def _operator(schema: Any, root: Any, operator: Any, names: dict[int, str]) -> Operator:
    code = root.OperatorCodes(operator.OpcodeIndex())
    kind = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
    custom = code.CustomCode()
    if kind == "CUSTOM" and custom:
        kind = f"CUSTOM {custom.decode()}"
    described = schema.OperatorT.InitFromObj(operator).builtinOptions
    options = {} if described is None else dict(vars(described))
    if "fusedActivationFunction" in options:
        options["fusedActivationFunction"] = ACTIVATIONS.get(options["fusedActivationFunction"], "unknown")
    return Operator(kind, _indices(operator.InputsAsNumpy()), _indices(operator.OutputsAsNumpy()), options)
