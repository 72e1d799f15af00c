from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mvtool import demo_clip, video
from mvtool.cli import demo
from mvtool.datasets.spec import parse


def test_the_trained_model_gets_a_clip_of_its_kind(tmp_path: Path) -> None:
    videos = parse(demo.CLIP)
    assert videos.labels[videos.label(len(videos) - 1)] == "moves right, then down"
    source = demo._video(demo.MODEL, tmp_path)
    frames = [frame.image for frame in video.frames(source)]
    drawn = list(videos.frames_of(len(videos) - 1))
    assert len(frames) == len(drawn)
    assert frames[0].shape == (256, 256, 3)
    small = frames[3].reshape(64, 4, 64, 4, 3).mean((1, 3))
    # What compression leaves of a clip must still show the object.
    assert np.abs(small - drawn[3]).mean() < 6


def test_another_model_gets_the_bundled_clip(tmp_path: Path) -> None:
    assert demo._video("movinet_a0_stream", tmp_path) == str(demo_clip.path())


@pytest.mark.slow
def test_the_demo_labels_its_clip_rightly(tmp_path: Path) -> None:
    words = ["--out", str(tmp_path / "demo"), "--target", "tflite", "--precision", "fp32,int8", "--skip-verify"]
    result = CliRunner().invoke(demo.command, words)
    assert result.exit_code == 0, result.output
    assert "untrained" not in result.output
    for precision in ("fp32", "int8"):
        assert (tmp_path / "demo" / f"movinet_nano_motion_{precision}_tflite.png").exists()
    # The last line of each run tells the answer at the end of the clip.
    answers = [line.split("s  ", 1)[1] for line in result.output.splitlines() if " s  " in line]
    half = len(answers) // 2
    for told in (answers[:half], answers[half:]):
        assert told[-1].startswith("moves right, then down "), told
        assert told[0] != told[-1]
