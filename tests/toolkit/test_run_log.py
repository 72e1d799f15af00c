from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from fake_session import FakeSession, manifest
from sample_videos import encode

from mvtool import run_log, running
from mvtool.errors import VideoError


@pytest.fixture
def result(tmp_path: Path) -> running.Run:
    return running.run(FakeSession(manifest(untrained=True)), encode(tmp_path / "clip.mp4", 20))


def records(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def break_off(log: run_log.RunLog, result: running.Run) -> None:
    log.add(next(result.steps))
    raise VideoError("clip.mp4 is broken off")


def test_header_steps_end(tmp_path: Path, result: running.Run) -> None:
    target = tmp_path / "run.jsonl"
    with run_log.to_file(target, result.header) as log:
        for step in result.steps:
            assert not target.exists()
            log.add(step)
    found = records(target.read_text(encoding="utf-8"))
    assert [r["kind"] for r in found] == ["header", *["step"] * 10, "end"]
    assert found[-1] == {"kind": "end", "steps": 10, "complete": True, "reason": None}
    assert all(r.get("warning") == "untrained weights" for r in found[:-1])


def test_steps_before_an_error_are_kept(tmp_path: Path, result: running.Run) -> None:
    target = tmp_path / "run.jsonl"
    with pytest.raises(VideoError, match="broken off"), run_log.to_file(target, result.header) as log:
        break_off(log, result)
    assert records(target.read_text())[-1] == {
        "kind": "end",
        "steps": 1,
        "complete": False,
        "reason": "clip.mp4 is broken off",
    }


def test_a_defect_leaves_no_file(tmp_path: Path, result: running.Run) -> None:
    target = tmp_path / "run.jsonl"
    with pytest.raises(ZeroDivisionError), run_log.to_file(target, result.header):
        raise ZeroDivisionError
    assert not list(tmp_path.glob("*run.jsonl*"))


def test_interrupted_stream(result: running.Run) -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), run_log.to_stream(stream, result.header):
        raise KeyboardInterrupt
    assert records(stream.getvalue())[-1]["reason"] == "interrupted"
