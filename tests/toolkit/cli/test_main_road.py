"""The commands one after the other on a real model: convert, inspect, verify, run, and what they say of damage."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from motion_model import MODEL
from sample_videos import encode

pytestmark = pytest.mark.slow

TARGETS = ("tflite", "coreml", "executorch")


def mvtool(folder: Path, *words: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mvtool", *map(str, words)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `motion.py`, a video, and `build`: fp32 for every target."""
    made = tmp_path_factory.mktemp("road")
    (made / "motion.py").write_text(MODEL)
    encode(made / "clip.mp4", 20)
    result = mvtool(made, "convert", "motion:make", "--input", "1x3x32x32", "--out", "build", "-v")
    assert "memory -> memory, memory_next" in result.stdout
    assert "Next: mvtool verify build" in result.stdout
    return made


def test_every_target_is_there(folder: Path) -> None:
    record = json.loads(mvtool(folder, "inspect", "build", "--json").stdout)
    assert {a["runtime"] for a in record["artifacts"]} == set(TARGETS)


@pytest.mark.parametrize(
    ("suffix", "operator"), [(".tflite", "CONV_2D"), (".mlpackage", "conv"), (".pte", "delegate XnnpackBackend")]
)
def test_inspect_knows_ports_states_and_operators(folder: Path, suffix: str, operator: str) -> None:
    record = json.loads(mvtool(folder, "inspect", f"build/motion_make_fp32{suffix}", "--json").stdout)
    (binding,) = record["ports"]["states"]
    assert (binding["state"], binding["output"]["name"]) == ("memory", "memory_next")
    assert record["state_bytes"] == 16 * 16 * 8 * 4
    assert record["operators"][operator] == 1


def test_inspect_shows_them(folder: Path) -> None:
    shown = mvtool(folder, "inspect", "build/motion_make_fp32.tflite").stdout
    assert "memory_next" in shown
    assert "1x16x16x8" in shown
    assert "operators: " in shown


def test_every_runtime_says_the_same(folder: Path) -> None:
    probabilities = {}
    for runtime in TARGETS:
        lines = mvtool(folder, "run", "build", "clip.mp4", "--runtime", runtime, "--jsonl", "-").stdout.splitlines()
        records = [json.loads(line) for line in lines]
        assert records[0]["runtime"] == runtime
        probabilities[runtime] = [step["top"][0]["probability"] for step in records[1:-1]]
    assert len(probabilities["tflite"]) == 20
    for runtime in TARGETS:
        assert probabilities[runtime] == pytest.approx(probabilities["tflite"], abs=1e-4)


def test_verify_passes_and_is_remembered(folder: Path) -> None:
    report = json.loads(mvtool(folder, "verify", "build", "--json").stdout)
    assert len(report["artifacts"]) == len(TARGETS)
    assert "motion_make is verified: 3 of 3" in mvtool(folder, "inspect", "build").stdout


def test_a_changed_byte_is_found(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "build", tmp_path / "build")
    artifact = tmp_path / "build" / "motion_make_fp32.tflite"
    data = bytearray(artifact.read_bytes())
    data[len(data) // 2] ^= 0xFF
    artifact.write_bytes(data)
    assert "NOT verified" in mvtool(tmp_path, "verify", "build", status=7).stdout
    assert "has the hash" in mvtool(tmp_path, "run", "build", folder / "clip.mp4", status=9).stderr


def test_errors_keep_their_codes(folder: Path) -> None:
    assert "does not exist" in mvtool(folder, "run", "build", "nowhere.mp4", status=10).stderr
    assert "no artifact" in mvtool(folder, "run", "build", "clip.mp4", "--precision", "int8", status=2).stderr
    assert "nonsense" in mvtool(folder, "convert", "nonsense", status=3).stderr
    assert "not a build folder" in mvtool(folder, "verify", "nowhere", status=9).stderr
    assert (
        "not a build" in mvtool(folder, "convert", "motion:make", "--input", "1x3x32x32", "--out", ".", status=2).stderr
    )
