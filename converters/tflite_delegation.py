"""How much of a written `.tflite` the XNNPACK delegate takes."""

from __future__ import annotations

from pathlib import Path

from pydantic import JsonValue

from mvtool.extras import require

PURPOSE = "to look at the delegation of a TFLite file"


def delegation(path: Path) -> dict[str, JsonValue]:
    """Load `path` on the host and ask the runtime.

    Returns:
        `delegates`, the number of DELEGATE nodes in the executed graph, and `fully_accelerated`, the runtime's
        own word that nothing stays outside; a graph can show one DELEGATE node with operators still around it.
    """
    interpreters = require("ai_edge_litert.interpreter", PURPOSE)
    compiled = require("ai_edge_litert.compiled_model", PURPOSE)
    interpreter = interpreters.Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    operators = [details["op_name"] for details in interpreter._get_ops_details()]
    accelerated = bool(compiled.CompiledModel.from_file(str(path)).is_fully_accelerated())
    return {"delegates": operators.count("DELEGATE"), "fully_accelerated": accelerated}
