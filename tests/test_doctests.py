"""The examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"mvtool": "toolkit", "mvtool.converters": "converters", "mvtool.quantization": "quantization"}


def modules_with_examples() -> list[str]:
    found = []
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            if ">>> " in path.read_text(encoding="utf-8"):
                parts = [part for part in path.relative_to(ROOT / folder).with_suffix("").parts if part != "__init__"]
                found.append(".".join([package, *parts]))
    return found


def test_there_are_examples() -> None:
    assert {"mvtool.labels", "mvtool.preprocessing"} <= set(modules_with_examples())


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0
