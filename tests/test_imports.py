"""What an import may cost: frameworks come in with the call that needs them, never with a module."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

FRAMEWORKS = (
    "ai_edge_litert",
    "ai_edge_quantizer",
    "av",
    "coremltools",
    "executorch",
    "jax",
    "litert_torch",
    "matplotlib",
    "tensorflow",
    "torch",
    "torchao",
)
HEAVY = (*FRAMEWORKS, "numpy", "pydantic", "rich")
LIGHT_MODULES = (
    "mvtool.android_bench.measure",
    "mvtool.bench.benching",
    "mvtool.build",
    "mvtool.cli.bench",
    "mvtool.cli.compare",
    "mvtool.cli.convert",
    "mvtool.cli.demo",
    "mvtool.cli.inspect",
    "mvtool.cli.report",
    "mvtool.cli.run",
    "mvtool.cli.verify",
    "mvtool.cli.zoo",
    "mvtool.converters",
    "mvtool.errors",
    "mvtool.labels",
    "mvtool.operators",
    "mvtool.parent",
    "mvtool.plotting",
    "mvtool.ports",
    "mvtool.preprocessing",
    "mvtool.program",
    "mvtool.quantization",
    "mvtool.running",
    "mvtool.runtimes",
    "mvtool.session",
    "mvtool.verification",
    "mvtool.video",
    "mvtool.zoo.registry",
)


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `statement`."""
    code = f"{statement}\nimport sys\nprint('\\n'.join(sorted(name.partition('.')[0] for name in sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_this_check_can_fail() -> None:
    assert {"av", "pydantic"} <= loaded_after("import av, pydantic")


def test_importing_mvtool_is_free() -> None:
    assert not loaded_after("import mvtool") & {*HEAVY, "click"}


def test_light_modules_import_no_framework() -> None:
    statement = "\n".join(f"import {module}" for module in LIGHT_MODULES)
    assert not loaded_after(statement) & set(FRAMEWORKS)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    statement = f"from mvtool.cli import main\ntry: main({arguments!r})\nexcept SystemExit as end: assert not end.code"
    assert not loaded_after(statement) & set(HEAVY)


def test_help_takes_less_than_four_tenths_of_a_second() -> None:
    """The fastest of several starts counts, since other processes share the machine."""
    fastest = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "mvtool", "--help"], capture_output=True, check=True)
        fastest = min(fastest, time.perf_counter() - start)
        if fastest < 0.4:
            break
    assert fastest < 0.4
