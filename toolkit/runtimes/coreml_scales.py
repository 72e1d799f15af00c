"""The int8 grid of a Core ML port, read from the operators of the saved program.

Core ML has no int8 ports: an int8 state is quantized where it enters and dequantized before it leaves.
This reads the parsed package, by other code than the emitter's own check of the same ties.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mvtool.errors import ManifestError
from mvtool.ports import Quantization
from mvtool.runtimes.mlprogram.dtypes import DType
from mvtool.runtimes.mlprogram.program import Constant, MLProgram, Operand, Operation, Reference

# Operators whose result holds values of their data operands, or of some of them, unchanged.
_MOVING = frozenset(
    {
        "cast",
        "concat",
        "expand_dims",
        "identity",
        "reshape",
        "slice_by_index",
        "slice_by_size",
        "split",
        "squeeze",
        "transpose",
    }
)
_DATA_OPERANDS = ("x", "values", "input")
_UNSIGNED_OFFSET = 128

Scales = tuple[Quantization, ...]


class ScaleTrace:
    """Finds quantize and dequantize operators next to the ports of a program."""

    def __init__(self, program: MLProgram) -> None:
        """Index who makes and who takes each value."""
        self._constants = program.constants
        self._makers: dict[str, Operation] = {}
        self._takers: dict[str, list[Operation]] = {}
        self._results = {feature.name for feature in program.outputs}
        for operation in program.operations:
            self._makers.update({output.name: operation for output in operation.outputs})
            for name in {operand.name for operand in _operands(operation) if isinstance(operand, Reference)}:
                self._takers.setdefault(name, []).append(operation)

    def entering(self, name: str) -> Scales:
        """Different grids that the value `name` is rounded to; none if any use of it is not rounded."""
        found = self._after(name)
        return () if found is None else _distinct(found)

    def leaving(self, name: str) -> Scales:
        """Different grids that the value `name` comes from; none if a part of it was never rounded."""
        found = self._before(name)
        return () if found is None else _distinct(found)

    def _after(self, name: str) -> list[Quantization] | None:
        found: list[Quantization] = []
        if name in self._results:
            return None
        for operation in self._takers.get(name, ()):
            if operation.kind == "quantize":
                found.append(self._grid(operation))
                continue
            if operation.kind not in _MOVING:
                return None
            for output in operation.outputs:
                further = self._after(output.name)
                if further is None:
                    return None
                found += further
        return found

    def _before(self, name: str) -> list[Quantization] | None:
        operation = self._makers.get(name)
        if operation is not None and operation.kind == "dequantize":
            return [self._grid(operation)]
        if operation is None or operation.kind not in _MOVING:
            return None
        found: list[Quantization] = []
        for key in _DATA_OPERANDS:
            for operand in operation.inputs.get(key, ()):
                further = self._before(operand.name) if isinstance(operand, Reference) else None
                if further is None:
                    return None
                found += further
        return found

    def _grid(self, operation: Operation) -> Quantization:
        zero_point = int(self._number(operation, "zero_point")) if "zero_point" in operation.inputs else 0
        # coremltools writes int8 with zero point -128 as uint8 with 0; both are the same grid.
        offset = _UNSIGNED_OFFSET if self._unsigned(operation) else 0
        return Quantization(scale=self._number(operation, "scale"), zero_point=zero_point - offset)

    def _unsigned(self, operation: Operation) -> bool:
        if operation.kind == "quantize":
            return operation.outputs[0].type.dtype is DType.UINT8
        (operand,) = operation.inputs["input"]
        if isinstance(operand, Constant):
            return operand.type.dtype is DType.UINT8
        maker = self._makers[operand.name]
        return next(o.type.dtype for o in maker.outputs if o.name == operand.name) is DType.UINT8

    def _number(self, operation: Operation, key: str) -> float:
        (operand,) = operation.inputs[key]
        constant = self._constants.get(operand.name) if isinstance(operand, Reference) else operand
        if constant is None or isinstance(constant.value, str) or np.size(constant.value) != 1:
            raise ManifestError(f"The {key} of {operation.kind} {operation.name!r} is not one constant number.")
        return float(np.asarray(constant.value).reshape(-1)[0])


def _operands(operation: Operation) -> Iterator[Operand]:
    for operands in operation.inputs.values():
        yield from operands


def _distinct(found: list[Quantization]) -> Scales:
    return tuple(dict.fromkeys(found))
