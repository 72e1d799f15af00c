from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mvtool.datasets.files import VideoFiles
from mvtool.datasets.motion import MotionVideos
from mvtool.datasets.spec import parse
from mvtool.errors import UsageError, VideoError


def clip(path: Path, frames: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.full((frames, 4, 6, 3), len(path.name), np.uint8))
    return path


def test_generated_clips() -> None:
    assert parse("motion") == MotionVideos()
    assert parse("motion:split=train,clips=7,size=48,seed=3") == MotionVideos(clips=7, size=48, split="train", seed=3)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("motion:speed=3", "'speed=3'; expected NAME=VALUE"),
        ("motion:clips", "'clips'; expected NAME=VALUE"),
        ("motion:clips=many", "clips is 'many'; expected a whole number"),
        ("motion:split=other", "expected one of train, validation, test"),
        ("nowhere", "'nowhere' is neither a folder .* nor a CSV file, nor motion"),
    ],
)
def test_what_cannot_be_read(spec: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse(spec)


def test_a_folder_of_classes(tmp_path: Path) -> None:
    clip(tmp_path / "bowling" / "x.npy")
    clip(tmp_path / "archery" / "b.npy", frames=2)
    clip(tmp_path / "archery" / "a.npy")
    videos = parse(str(tmp_path))
    assert isinstance(videos, VideoFiles)
    assert videos.labels == ("archery", "bowling")
    assert [(videos.name(i), videos.label(i)) for i in range(len(videos))] == [
        ("archery/a.npy", 0),
        ("archery/b.npy", 0),
        ("bowling/x.npy", 1),
    ]
    assert [frame.shape for frame in videos.frames_of(1)] == [(4, 6, 3)] * 2


def test_a_folder_without_classes(tmp_path: Path) -> None:
    clip(tmp_path / "a.npy")
    with pytest.raises(VideoError, match="one subfolder per class"):
        parse(str(tmp_path))


def test_a_list_with_names(tmp_path: Path) -> None:
    clip(tmp_path / "v" / "a.npy")
    clip(tmp_path / "v" / "b.npy")
    (tmp_path / "list.csv").write_text("label,path\nrun,v/b.npy\njump,v/a.npy\n")
    videos = parse(str(tmp_path / "list.csv"))
    assert videos.labels == ("jump", "run")
    assert [videos.label(i) for i in range(2)] == [1, 0]


def test_a_list_with_numbers(tmp_path: Path) -> None:
    clip(tmp_path / "a.npy")
    (tmp_path / "list.csv").write_text("path,label\na.npy,11\na.npy,2\n")
    videos = parse(str(tmp_path / "list.csv"))
    assert videos.labels == tuple(map(str, range(12)))
    assert [videos.label(i) for i in range(2)] == [11, 2]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,label\na.npy,1\n", "no column path"),
        ("", "no column path and no column label"),
        ("path,label\n", "lists no video"),
        ("path,label\nb.npy,1\n", "line 2: there is no .*b.npy"),
        ("path,label\na.npy,\n", "line 2: .* the label ''"),
    ],
)
def test_broken_lists(tmp_path: Path, text: str, told: str) -> None:
    clip(tmp_path / "a.npy")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(VideoError, match=told):
        parse(str(tmp_path / "list.csv"))


def test_a_file_that_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(bytes(range(128, 256)))
    with pytest.raises(VideoError, match="is no CSV file"):
        parse(str(tmp_path / "model.tflite"))
