"""`benchmarks/memory.py` on a small stream: figures that add up, and an exit code that follows them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mvtool.build import Build

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "memory.py"
ROUNDING_KB = 16
"""Counters of one moment are read from two files, one after the other."""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counters are those of Linux")


def measured(*words: object) -> tuple[int, str]:
    command = [sys.executable, str(PROGRAM), *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode in (0, 1), ended.stderr
    return ended.returncode, ended.stdout


def test_figures_of_tflite_in_all_manners(tiny_build: Build, tmp_path: Path) -> None:
    target = tmp_path / "memory.json"
    code, printed = measured(tiny_build.folder, "--frames", 150, "--runtime", "tflite", "--json", target)
    rows = json.loads(target.read_text())
    assert [row["manner"] for row in rows] == ["kept", "released", "writes cache", "maps cache"] * 2
    assert [row["limit_kb"] is not None for row in rows] == [False, True] * 4
    assert code == any(row["failed"] for row in rows)
    for row in rows:
        parts = row["model_kb"] + row["weights_kb"] + row["code_kb"] + row["heap_kb"]
        assert abs(parts - row["resident_kb"]) <= ROUNDING_KB
        assert 0 < row["loaded_kb"] <= row["first_kb"] <= row["early_kb"] <= row["end_kb"]
        assert row["end_kb"] - row["one_operator_kb"] == row["over_one_operator_kb"]
        assert (row["weights_kb"] > 0) == row["manner"].endswith("cache")
        assert row["artifact"] in printed
    assert all(rows[place]["model_kb"] > 0 for place in (0, 4))


@pytest.mark.slow
def test_executorch_has_figures_and_no_limit(tiny_build: Build, tmp_path: Path) -> None:
    target = tmp_path / "memory.json"
    code, _ = measured(tiny_build.folder, "--frames", 150, "--runtime", "executorch", "--json", target)
    rows = json.loads(target.read_text())
    assert [(row["manner"], row["limit_kb"], row["one_operator_kb"]) for row in rows] == [("as it is", None, None)] * 2
    assert all(row["includes"] == ["libtorch", "libpython"] for row in rows)
    assert code == any(row["failed"] for row in rows)


def test_what_it_refuses(tiny_build: Build) -> None:
    command = [sys.executable, str(PROGRAM), str(tiny_build.folder), "--frames", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert "--frames got 0; expected at least 1" in ended.stderr
