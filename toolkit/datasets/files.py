"""Labelled video files: a folder with one subfolder per class, or a list in a CSV file.

videos/archery/a.mp4, videos/bowling/b.mp4 ...      the class is the name of the subfolder
list.csv: path,label                                paths relative to the CSV file; the label is a name or a number
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvtool import video
from mvtool.errors import VideoError

COLUMNS = ("path", "label")


@dataclass(frozen=True)
class VideoFiles:
    """Videos on disk.

    Attributes:
        labels: Names of the classes.
        paths: One source per video, see `mvtool.video.frames`.
        classes: Class of each.
    """

    labels: tuple[str, ...]
    paths: tuple[Path, ...]
    classes: tuple[int, ...]

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.paths)

    def label(self, index: int) -> int:
        """Class of a video."""
        return self.classes[index]

    def name(self, index: int) -> str:
        """Its last two names, without the folders of this machine."""
        return "/".join(self.paths[index].parts[-2:])

    def frames_of(self, index: int, frame_rate: float | None = None) -> Iterator[NDArray[np.uint8]]:
        """Decode a video.

        Args:
            index: Which.
            frame_rate: Frames per second to give; None for all of them.

        Raises:
            VideoError: It cannot be read.
        """
        return (frame.image for frame in video.frames(self.paths[index], frame_rate=frame_rate))


def from_folder(root: Path) -> VideoFiles:
    """Subfolders as classes, in the order of their names.

    Raises:
        VideoError: No subfolder holds a video.
    """
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [(path, number) for number, name in enumerate(names) for path in video.clips(root / name)]
    if not found:
        raise VideoError(
            f"The folder {root} has no subfolders with videos; expected one subfolder per class, named like the class."
        )
    paths, classes = zip(*found, strict=True)
    return VideoFiles(tuple(names), paths, classes)


def from_csv(path: Path) -> VideoFiles:
    """A list with the columns `path` and `label`.

    Labels that are all whole numbers are class numbers, and the classes are then named by them.

    Raises:
        VideoError: A column, a label or a video is missing.
    """
    try:
        rows = _rows(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise VideoError(
            f"{path} is no CSV file: {error}. Give a list with the columns {' and '.join(COLUMNS)}."
        ) from error
    for line, (name, label) in enumerate(rows, start=2):
        if not label or not name:
            raise VideoError(f"{path}, line {line}: the path is {name!r} and the label {label!r}; both are needed.")
        if not (path.parent / name).exists():
            raise VideoError(f"{path}, line {line}: there is no {path.parent / name}. Paths are relative to the list.")
    labels = _label_names([label for _, label in rows])
    numbers = {label: number for number, label in enumerate(labels)}
    return VideoFiles(labels, tuple(path.parent / name for name, _ in rows), tuple(numbers[label] for _, label in rows))


def _rows(path: Path) -> list[tuple[str, str]]:
    """Path and label of each line."""
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise VideoError(
                f"{path} has no column {' and no column '.join(missing)}; its first line must name "
                f"{' and '.join(COLUMNS)}, got {reader.fieldnames or 'nothing'}."
            )
        rows = [(row["path"] or "", (row["label"] or "").strip()) for row in reader]
    if not rows:
        raise VideoError(f"{path} lists no video; expected one per line below the names of the columns.")
    return rows


def _label_names(labels: Sequence[str]) -> tuple[str, ...]:
    if all(label.isdecimal() for label in labels):
        return tuple(str(number) for number in range(max(map(int, labels)) + 1))
    return tuple(sorted(set(labels)))
