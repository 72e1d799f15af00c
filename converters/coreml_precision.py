"""Which operators of an ML program compute in float16.

In fp16 and int8 artifacts all of them do, except

* the update of an accumulator (running mean, frame counter, ...): it is exact only where its sum is
  held in float32. float16 counts to 2048, and a running mean in float16 stands still after about a
  thousand frames.
* what is computed from accumulators and constants alone, such as a positional encoding from the frame
  counter: its argument is as large as the accumulator.
* quantize and dequantize whose scale float16 cannot hold to 11 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any

# Smallest normal float16, 2**-14 (IEEE 754-2008 table 3.5); below it precision is lost.
FLOAT16_SMALLEST_NORMAL = 2.0**-14
# Largest scale with 255 steps below the largest float16, 65504.
FLOAT16_LARGEST_SCALE = 65504.0 / 255.0

# Element-wise operators of an accumulator's update, as MIL names them.
UPDATE_OPERATORS = frozenset(
    {"add", "sub", "mul", "real_div", "maximum", "minimum", "clip", "select", "mod", "cast", "reshape", "squeeze"}
    | {"expand_dims", "identity", "inverse"}
)


def float16_selector(
    accumulators: AbstractSet[str], outputs: AbstractSet[str], integers: AbstractSet[str] = frozenset()
) -> Callable[[Any], bool]:
    """A selector for coremltools' `FP16ComputePrecision`.

    Args:
        accumulators: Names of the input ports of accumulators.
        outputs: Names of their output ports.
        integers: Names of the input ports of integer states, which count as well.

    Returns:
        A function from a MIL operation to whether it is cast to float16.
    """
    kept: set[str] | None = None

    def select(operation: Any) -> bool:
        nonlocal kept
        if kept is None:  # the first call comes before the pass has changed anything
            block = operation.enclosing_block
            kept = _update_operations(block, accumulators, outputs)
            kept |= _derived_operations(block, accumulators | integers)
        return operation.name not in kept and _scale_fits(operation)

    return select


def _derived_operations(block: Any, sources: AbstractSet[str]) -> set[str]:
    """Names of the operations whose every operand is a source, a constant, or derived from those."""
    derived = {var for name, var in block.inputs.items() if name in sources}
    names: set[str] = set()
    for operation in block.operations:
        operands = [var for var in _variables(operation) if var.val is None]
        if operands and all(var in derived for var in operands):
            derived.update(operation.outputs)
            names.add(operation.name)
    return names


def _update_operations(block: Any, sources: AbstractSet[str], results: AbstractSet[str]) -> set[str]:
    """Names of the operations between the accumulators and their next values."""
    ahead = _walk(
        (var for name, var in block.inputs.items() if name in sources),
        lambda var: [(op, op.outputs) for op in var.child_ops],
    )
    behind = _walk(
        (var for var in block.outputs if var.name in results),
        lambda var: [(var.op, _variables(var.op))] if var.op is not None else [],
    )
    return ahead & behind


def _walk(start: Iterable[Any], step: Callable[[Any], list[tuple[Any, Iterable[Any]]]]) -> set[str]:
    passed: set[str] = set()
    waiting = list(start)
    while waiting:
        for operation, following in step(waiting.pop()):
            if operation.op_type in UPDATE_OPERATORS and operation.name not in passed:
                passed.add(operation.name)
                waiting.extend(following)
    return passed


def _variables(operation: Any) -> list[Any]:
    inputs = operation.inputs.values()
    return [v for entry in inputs for v in (entry if isinstance(entry, (list, tuple)) else (entry,)) if v is not None]


def _scale_fits(operation: Any) -> bool:
    if operation.op_type not in ("quantize", "dequantize"):
        return True
    scale = operation.scale.val
    return bool((scale >= FLOAT16_SMALLEST_NORMAL).all() and (scale <= FLOAT16_LARGEST_SCALE).all())
