"""Decoding types and values of the MIL protobuf.

Where a value of each type is stored is a fact of coremltools 9.0 (`backend/mil/helper.py`): fp16, uint32 and all
integers of 8 bits or less as raw bytes, int16 and uint16 as 32-bit integers, everything else in the
field of its own type; constants of ten elements or more lie in the weight file.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvtool.errors import RuntimeLoadError
from mvtool.runtimes.mlprogram.blob import WeightFile
from mvtool.runtimes.mlprogram.dtypes import DTYPE_OF_PROTO, DType, TensorType, bit_width, numpy_dtype
from mvtool.runtimes.mlprogram.packing import unpack_bits
from mvtool.runtimes.mlprogram.program import Constant

# Far above any tensor of a model for phones; keeps a damaged file from exhausting memory.
MAX_ELEMENTS = 1 << 28

_MODEL_PATH = "@model_path"

_FIELD_OF_DTYPE = {
    DType.BOOL: "bools",
    DType.STRING: "strings",
    DType.FP32: "floats",
    DType.FP64: "doubles",
    DType.INT16: "ints",
    DType.UINT16: "ints",
    DType.INT32: "ints",
    DType.INT64: "longInts",
}


def tensor_type(proto: Any, where: str) -> TensorType:
    """Read a `ValueType` that must be a tensor of static shape.

    Args:
        proto: `MIL_pb2.ValueType`.
        where: Owner of the type, for messages.

    Raises:
        RuntimeLoadError: Not a tensor, an unknown element type, a dynamic or absurd shape.
    """
    kind = proto.WhichOneof("type")
    if kind != "tensorType":
        remedy = " Make states explicit inputs and outputs." if kind == "stateType" else ""
        raise RuntimeLoadError(f"{where} has type {kind!r}; the reference evaluator knows tensors only.{remedy}")
    tensor = proto.tensorType
    dtype = DTYPE_OF_PROTO.get(tensor.dataType)
    if dtype is None:
        raise RuntimeLoadError(f"{where} has element type number {tensor.dataType}, which is not supported.")
    if tensor.rank != len(tensor.dimensions) or tensor.attributes:
        raise RuntimeLoadError(f"{where} has a malformed tensor type (rank {tensor.rank}).")
    shape = []
    for dimension in tensor.dimensions:
        if dimension.WhichOneof("dimension") != "constant":
            raise RuntimeLoadError(f"{where} has a dynamic shape. Convert the model with fixed input shapes.")
        shape.append(int(dimension.constant.size))
    result = TensorType(dtype, tuple(shape))
    if max((*shape, result.size)) > MAX_ELEMENTS:
        raise RuntimeLoadError(f"{where} has shape {shape}, which is larger than {MAX_ELEMENTS} elements.")
    return result


class ValueReader:
    """Decodes constants; opens weight files as they are named.

    Args:
        model_folder: Folder of the model specification, which `@model_path` stands for.
    """

    def __init__(self, model_folder: Path) -> None:
        self._folder = model_folder
        self._files: dict[str, WeightFile] = {}

    def read(self, proto: Any, where: str) -> Constant:
        """Decode a `Value`.

        Args:
            proto: `MIL_pb2.Value`.
            where: Owner of the value, for messages.

        Raises:
            ManifestError: The weight file contradicts the program.
            RuntimeLoadError: The value is malformed or of an unsupported kind.
        """
        declared = tensor_type(proto.type, where)
        kind = proto.WhichOneof("value")
        if kind == "blobFileValue":
            if declared.dtype in (DType.STRING, DType.BOOL):
                raise RuntimeLoadError(f"{where}: {declared} cannot be stored in a weight file.")
            file = self._file(proto.blobFileValue.fileName, where)
            return Constant(declared, file.read(proto.blobFileValue.offset, declared))
        if kind != "immediateValue" or proto.immediateValue.WhichOneof("value") != "tensor":
            raise RuntimeLoadError(f"{where} is not a tensor constant.")
        return Constant(declared, _immediate(proto.immediateValue.tensor, declared, where))

    def _file(self, name: str, where: str) -> WeightFile:
        if name not in self._files:
            parts = PurePosixPath(name).parts
            if len(parts) < 2 or parts[0] != _MODEL_PATH or ".." in parts or "\0" in name:
                raise RuntimeLoadError(f"{where} names the weight file {name!r}, expected a path below {_MODEL_PATH}.")
            self._files[name] = WeightFile(self._folder.joinpath(*parts[1:]))
        return self._files[name]


def _immediate(tensor: Any, declared: TensorType, where: str) -> NDArray[Any] | str:
    stored = tensor.WhichOneof("value")
    expected = _FIELD_OF_DTYPE.get(declared.dtype, "bytes")
    if stored != expected:
        raise RuntimeLoadError(f"{where}: {declared} is stored as {stored}, expected {expected}.")
    values = getattr(tensor, stored).values
    if declared.dtype is DType.STRING:
        if declared.shape or len(values) != 1:
            raise RuntimeLoadError(f"{where}: {declared} is not one string.")
        return str(values[0])
    if stored == "bytes":
        return _from_bytes(values, declared, where)
    if len(values) != declared.size:
        raise RuntimeLoadError(f"{where}: {declared} is stored with {len(values)} elements.")
    return _from_list(values, declared, where)


def _from_list(values: Any, declared: TensorType, where: str) -> NDArray[Any]:
    try:
        return np.array(list(values), dtype=numpy_dtype(declared.dtype)).reshape(declared.shape)
    except OverflowError as error:
        raise RuntimeLoadError(f"{where}: a stored number does not fit {declared}.") from error


def _from_bytes(data: bytes, declared: TensorType, where: str) -> NDArray[Any]:
    bits = bit_width(declared.dtype)
    if len(data) != (declared.size * bits + 7) // 8:
        raise RuntimeLoadError(f"{where}: {declared} is stored in {len(data)} bytes.")
    raw = np.frombuffer(data, np.uint8)
    if bits < 8:
        return unpack_bits(raw, bits, declared.size, signed=declared.dtype is DType.INT4).reshape(declared.shape)
    return raw.view(numpy_dtype(declared.dtype)).reshape(declared.shape)
