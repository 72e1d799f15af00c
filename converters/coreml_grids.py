"""The int8 grid on which a state travels, read from the written program itself.

Core ML has no int8 ports: inside, an int8 state is quantized where it enters and dequantized before it
leaves. Both must use one scale and zero point, or the state drifts by a rounding at every frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mvtool.converters.coreml_spec import main_block
from mvtool.converters.coreml_tools import Specification
from mvtool.errors import ConversionError
from mvtool.ports import PortManifest, Quantization

# Operators that hand every value on, or a choice of them, unchanged.
KEEPING = {"cast", "reshape", "transpose", "slice_by_index", "slice_by_size", "squeeze", "expand_dims", "concat"}
KEEPING |= {"split", "identity", "maximum"}


def state_grids(specification: Specification, manifest: PortManifest) -> dict[str, Quantization]:
    """State name to the grid of its values, for the states that are int8 inside.

    Raises:
        ConversionError: A state enters with one scale and leaves with another.
    """
    program = _Program(main_block(specification).operations)
    grids: dict[str, Quantization] = {}
    for binding in manifest.states:
        # A slot that nobody reads but the next step is only moved: it says nothing.
        taken = [program.grids_after(port.name) for port in binding.inputs if program.is_read(port.name)]
        given = [program.grids_before(port.name) for port in binding.outputs]
        if not taken or not all(taken) or None in given:
            continue  # float on one side at least: no grid that both sides could share
        entering, leaving = set[Grid]().union(*taken), set[Grid]().union(*(g for g in given if g is not None))
        if len(entering | leaving) > 1:
            raise ConversionError(
                f"State {binding.state!r} of {manifest.model!r} enters with {_listed(entering)} and leaves with "
                f"{_listed(leaving)}; expected one scale and zero point on both sides of the loop. Tie the "
                "observers of both ports when quantizing."
            )
        scale, zero_point = next(iter(leaving))
        grids[binding.state] = Quantization(scale=scale, zero_point=zero_point)
    return grids


Grid = tuple[float, int]


def _listed(grids: Iterable[Grid]) -> str:
    return " and ".join(f"scale {scale:.9g}, zero point {zero_point}" for scale, zero_point in sorted(grids))


class _Program:
    """Who makes and who takes each value."""

    def __init__(self, operations: Iterable[Any]) -> None:
        self._makers: dict[str, Any] = {}
        self._takers: dict[str, list[Any]] = {}
        for operation in operations:
            for output in operation.outputs:
                self._makers[output.name] = operation
            for name in _names(operation):
                self._takers.setdefault(name, []).append(operation)

    def is_read(self, name: str) -> bool:
        """Whether any operator takes the value."""
        return name in self._takers

    def grids_after(self, name: str) -> set[Grid]:
        """Grids that the value is rounded to; empty where an operator takes it unrounded."""
        grids: set[Grid] = set()
        for operation in self._takers.get(name, []):
            if operation.type == "quantize":
                grids.add(self._grid(operation))
            elif operation.type in KEEPING:
                found = self.grids_after(operation.outputs[0].name)
                if not found and self._takers.get(operation.outputs[0].name):
                    return set()
                grids |= found
            else:
                return set()
        return grids

    def grids_before(self, name: str) -> set[Grid] | None:
        """Grids that the value comes from; None where a part of it was never rounded."""
        operation = self._makers.get(name)
        if operation is None:
            return None
        if operation.type == "dequantize":
            return {self._grid(operation)}
        if operation.type not in KEEPING:
            return None
        grids: set[Grid] = set()
        for source in (b.name for key in ("x", "y", "values") for b in self._bindings(operation, key)):
            found = self.grids_before(source)
            if found is None:
                return None
            grids |= found
        return grids

    def _bindings(self, operation: Any, key: str) -> list[Any]:
        return list(operation.inputs[key].arguments) if key in operation.inputs else []

    def _grid(self, operation: Any) -> Grid:
        scale = self._number(operation, "scale")
        zero_point = int(self._number(operation, "zero_point")) if "zero_point" in operation.inputs else 0
        # coremltools writes int8 with zero point -128 as uint8 with 0; both are the same grid.
        return scale, zero_point - 128 if self._is_unsigned(operation) else zero_point

    def _is_unsigned(self, operation: Any) -> bool:
        if operation.type == "quantize":
            value = operation.outputs[0].type.tensorType
        else:
            value = self._type_of(self._bindings(operation, "input")[0].name)
        return _type_name(value) == "UINT8"

    def _type_of(self, name: str) -> Any:
        return next(o.type.tensorType for o in self._makers[name].outputs if o.name == name)

    def _number(self, operation: Any, key: str) -> float:
        """A scalar operand, from the constant that makes it or from the binding itself."""
        binding = self._bindings(operation, key)[0]
        value = binding.value
        if binding.WhichOneof("binding") == "name":
            value = self._makers[binding.name].attributes["val"]
        return _scalar(value)


def _names(operation: Any) -> Iterable[str]:
    for argument in operation.inputs.values():
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "name":
                yield binding.name


def _type_name(tensor: Any) -> str:
    name: str = tensor.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number[tensor.dataType].name
    return name


def _scalar(value: Any) -> float:
    import numpy as np

    tensor = value.immediateValue.tensor
    kind = tensor.WhichOneof("value")
    if kind == "bytes":  # float16 and 8-bit scalars are stored as little-endian bytes
        dtype = {"FLOAT16": np.float16, "INT8": np.int8, "UINT8": np.uint8}[_type_name(value.type.tensorType)]
        return float(np.frombuffer(tensor.bytes.values, dtype)[0])
    return float(getattr(tensor, kind).values[0])
