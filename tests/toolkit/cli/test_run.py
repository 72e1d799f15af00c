from __future__ import annotations

import json
from pathlib import Path

import pytest
import sample_videos
from click.testing import CliRunner, Result
from fake_session import FakeSession, manifest
from sample_videos import encode

from mvtool import runtimes
from mvtool.cli.run import command
from mvtool.errors import UsageError, VideoError


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Four seconds: twenty steps at the model's five frames per second."""
    return encode(tmp_path / "clip.mp4", 40, muxer_options={"movflags": "faststart"})


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """A fake session stands in for the artifact; holds what was asked to be opened."""
    asked: list[tuple[object, ...]] = []

    def open_artifact(*arguments: object) -> FakeSession:
        asked.append(arguments)
        return FakeSession(manifest(untrained=True))

    monkeypatch.setattr(runtimes, "open_artifact", open_artifact)
    return asked


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_labels_over_time(clip: Path) -> None:
    result = run("build", clip, "--top", 2)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "colours · tflite fp32 · fake engine · untrained weights"
    # One line per second of the four.
    assert [line.split(" s  ")[0].strip() for line in lines[1:5]] == ["0.00", "1.00", "2.00", "3.00"]
    assert all("[untrained weights]" in line for line in lines[1:5])
    assert lines[5].startswith("20 steps, ")
    assert lines[5].endswith("untrained weights")


def test_choices_are_passed_on(clip: Path, opened: list[tuple[object, ...]]) -> None:
    run("build", clip, "--runtime", "executorch", "--precision", "int8", "--threads", 3)
    assert opened == [(Path("build"), "executorch", "int8", 3)]


def test_every_and_limit(clip: Path) -> None:
    lines = run("build", clip, "--every", 0, "--limit", 3).stdout.splitlines()
    assert sum(" s  " in line for line in lines) == 3
    assert any(line.startswith("3 steps") for line in lines)


def test_json_lines_to_a_file(clip: Path, tmp_path: Path) -> None:
    assert run("build", clip, "--jsonl", tmp_path / "out.jsonl").exit_code == 0
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [r["kind"] for r in records] == ["header", *["step"] * 20, "end"]
    assert records[0]["untrained"] is True
    assert records[-1]["complete"] is True


def test_json_lines_to_stdout_and_nothing_else(clip: Path) -> None:
    result = run("build", clip, "--jsonl", "-", "--limit", 2)
    assert [json.loads(line)["kind"] for line in result.stdout.splitlines()] == ["header", "step", "step", "end"]


def test_plot(clip: Path, tmp_path: Path) -> None:
    assert run("build", clip, "--plot", tmp_path / "out.png").exit_code == 0
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_that_cannot_be_drawn_is_told_before_the_run(clip: Path, opened: list[tuple[object, ...]]) -> None:
    result = run("build", clip, "--plot", "out.mp4")
    assert isinstance(result.exception, UsageError)
    assert not opened


def test_a_video_that_breaks_off_leaves_what_was_seen(clip: Path, tmp_path: Path) -> None:
    broken = sample_videos.cut(clip, tmp_path / "broken.mp4", 0.6)
    result = run("build", broken, "--jsonl", tmp_path / "out.jsonl", "--plot", tmp_path / "out.png")
    assert isinstance(result.exception, VideoError)
    assert "broken off" in str(result.exception)
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert records[-1]["complete"] is False
    assert len(records) > 3
    assert (tmp_path / "out.png").is_file()


@pytest.mark.parametrize("arguments", [["--top", "0"], ["--limit", "0"], ["--frame-rate", "0"], ["--runtime", "onnx"]])
def test_absurd_options(clip: Path, arguments: list[str]) -> None:
    assert run("build", clip, *arguments).exit_code == 2
