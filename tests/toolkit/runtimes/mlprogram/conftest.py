from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _third_party_warnings() -> Iterator[None]:
    """Let coremltools and what it imports warn about themselves; errors in mvtool stay errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


@pytest.fixture(scope="session")
def coremltools() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coremltools

        return coremltools


@pytest.fixture
def save_program(coremltools: Any, tmp_path: Path) -> Callable[..., Path]:
    """Writes a program that `build(mb, placeholders)` describes; returns the package."""
    return lambda *args, **kwargs: write_program(coremltools, tmp_path, *args, **kwargs)


def write_program(
    ct: Any, folder: Path, inputs: dict[str, Any], build: Callable[..., Any], target: str = "iOS18"
) -> Path:
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program, types

    of_numpy = {"float32": types.fp32, "float16": types.fp16, "int32": types.int32}
    opset = getattr(ct.target, target)
    program = Program()
    placeholders = {name: mb.placeholder(shape=x.shape, dtype=of_numpy[x.dtype.name]) for name, x in inputs.items()}
    with Function(placeholders, opset_version=opset) as function:
        results = [presentable(mb, types, result) for result in build(mb, function.inputs)]
        function.set_outputs(results)
    program.add_function("main", function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=opset,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        )
        path = folder / "program.mlpackage"
        model.save(str(path))
    return path


def presentable(mb: Any, types: Any, result: Any) -> Any:
    """Make a result a legal output: ports know fewer types, and an input or constant is no result."""
    if result.dtype in (types.fp32, types.fp16, types.int32):
        return mb.identity(x=result) if result.op is None or result.op.op_type == "const" else result
    return mb.cast(x=result, dtype="int32")


@pytest.fixture
def load() -> Callable[[Path], Any]:
    def evaluator(package: Path) -> Any:
        from mvtool.runtimes.mlprogram.evaluator import Evaluator
        from mvtool.runtimes.mlprogram.loader import load_program

        return Evaluator(load_program(package))

    return evaluator


@pytest.fixture
def operator_kinds() -> set[str]:
    import mvtool.runtimes.mlprogram.evaluator  # noqa: F401 - fills the table
    from mvtool.runtimes.mlprogram.registry import operators

    return set(operators())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)
