"""What is evaluated on which clips, in a form that another process or another computer can be told."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import mvtool
from mvtool.build import Build
from mvtool.datasets.base import LabelledVideos
from mvtool.datasets.spec import parse
from mvtool.errors import UsageError, VideoError
from mvtool.evaluation.answers import Whole, answer, prepared
from mvtool.ports import PortManifest, Precision, Runtime
from mvtool.running import class_names
from mvtool.session import Session

REFERENCE = "pytorch fp32"
"""Name of the captured PyTorch program among the subjects; names of other such programs begin so too."""


@dataclass(frozen=True)
class Subject:
    """Something that answers.

    Attributes:
        name: Runtime and precision, or `REFERENCE`.
        file: Below the build folder.
        sha256: Of the file or folder.
    """

    name: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Task:
    """An evaluation; everything that decides its result.

    Attributes:
        model: Name of the model.
        subjects: What is evaluated, all on the same clips.
        dataset: Specification, see `mvtool.datasets.spec`.
        clips: The first so many of it.
        clips_sha256: Of the names and labels of these clips.
        classes: Position among the scores for each label of the data set.
        frames: Frames of each clip that are played at most; None for all.
        frame_rate: Frames per second at which videos are played; None for all frames.
        version: Of mvtool.
    """

    model: str
    subjects: tuple[Subject, ...]
    dataset: str
    clips: int
    clips_sha256: str
    classes: tuple[int, ...]
    frames: int | None
    frame_rate: float | None
    version: str = mvtool.__version__

    @property
    def key(self) -> str:
        """Hash of all of it: results with another key belong to another evaluation."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class Shard(NamedTuple):
    """Answers to some clips.

    Attributes:
        first: Index of the first clip.
        steps: Number of answers to each clip.
        ranks: `(subjects, sum of steps)`, see `mvtool.evaluation.answers.answer`.
    """

    first: int
    steps: NDArray[np.uint32]
    ranks: Whole


def plan(
    build: Build,
    artifacts: Sequence[tuple[Runtime, Precision]],
    dataset: str,
    *,
    reference: bool = False,
    clips: int | None = None,
    frames: int | None = None,
) -> Task:
    """Everything about an evaluation that has to be known before it starts.

    Args:
        build: The build.
        artifacts: Which of it.
        dataset: Specification of the data set.
        reference: Evaluate the captured PyTorch program too.
        clips: Only the first so many.
        frames: Play at most so many frames of each clip.

    Raises:
        UsageError: The labels of the data set are not those of the model, or there are fewer clips than asked for.
        VideoError: The data set holds no labelled videos.
    """
    entries = [build.artifact(runtime, precision) for runtime, precision in artifacts]
    subjects = [Subject(f"{e.runtime} {e.precision}", e.file, e.sha256) for e in entries]
    if reference:
        program = build.manifest.program
        subjects.insert(0, Subject(REFERENCE, program.file, program.sha256))
    return task_of(entries[0].ports, subjects, dataset, clips=clips, frames=frames)


def task_of(
    ports: PortManifest,
    subjects: Sequence[Subject],
    dataset: str,
    *,
    clips: int | None = None,
    frames: int | None = None,
) -> Task:
    """The same for subjects that are in no build.

    Args:
        ports: Of the model.
        subjects: What is evaluated.
        dataset: Specification of the data set.
        clips: Only the first so many.
        frames: Play at most so many frames of each clip.

    Raises:
        UsageError: As `plan`.
        VideoError: As `plan`.
    """
    videos = parse(dataset)
    count = len(videos) if clips is None else clips
    if count > len(videos):
        raise UsageError(f"--clips asks for {count} clips, the data set {dataset!r} has {len(videos)}.")
    names = hashlib.sha256()
    for index in range(count):
        names.update(f"{videos.name(index)}\0{videos.label(index)}\0".encode())
    return Task(
        model=ports.model,
        subjects=tuple(subjects),
        dataset=dataset,
        clips=count,
        clips_sha256=names.hexdigest(),
        classes=_classes(videos, class_names(ports), dataset),
        frames=frames,
        frame_rate=ports.frame_rate,
    )


def _classes(videos: LabelledVideos, known: tuple[str, ...], dataset: str) -> tuple[int, ...]:
    """Position among the scores for each label: by its name where the model has names, else by its number."""
    labels = videos.labels
    if all(label in known for label in labels):
        return tuple(known.index(label) for label in labels)
    numbers = all(label.isdecimal() for label in labels)
    if numbers and all(int(label) < len(known) for label in labels):
        return tuple(int(label) for label in labels)
    strange = [label for label in labels if label not in known]
    raise UsageError(
        f"{len(strange)} of the {len(labels)} labels of {dataset!r} are no classes of the model, for example {strange[0]!r}; its "
        f"classes are {', '.join(map(repr, known[:3]))}, ... ({len(known)}). Name them alike, give class numbers, or convert with "
        "--labels and a file that names the model's classes."
    )


def shards(task: Task, size: int) -> list[range]:
    """The clips in consecutive parts of at most `size`."""
    return [range(first, min(first + size, task.clips)) for first in range(0, task.clips, size)]


def evaluate_shard(task: Task, folder: Path, clips: range) -> Shard:
    """Play some clips to every subject.

    Args:
        task: The evaluation.
        folder: Holds the subjects' files.
        clips: Which.

    Raises:
        VideoError: A clip cannot be read; the message names it.
        RuntimeLoadError: A subject cannot be executed.
    """
    videos = _videos(task.dataset)
    sessions = [_session(subject, folder) for subject in task.subjects]
    ranks = []
    for index in clips:
        try:
            frames = prepared(sessions[0], videos.frames_of(index, task.frame_rate), task.frames)
        except VideoError as error:
            raise VideoError(f"{videos.name(index)}: {error}") from error
        label = task.classes[videos.label(index)]
        ranks.append(np.stack([answer(session, frames, label) for session in sessions]))
    steps = np.asarray([rows.shape[1] for rows in ranks], np.uint32)
    return Shard(clips.start, steps, np.concatenate(ranks, axis=1))


@cache
def _videos(dataset: str) -> LabelledVideos:
    return parse(dataset)


@cache
def _session(subject: Subject, folder: Path) -> Session:
    """Opened once per process: some runtimes take seconds to load."""
    from mvtool import runtimes

    if not subject.name.startswith(REFERENCE):
        return runtimes.open_file(folder / subject.file)
    from mvtool.converters.program_io import load_program
    from mvtool.runtimes.pytorch import open_program

    return open_program(load_program(folder / subject.file))


def packed(task: Task, folder: Path) -> bytes:
    """The subjects' files as one archive, for a computer that does not see the build folder."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for subject in task.subjects:
            archive.add(folder / subject.file, subject.file)
    return stream.getvalue()


@cache
def unpacked(archive: bytes) -> Path:
    """A temporary folder with the files of `packed`, kept until the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="mvtool-evaluate-")
    _KEPT.append(folder)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder.name, filter="data")
    return Path(folder.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []
