"""Which interpreter executes a `.tflite`."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from mvtool.errors import MissingExtraError
from mvtool.runtimes.litert import _interpreter_module


def only(monkeypatch: pytest.MonkeyPatch, installed: str | None) -> None:
    """Let `installed` be the one runtime there is."""
    found = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        runtime = name.partition(".")[0] in ("ai_edge_litert", "tflite_runtime")
        return found(name, package) if not runtime else (ModuleSpec(name, None) if name == installed else None)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    for name in ("ai_edge_litert", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)


def test_the_retired_name_is_used_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "tflite_runtime")
    old = ModuleType("tflite_runtime.interpreter")
    monkeypatch.setitem(sys.modules, "tflite_runtime", ModuleType("tflite_runtime"))
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", old)
    assert _interpreter_module() == (old, "tflite_runtime")


def test_without_any_runtime_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, None)
    with pytest.raises(MissingExtraError, match=r"mvtool\[tflite\]"):
        _interpreter_module()


def test_litert_is_preferred() -> None:
    module, engine = _interpreter_module()
    assert (module.__name__, engine) == ("ai_edge_litert.interpreter", "LiteRT")
