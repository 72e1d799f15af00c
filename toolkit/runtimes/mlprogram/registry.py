"""The table of operators and what a builder sees of one operation.

A *builder* is called once per operation at load time. It takes every operand from the `Call`, checks
the parameters and returns a *kernel*, a function from carriers to carriers that runs at every step. An
operand that the builder did not take is an error, so no parameter is ever ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mvtool.errors import RuntimeLoadError
from mvtool.runtimes.mlprogram.carriers import from_carrier, to_carrier
from mvtool.runtimes.mlprogram.dtypes import DType, TensorType
from mvtool.runtimes.mlprogram.program import Constant, Operand, Operation

Kernel = Callable[..., Any]


@dataclass(frozen=True)
class Known:
    """What is known at load time about a value of the program.

    Attributes:
        type: Declared element type and shape.
        value: Carrier of a constant, the `str` of a constant string, or None for a computed value.
        slot: Position of the value in the evaluator's table; None for strings.
    """

    type: TensorType
    value: torch.Tensor | str | None
    slot: int | None


class Call:
    """The operands of one operation, handed out by name.

    Args:
        operation: The operation.
        resolve: Finds what is known about an operand.
        bind: Stores a tensor that the builder computed and returns its slot.
    """

    def __init__(
        self,
        operation: Operation,
        resolve: Callable[[Operand], Known],
        bind: Callable[[torch.Tensor], int],
    ) -> None:
        self._operation = operation
        self._resolve = resolve
        self._bind = bind
        self._left = set(operation.inputs)
        self.slots: list[int | None] = []

    @property
    def kind(self) -> str:
        """Operator type."""
        return self._operation.kind

    @property
    def outputs(self) -> tuple[TensorType, ...]:
        """Declared types of the results."""
        return tuple(output.type for output in self._operation.outputs)

    @property
    def output(self) -> TensorType:
        """Declared type of the only result."""
        if len(self._operation.outputs) != 1:
            raise self.error(f"it has {len(self._operation.outputs)} results, expected 1")
        return self._operation.outputs[0].type

    def tensor(self, key: str) -> TensorType:
        """Pass operand `key` to the kernel as its next argument."""
        known = self._only(key)
        if known is None or known.slot is None:
            raise self.error(f"operand {key!r} is missing or not a tensor")
        self.slots.append(known.slot)
        return known.type

    def optional_tensor(self, key: str) -> TensorType | None:
        """Pass operand `key` to the kernel as its next argument, None where it is absent."""
        if key in self._operation.inputs:
            return self.tensor(key)
        self.slots.append(None)
        return None

    def tensors(self, key: str) -> tuple[TensorType, ...]:
        """Pass all operands of the tuple `key` to the kernel as its next arguments."""
        self._left.discard(key)
        found = [self._resolve(operand) for operand in self._operation.inputs.get(key, ())]
        if not found or any(known.slot is None for known in found):
            raise self.error(f"operand {key!r} is empty or not made of tensors")
        self.slots.extend(known.slot for known in found)
        return tuple(known.type for known in found)

    def scalars(self, key: str) -> list[int]:
        """Return the tuple `key` of constant integers or booleans."""
        self._left.discard(key)
        found = [self._resolve(operand).value for operand in self._operation.inputs.get(key, ())]
        values = [value for value in found if isinstance(value, torch.Tensor) and value.numel() == 1]
        if not values or len(values) != len(found):
            raise self.error(f"operand {key!r} is not a tuple of constants")
        return [int(value) for value in values]

    def bind(self, tensor: torch.Tensor) -> None:
        """Pass a tensor that the builder computed to the kernel as its next argument."""
        self.slots.append(self._bind(tensor))

    def has(self, key: str) -> bool:
        """Whether the operation has operand `key`."""
        return key in self._operation.inputs

    def array(self, key: str) -> Any:
        """Return the constant operand `key` as a numpy array of its declared type."""
        known = self._only(key)
        if known is None or not isinstance(known.value, torch.Tensor):
            raise self.error(f"operand {key!r} is missing or not known at load time; only constants are supported")
        return from_carrier(known.value, known.type.dtype)

    def integers(self, key: str, default: list[int] | None = None, length: int | None = None) -> list[int]:
        """Return the constant integer vector `key`, checked to have `length` elements."""
        if default is not None and not self.has(key):
            return default
        array = self.array(key)
        if array.dtype.kind not in "iu" or array.ndim > 1 or length not in (None, array.size):
            raise self.error(f"{key!r} is {array.dtype} of shape {array.shape}, expected {length or 'some'} integers")
        return [int(value) for value in array.reshape(-1)]

    def integer(self, key: str, default: int | None = None) -> int:
        """Return the constant integer `key`."""
        return self.integers(key, None if default is None else [default], length=1)[0]

    def booleans(self, key: str, default: list[bool]) -> list[bool]:
        """Return the constant boolean vector `key`, which has as many elements as `default`."""
        if not self.has(key):
            return default
        array = self.array(key)
        if array.dtype.kind != "b" or array.size != len(default):
            raise self.error(f"{key!r} is {array.dtype} of shape {array.shape}, expected {len(default)} booleans")
        return [bool(value) for value in array.reshape(-1)]

    def boolean(self, key: str, default: bool) -> bool:
        """Return the constant boolean `key`."""
        return self.booleans(key, [default])[0]

    def number(self, key: str, default: float | None = None) -> float:
        """Return the constant real or integer number `key`."""
        if default is not None and not self.has(key):
            return default
        array = self.array(key)
        if array.size != 1 or array.dtype.kind not in "fiu":
            raise self.error(f"{key!r} is {array.dtype} of shape {array.shape}, expected one number")
        return float(array.reshape(-1)[0])

    def text(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        """Return the constant string `key`, one of `allowed`."""
        value = default if default is not None and not self.has(key) else self.string(key)
        if value not in allowed:
            raise self.error(f"{key!r} is {value!r}, supported are {', '.join(allowed)}")
        return value

    def string(self, key: str) -> str:
        """Return the constant string `key`."""
        known = self._only(key)
        if known is None or not isinstance(known.value, str):
            raise self.error(f"operand {key!r} is missing or not a constant string")
        return known.value

    def axis(self, key: str, rank: int, default: int | None = None) -> int:
        """Return the constant axis `key` of a tensor of `rank` axes, counted from the front."""
        return self.normal_axis(self.integer(key, default), rank)

    def normal_axis(self, axis: int, rank: int) -> int:
        """Count `axis` from the front."""
        if not -rank <= axis < rank:
            raise self.error(f"axis {axis} does not exist in {rank} axes")
        return axis % rank

    def unused(self) -> list[str]:
        """Operands that the builder did not take."""
        return sorted(self._left)

    def error(self, what: str) -> RuntimeLoadError:
        """Return an error that names the operation."""
        return operation_error(self._operation, what)

    def _only(self, key: str) -> Known | None:
        self._left.discard(key)
        operands = self._operation.inputs.get(key)
        if operands is None:
            return None
        if len(operands) != 1:
            raise self.error(f"operand {key!r} is a tuple of {len(operands)}, expected one value")
        return self._resolve(operands[0])


@dataclass(frozen=True)
class Operator:
    """An entry of the table.

    Attributes:
        kind: Operator type.
        build: Its builder.
        exact: Results are representable in the type of the operands, so that fp16 needs no rounding.
        wide: It adds many terms: in fp16 they are added as float64, so that their order makes no difference.
    """

    kind: str
    build: Callable[[Call], Kernel]
    exact: bool
    wide: bool


_OPERATORS: dict[str, Operator] = {}

Builder = Callable[[Call], Kernel]


def operator(*kinds: str, exact: bool = False, wide: bool = False) -> Callable[[Builder], Builder]:
    """Enter a builder into the table under every operator type in `kinds`.

    Raises:
        RuntimeLoadError: A type is in the table already.
    """

    def enter(build: Builder) -> Builder:
        for kind in kinds:
            if kind in _OPERATORS:
                raise RuntimeLoadError(f"Two implementations of the operator {kind!r}.")
            _OPERATORS[kind] = Operator(kind, build, exact, wide)
        return build

    return enter


def operators() -> Mapping[str, Operator]:
    """Operator type to implementation, in the order of definition."""
    return dict(_OPERATORS)


def find_operator(operation: Operation) -> Operator:
    """Find the implementation of an operation.

    Raises:
        RuntimeLoadError: There is none; the message names the operation.
    """
    found = _OPERATORS.get(operation.kind)
    if found is None:
        raise operation_error(
            operation,
            f"the reference evaluator does not know this operator (it knows {len(_OPERATORS)}). Verify the model on "
            "macOS, or replace the layer by one that converts to known operators",
        )
    return found


def operation_error(operation: Operation, what: str) -> RuntimeLoadError:
    """Return an error about one operation."""
    return RuntimeLoadError(f"Operator {operation.kind!r} (output {operation.name!r}): {what}.")


def known_constant(constant: Constant, slot: int) -> Known:
    """Return what is known about a constant that will live in `slot`."""
    if isinstance(constant.value, str) or constant.type.dtype is DType.STRING:
        return Known(constant.type, str(constant.value), None)
    return Known(constant.type, to_carrier(constant.value, constant.type.dtype), slot)
