"""How much of a written `.tflite` the XNNPACK delegate takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from mvtool.extras import require

DELEGATE = "DELEGATE"
PURPOSE = "to look at the delegation of a TFLite file"


def delegation(path: Path) -> dict[str, JsonValue]:
    """Load `path` on the host and ask the runtime.

    Returns:
        `delegates`, the number of DELEGATE nodes in the executed graph; `fully_accelerated`, the runtime's
        own word that nothing stays outside; and, where something does, `operators_outside`, operator to number.
    """
    interpreters = require("ai_edge_litert.interpreter", PURPOSE)
    compiled = require("ai_edge_litert.compiled_model", PURPOSE)
    interpreter = interpreters.Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    operators = interpreter._get_ops_details()
    accelerated = bool(compiled.CompiledModel.from_file(str(path)).is_fully_accelerated())
    delegates = sum(operator["op_name"] == DELEGATE for operator in operators)
    found: dict[str, JsonValue] = {"delegates": delegates, "fully_accelerated": accelerated}
    if not accelerated:
        wanted = [int(port["index"]) for port in interpreter.get_output_details()]
        found["operators_outside"] = {**_outside(operators, wanted)}
    return found


def _outside(operators: Sequence[Mapping[str, Any]], outputs: Iterable[int]) -> dict[str, int]:
    """Operators whose results a delegate or the caller takes and no delegate makes.

    The runtime lists replaced operators beside the delegates that replaced them, so what runs is found from the end.
    """
    delegates = [operator for operator in operators if operator["op_name"] == DELEGATE]
    made = {int(tensor) for operator in delegates for tensor in operator["outputs"]}
    maker = {int(t): op for op in operators if op["op_name"] != DELEGATE for t in op["outputs"]}
    todo = [int(tensor) for operator in delegates for tensor in operator["inputs"]] + list(outputs)
    running: dict[int, str] = {}
    while todo:
        tensor = todo.pop()
        operator = None if tensor in made else maker.get(tensor)
        if operator is not None and operator["index"] not in running:
            running[operator["index"]] = str(operator["op_name"])
            todo += map(int, operator["inputs"])
    return dict(sorted(Counter(running.values()).items()))
