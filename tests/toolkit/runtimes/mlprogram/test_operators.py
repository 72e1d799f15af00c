"""Every operator against vectors that were worked out without it.

Each file in `vectors/` becomes one small program, which coremltools writes to disk; the evaluator reads
it back. A vector is `(operator, inputs, build, expected)`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

VECTORS = Path(__file__).parent / "vectors"
GROUPS = sorted(path.stem for path in VECTORS.glob("*.py"))


def load_group(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"mlprogram_vectors_{name}", VECTORS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("group", GROUPS)
def test_operators_give_the_expected_vectors(group: str, save_program: Any, load: Any) -> None:
    module = load_group(group)
    if hasattr(module, "prepare"):
        module.prepare()
    inputs = {f"x{case}_{i}": x for case, vector in enumerate(module.CASES) for i, x in enumerate(vector[1])}
    inputs = inputs or {"unused": np.zeros(1, np.float32)}
    owners: list[int] = []

    def build(mb: Any, placeholders: dict[str, Any]) -> list[Any]:
        results: list[Any] = []
        for case, (_, arrays, make, _) in enumerate(module.CASES):
            made = make(mb, *(placeholders[f"x{case}_{i}"] for i in range(len(arrays))))
            made = list(made) if isinstance(made, (tuple, list)) else [made]
            owners.extend([case] * len(made))
            results.extend(made)
        return results

    evaluator = load(save_program(inputs, build, target=getattr(module, "TARGET", "iOS18")))
    found = evaluator.run(inputs)
    outputs = [found[port.name] for port in evaluator.program.outputs]
    compare(module.CASES, owners, outputs)
    kinds = {operation.kind for operation in evaluator.program.operations}
    assert {vector[0] for vector in module.CASES} <= kinds


def compare(cases: list[Any], owners: list[int], outputs: list[Any]) -> None:
    assert len(owners) == len(outputs)
    for case, (kind, _, _, expected) in enumerate(cases):
        wanted = expected if isinstance(expected, list) else [expected]
        got = [output for owner, output in zip(owners, outputs, strict=True) if owner == case]
        assert len(wanted) == len(got), f"{kind} (vector {case})"
        for w, g in zip(wanted, got, strict=True):
            np.testing.assert_allclose(g, w, rtol=2e-5, atol=2e-6, err_msg=f"{kind} (vector {case})")


def test_no_operator_is_without_vector(operator_kinds: set[str]) -> None:
    tested = {vector[0] for group in GROUPS for vector in load_group(group).CASES}
    assert operator_kinds - tested == set()
    assert tested - operator_kinds == set()
