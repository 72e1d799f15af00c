"""Planning: from a parsed program to a list of kernel calls.

Everything that can be decided before the first frame is decided here: operators are looked up,
parameters checked, constants decoded, operations on constants computed, and every kernel is tried on
tensors without data to prove that its result has the declared type and shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mvtool.errors import MvtoolError, RuntimeLoadError
from mvtool.runtimes.mlprogram.carriers import carrier_dtype, in_float64, round_to_fp16
from mvtool.runtimes.mlprogram.dtypes import DType, TensorType
from mvtool.runtimes.mlprogram.program import Constant, MLProgram, NamedType, Operand, Operation
from mvtool.runtimes.mlprogram.registry import Call, Kernel, Known, find_operator, known_constant, operation_error


@dataclass(frozen=True)
class Step:
    """One kernel call.

    Attributes:
        operation: What is computed, for messages.
        kernel: Function from carriers to one carrier or a tuple of carriers.
        arguments: Slots of its arguments; None passes None.
        results: Slots of its results.
        rounded: Whether the results are rounded to fp16.
        released: Slots that nothing reads after this step.
    """

    operation: Operation
    kernel: Kernel
    arguments: tuple[int | None, ...]
    results: tuple[int, ...]
    rounded: tuple[bool, ...]
    released: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A planned program.

    Attributes:
        values: Initial table of values: carriers of constants, None elsewhere.
        inputs: Slot of each program input.
        outputs: Slot of each program output.
        steps: Kernel calls in order.
    """

    values: tuple[torch.Tensor | None, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]


def plan_program(program: MLProgram) -> Plan:
    """Plan a program.

    Raises:
        RuntimeLoadError: An operator, a parameter or a type is not supported, or a declared result is
            not what the operator computes.
    """
    planner = _Planner()
    for name, constant in program.constants.items():
        planner.add_constant(name, constant)
    inputs = tuple(planner.add_value(NamedType(feature.name, feature.type)) for feature in program.inputs)
    for operation in program.operations:
        planner.add_operation(operation)
    outputs = tuple(planner.slot_of(feature.name) for feature in program.outputs)
    return Plan(tuple(planner.values), inputs, outputs, _with_releases(planner.steps, planner.values, outputs))


def run_step(step: Step, values: Any) -> None:
    """Execute one step on the table of values, a list or a dictionary by slot."""
    result = step.kernel(*[None if slot is None else values[slot] for slot in step.arguments])
    results = result if isinstance(result, tuple) else (result,)
    for slot, rounded, value in zip(step.results, step.rounded, results, strict=True):
        values[slot] = round_to_fp16(value) if rounded else value


class _Planner:
    def __init__(self) -> None:
        self.values: list[torch.Tensor | None] = []
        self.steps: list[Step] = []
        self._known: dict[str, Known] = {}
        self._computed: dict[int, TensorType] = {}
        self._wide: dict[int, int] = {}

    def add_constant(self, name: str, constant: Constant) -> None:
        self._known[name] = self._place(constant)

    def add_value(self, value: NamedType) -> int:
        carrier_dtype(value.type.dtype)
        slot = self._new_slot(None)
        self._computed[slot] = value.type
        self._known[value.name] = Known(value.type, None, slot)
        return slot

    def slot_of(self, name: str) -> int:
        slot = self._known[name].slot
        if slot is None:
            raise RuntimeLoadError(f"The output {name!r} is a string, which is not supported.")
        return slot

    def add_operation(self, operation: Operation) -> None:
        found = find_operator(operation)
        call = Call(operation, self._resolve, self._new_slot)
        kernel = _guarded(operation, lambda: found.build(call))
        slots = tuple(call.slots)
        if found.wide and all(type_.dtype is DType.FP16 for type_ in call.outputs):
            kernel, slots = in_float64(kernel), tuple(map(self._widened, slots))
        if call.unused():
            raise call.error(f"the operands {call.unused()} are not supported")
        results = tuple(self.add_value(output) for output in operation.outputs)
        rounded = tuple(type_.dtype is DType.FP16 and not found.exact for type_ in call.outputs)
        step = Step(operation, kernel, slots, results, rounded)
        self._check(step)
        if all(slot is None or self.values[slot] is not None for slot in step.arguments):
            self._compute_now(step)
        else:
            self.steps.append(step)

    def _resolve(self, operand: Operand) -> Known:
        if isinstance(operand, Constant):
            return self._place(operand)
        return self._known[operand.name]

    def _place(self, constant: Constant) -> Known:
        known = known_constant(constant, len(self.values))
        if isinstance(known.value, torch.Tensor):
            self._new_slot(known.value)
        return known

    def _widened(self, slot: int | None) -> int | None:
        """A slot with a constant in float64, so that it is not converted at every call; a computed value as it is."""
        value = None if slot is None else self.values[slot]
        if slot is None or value is None or not value.is_floating_point():
            return slot
        if slot not in self._wide:
            self._wide[slot] = self._new_slot(value.double())
        return self._wide[slot]

    def _new_slot(self, value: torch.Tensor | None) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def _check(self, step: Step) -> None:
        """Try the kernel on tensors without data and compare its results with the declared types."""
        table = {slot: self._without_data(slot) for slot in step.arguments if slot is not None}
        _guarded(step.operation, lambda: run_step(step, table))
        for output, slot in zip(step.operation.outputs, step.results, strict=True):
            computed = table[slot]
            if tuple(computed.shape) != output.type.shape or computed.dtype != carrier_dtype(output.type.dtype):
                raise operation_error(
                    step.operation,
                    f"it computes {computed.dtype} {list(computed.shape)}, but the program declares {output.type}",
                )

    def _without_data(self, slot: int) -> torch.Tensor:
        value = self.values[slot]
        if value is not None:
            return torch.empty(value.shape, dtype=value.dtype, device="meta")
        declared = self._computed[slot]
        return torch.empty(declared.shape, dtype=carrier_dtype(declared.dtype), device="meta")

    def _compute_now(self, step: Step) -> None:
        table: dict[int, Any] = {slot: self.values[slot] for slot in step.arguments if slot is not None}
        _guarded(step.operation, lambda: run_step(step, table))
        for output, slot in zip(step.operation.outputs, step.results, strict=True):
            self.values[slot] = table[slot]
            self._known[output.name] = Known(output.type, table[slot], slot)


def _guarded(operation: Operation, action: Any) -> Any:
    """Turn whatever torch or numpy raise about bad parameters into an error that names the operation."""
    try:
        return action()
    except MvtoolError:
        raise
    except Exception as error:
        raise operation_error(operation, f"its parameters do not fit together: {error}") from error


def _with_releases(
    steps: Sequence[Step], values: Sequence[torch.Tensor | None], outputs: tuple[int, ...]
) -> tuple[Step, ...]:
    """Note after which step each computed value is no longer needed."""
    kept = {slot for slot, value in enumerate(values) if value is not None} | set(outputs)
    planned: list[Step] = []
    for step in reversed(steps):
        used = {slot for slot in (*step.arguments, *step.results) if slot is not None}
        released = tuple(sorted(used - kept))
        kept |= used
        planned.append(Step(step.operation, step.kernel, step.arguments, step.results, step.rounded, released))
    return tuple(reversed(planned))
