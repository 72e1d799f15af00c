from __future__ import annotations

import io

import pytest
from rich.console import Console

from mvtool.cli import progress
from mvtool.converters.progress import StageEvent

EVENTS = [
    StageEvent(None, None, "load", "start"),
    StageEvent(None, None, "load", "done", 1.25),
    StageEvent("tflite", "int8", "emit", "start"),
    StageEvent("coreml", "fp32", "emit", "failed", 2.0, "coremltools was killed"),
    StageEvent("tflite", "int8", "emit", "done", 3.5, "1 delegate"),
]


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 0.0, 1.3, 1.4, 3.4, 4.9])
    view = progress.PlainView(clock=lambda: next(times))
    with view:
        for event in EVENTS:
            view(event)
    assert capsys.readouterr().err.splitlines() == [
        "[   0.0 s] all targets · load start",
        "[   1.3 s] all targets · load done 1.2 s",
        "[   1.4 s] tflite int8 · emit start",
        "[   3.4 s] coreml fp32 · emit failed 2.0 s: coremltools was killed",
        "[   4.9 s] tflite int8 · emit done 3.5 s: 1 delegate",
    ]


def test_quiet_view_tells_failures(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.view(quiet=True) as view:
        for event in EVENTS:
            view(event)
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 1
    assert "coremltools was killed" in shown[0]


def test_live_table() -> None:
    stream = io.StringIO()
    to = Console(file=stream, width=100, force_terminal=True, color_system=None)
    with progress.LiveView(to) as view:
        for event in EVENTS:
            view(event)
    last = stream.getvalue().split("\x1b[2K")[-1]
    rows = {line[3:14].strip(): line for line in last.splitlines() if line[:1] in "✓✗…"}
    assert set(rows) == {"all targets", "coreml fp32", "tflite int8"}
    assert rows["tflite int8"].startswith("✓")
    assert "emit 3.5" in rows["tflite int8"]
    assert rows["coreml fp32"].startswith("✗")
    assert "coremltools was killed" in last


def test_a_row_under_way_shows_what_runs() -> None:
    row = progress._Row()
    row.stages["load"] = ("done", 2.0, 0.0)
    row.stages["emit"] = ("start", None, 0.0)
    assert row.status == "start"
    assert progress._stages(row).plain.startswith("load 2.0 · emit ")


def test_files_get_the_plain_view() -> None:
    assert isinstance(progress.view(), progress.PlainView)
