"""A `.tflite` model as an editable graph.

Thin layer over the object form of the schema (`ai_edge_litert.schema_py_generated`), which
`flatbuffer_utils` reads and writes: names instead of operator codes, NumPy arrays instead of buffers, and
the few edits that emitting and quantizing need. One subgraph; litert-torch writes no more for a step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mvtool.errors import ConversionError
from mvtool.extras import require
from mvtool.ports import AnyArray, Quantization

# TensorType of the schema, as far as mvtool writes it.
DTYPES: dict[int, str] = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    9: "int8",
    10: "float64",
}
CODES = {name: code for code, name in DTYPES.items()}
PURPOSE = "to write TFLite models"


def schema() -> Any:
    """The generated schema module."""
    return require("ai_edge_litert.schema_py_generated", PURPOSE)


class Graph:
    """One subgraph of a model that is being edited.

    Tensors are named by their index, operators by the schema's objects.
    """

    def __init__(self, model: Any) -> None:
        """Edit a model in object form.

        Raises:
            ConversionError: The model has more than one subgraph.
        """
        if len(model.subgraphs) != 1:
            raise ConversionError(
                f"The converted model has {len(model.subgraphs)} subgraphs, expected 1; control flow inside a "
                "step cannot be converted. Remove loops and conditions from the module."
            )
        self.model: Any = model
        self.body: Any = model.subgraphs[0]
        self._kinds = {code: name for name, code in vars(schema().BuiltinOperator).items() if isinstance(code, int)}

    @classmethod
    def parse(cls, data: bytes) -> Graph:
        """Parse a `.tflite` file's bytes.

        Raises:
            ConversionError: The model has more than one subgraph.
        """
        # Plain unpacking loses buffers that lie behind the FlatBuffer; these tools resolve them.
        tools = require("ai_edge_litert.tools.flatbuffer_utils", PURPOSE)
        return cls(tools.read_model_from_bytearray(bytes(data)))

    @classmethod
    def empty(cls) -> Graph:
        """A model without operators."""
        generated = schema()
        model = generated.ModelT()
        # 3 is the one version of the file format (schema.fbs).
        model.version, model.description = 3, b"mvtool"
        body = generated.SubGraphT()
        body.name, body.tensors, body.operators, body.inputs, body.outputs = b"main", [], [], [], []
        model.subgraphs, model.operatorCodes, model.buffers = [body], [], [generated.BufferT()]
        model.metadata, model.signatureDefs = [], []
        return cls(model)

    @property
    def operators(self) -> list[Any]:
        """Operators in execution order."""
        return list(self.body.operators)

    @property
    def inputs(self) -> list[int]:
        """Tensors of the graph's inputs, in position order."""
        return [int(i) for i in self.body.inputs]

    @property
    def outputs(self) -> list[int]:
        """Tensors of the graph's outputs, in position order."""
        return [int(i) for i in self.body.outputs]

    def kind(self, operator: Any) -> str:
        """Name of an operator in the schema, for example `CONV_2D`."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        kind: str = self._kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        return kind

    def name(self, tensor: int) -> str:
        """Name of a tensor."""
        raw = self.body.tensors[tensor].name
        return raw.decode() if isinstance(raw, bytes) else str(raw)

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Shape of a tensor."""
        raw = self.body.tensors[tensor].shape
        return () if raw is None else tuple(int(n) for n in raw)

    def dtype(self, tensor: int) -> str:
        """Element type of a tensor."""
        return DTYPES[self.body.tensors[tensor].type]

    def constant(self, tensor: int) -> AnyArray | None:
        """Value of a constant tensor, None for one that is computed or fed."""
        if tensor < 0:
            return None
        data = self.model.buffers[self.body.tensors[tensor].buffer].data
        if data is None or len(data) == 0:
            return None
        return np.frombuffer(bytes(data), dtype=self.dtype(tensor)).reshape(self.shape(tensor))

    def quantization(self, tensor: int) -> Quantization | None:
        """Scale and zero point of a tensor that has one of each."""
        parameters = self.body.tensors[tensor].quantization
        if parameters is None or parameters.scale is None or len(parameters.scale) != 1:
            return None
        return Quantization(scale=float(parameters.scale[0]), zero_point=int(parameters.zeroPoint[0]))

    def scales(self, tensor: int) -> tuple[float, ...]:
        """All scales of a tensor: none, one, or one per channel."""
        parameters = self.body.tensors[tensor].quantization
        return () if parameters is None or parameters.scale is None else tuple(float(s) for s in parameters.scale)

    def readers(self) -> dict[int, list[Any]]:
        """Operators that read each tensor."""
        found: dict[int, list[Any]] = defaultdict(list)
        for operator in self.body.operators:
            for tensor in operator.inputs:
                found[int(tensor)].append(operator)
        return found

    def writers(self) -> dict[int, Any]:
        """The operator that writes each computed tensor."""
        return {int(t): operator for operator in self.body.operators for t in operator.outputs}

    def add_tensor(self, name: str, shape: Sequence[int], dtype: str, quantization: Quantization | None = None) -> int:
        """Append a tensor that an operator will write."""
        tensor = schema().TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), CODES[dtype], 0
        self.body.tensors.append(tensor)
        index = len(self.body.tensors) - 1
        if quantization is not None:
            self.set_quantization(index, [quantization.scale], [quantization.zero_point])
        return index

    def add_constant(self, name: str, value: AnyArray) -> int:
        """Append a constant tensor."""
        index = self.add_tensor(name, value.shape, str(value.dtype))
        self.set_constant(index, value)
        return index

    def set_constant(self, tensor: int, value: AnyArray) -> None:
        """Give a tensor a constant value, with its shape and type."""
        buffer = schema().BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), dtype=np.uint8)
        self.model.buffers.append(buffer)
        target = self.body.tensors[tensor]
        target.buffer, target.type, target.shape = len(self.model.buffers) - 1, CODES[str(value.dtype)], [*value.shape]

    def set_quantization(
        self, tensor: int, scales: Sequence[float], zero_points: Sequence[int], axis: int = 0, dtype: str | None = None
    ) -> None:
        """Give a tensor quantization parameters, and a type where one is named."""
        parameters = schema().QuantizationParametersT()
        parameters.scale = np.asarray(scales, dtype=np.float32)
        parameters.zeroPoint = np.asarray(zero_points, dtype=np.int64)
        parameters.quantizedDimension = axis
        self.body.tensors[tensor].quantization = parameters
        if dtype is not None:
            self.body.tensors[tensor].type = CODES[dtype]

    def code(self, kind: str, version: int = 1) -> int:
        """Index of an operator code, added where it is missing."""
        wanted = getattr(schema().BuiltinOperator, kind)
        for index, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == wanted:
                code.version = max(code.version, version)
                return index
        code = schema().OperatorCodeT()
        # Codes above 127 do not fit the field that old readers look at (schema.fbs, OperatorCode).
        code.builtinCode, code.deprecatedBuiltinCode, code.version = wanted, min(wanted, 127), version
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def new_operator(
        self, kind: str, inputs: Sequence[int], outputs: Sequence[int], options: str = "", version: int = 1
    ) -> Any:
        """An operator that is not placed yet; `options` names its table of options, for example `AddOptions`."""
        generated = schema()
        operator = generated.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = self.code(kind, version), [*inputs], [*outputs]
        if options:
            operator.builtinOptionsType = getattr(generated.BuiltinOptions, options)
            operator.builtinOptions = getattr(generated, f"{options}T")()
        return operator

    def replace_operators(self, operators: Iterable[Any]) -> None:
        """Set the operators, in execution order."""
        self.body.operators = list(operators)

    def set_ports(self, inputs: Sequence[tuple[str, int]], outputs: Sequence[tuple[str, int]]) -> None:
        """Fix positions and names of the ports: in the graph, in its one signature and on the tensors.

        Args:
            inputs: Name and tensor, in position order.
            outputs: Name and tensor, in position order.
        """
        generated = schema()
        self.body.inputs, self.body.outputs = [t for _, t in inputs], [t for _, t in outputs]
        signature = generated.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs = [_entry(generated, name, tensor) for name, tensor in inputs]
        signature.outputs = [_entry(generated, name, tensor) for name, tensor in outputs]
        self.model.signatureDefs = [signature]
        for name, tensor in (*inputs, *outputs):
            self.body.tensors[tensor].name = name.encode()

    def set_metadata(self, name: str, text: str) -> None:
        """Embed UTF-8 text as the metadata entry `name`."""
        generated = schema()
        buffer = generated.BufferT()
        buffer.data = np.frombuffer(text.encode(), dtype=np.uint8)
        self.model.buffers.append(buffer)
        entry = generated.MetadataT()
        entry.name, entry.buffer = name.encode(), len(self.model.buffers) - 1
        kept = [m for m in self.model.metadata or [] if m.name not in (name, name.encode())]
        self.model.metadata = [*kept, entry]

    def serialise(self) -> bytes:
        """The bytes of a `.tflite` file, without tensors and buffers that nothing uses."""
        tools = require("ai_edge_litert.tools.flatbuffer_utils", PURPOSE)
        self._drop_unused_tensors()
        self._drop_unused_buffers()
        return bytes(tools.convert_object_to_bytearray(self.model))

    def _drop_unused_tensors(self) -> None:
        used = {*self.inputs, *self.outputs}
        for operator in self.body.operators:
            used.update(int(t) for t in (*operator.inputs, *operator.outputs) if t >= 0)
        order = sorted(used)
        moved = {old: new for new, old in enumerate(order)}
        moved[-1] = -1
        self.body.tensors = [self.body.tensors[old] for old in order]
        for operator in self.body.operators:
            operator.inputs = [moved[int(t)] for t in operator.inputs]
            operator.outputs = [moved[int(t)] for t in operator.outputs]
        self.body.inputs, self.body.outputs = [moved[t] for t in self.inputs], [moved[t] for t in self.outputs]
        for signature in self.model.signatureDefs or []:
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = moved[int(entry.tensorIndex)]

    def _drop_unused_buffers(self) -> None:
        """Buffer 0 stays: by the format's convention it is empty and stands for "no constant"."""
        holders = [*self.body.tensors, *(self.model.metadata or [])]
        order = [0, *sorted({int(h.buffer) for h in holders} - {0})]
        moved = {old: new for new, old in enumerate(order)}
        self.model.buffers = [self.model.buffers[old] for old in order]
        for holder in holders:
            holder.buffer = moved[int(holder.buffer)]


def _entry(generated: Any, name: str, tensor: int) -> Any:
    entry = generated.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), tensor
    return entry
