"""Which operators an artifact holds, read from the file without executing it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mvtool.errors import RuntimeLoadError
from mvtool.extras import require
from mvtool.ports import Runtime
from mvtool.runtimes.flatbuffer import Table

BUILTIN_PLACEHOLDER = 127
"""`schema.fbs` of TFLite: the 8-bit code that says that the 32-bit field holds the real one."""
CUSTOM = 32
"""`BuiltinOperator.CUSTOM` of the same schema."""
KERNEL_CALL, DELEGATE_CALL = 1, 2
"""Members of the union `InstructionArguments` in `program.fbs` of ExecuTorch."""


def count(path: Path, runtime: Runtime) -> dict[str, int]:
    """Operator to number of uses, most frequent first.

    Args:
        path: Artifact.
        runtime: Runtime it is for.

    Raises:
        RuntimeLoadError: The file is damaged.
        MissingExtraError: The package that knows the operators' names is not installed.
    """
    counters = {Runtime.TFLITE: _tflite, Runtime.EXECUTORCH: _executorch, Runtime.COREML: _coreml}
    found = counters[runtime](path)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _tflite(path: Path) -> Counter[str]:
    model = Table.root(memoryview(path.read_bytes()))
    names = [_tflite_name(code) for code in model.tables(1)]
    return Counter(names[operator.scalar(0, "I")] for graph in model.tables(2) for operator in graph.tables(3))


def _tflite_name(code: Table) -> str:
    schema = require("ai_edge_litert.schema_py_generated", "to name TFLite operators")
    number = code.scalar(0, "b")
    number = code.scalar(3, "i") if number in (0, BUILTIN_PLACEHOLDER) else number
    if number == CUSTOM:
        return code.text(1)
    known: dict[int, str] = {
        value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
    }
    return known.get(number, f"operator {number}")


def _executorch(path: Path) -> Counter[str]:
    """Kernel calls by name and delegate calls by backend of the method `forward`."""
    program = Table.root(memoryview(path.read_bytes()))
    found: Counter[str] = Counter()
    for plan in program.tables(1):
        if plan.text(0) != "forward":
            continue
        operators = [".".join(filter(None, (op.text(0), op.text(1)))) for op in plan.tables(6)]
        delegates = [delegate.text(0) for delegate in plan.tables(7)]
        for chain in plan.tables(5):
            for instruction in chain.tables(2):
                kind, call = instruction.scalar(0, "B"), instruction.table(1)
                if kind == KERNEL_CALL and call is not None:
                    found[operators[call.scalar(0, "i")]] += 1
                elif kind == DELEGATE_CALL and call is not None:
                    found[f"delegate {delegates[call.scalar(0, 'i')]}"] += 1
    if not found:
        raise RuntimeLoadError(f"{path} holds no instruction in its method 'forward'. Convert the model again.")
    return found


def _coreml(path: Path) -> Counter[str]:
    from mvtool.runtimes.mlprogram.loader import load_program

    return Counter(operation.kind for operation in load_program(path).operations)
