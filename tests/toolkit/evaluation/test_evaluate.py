from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from mvtool import runtimes
from mvtool.build import Build
from mvtool.datasets.spec import parse
from mvtool.errors import RuntimeLoadError, UsageError, VideoError
from mvtool.evaluation import evaluate as evaluating
from mvtool.evaluation import workers
from mvtool.evaluation.answers import answer, prepared, rank
from mvtool.evaluation.evaluate import evaluate
from mvtool.evaluation.result import EVALUATION_SCHEMA, result
from mvtool.evaluation.task import REFERENCE, Shard, Subject, Task, evaluate_shard, plan, shards
from mvtool.ports import Precision, Runtime
from mvtool.running import run
from mvtool.schemas import published

FP32, INT8 = (Runtime.TFLITE, Precision.FP32), (Runtime.TFLITE, Precision.INT8)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluating, "CLIPS_PER_SHARD", 2)


@pytest.mark.parametrize(("label", "expected"), [(0, 2), (1, 0), (2, 1), (3, 3)])
def test_equal_scores_stand_in_the_order_of_the_classes(label: int, expected: int) -> None:
    scores = np.array([0.2, 0.3, 0.3, 0.2])
    assert rank(scores, label) == expected
    assert np.argsort(-scores, kind="stable")[expected] == label


def test_answers_are_those_of_run(build: Build, dataset: str) -> None:
    videos = parse(dataset)
    source = Path(dataset).parent / "4.npy"
    session = runtimes.open_file(build.path(build.artifact(*INT8)))
    ranks = answer(session, prepared(session, videos.frames_of(4)), 2)
    steps = list(run(session, source, top_k=4).steps)
    assert ranks.tolist() == [[score.class_index for score in step.top].index(2) for step in steps]
    assert answer(session, prepared(session, videos.frames_of(4), 3), 2).tolist() == ranks[:3].tolist()


def test_no_more_frames_are_read_than_are_played(build: Build) -> None:
    def endless() -> Iterator[NDArray[np.uint8]]:
        for _ in range(3):
            yield np.zeros((40, 48, 3), np.uint8)
        raise AssertionError

    session = runtimes.open_file(build.path(build.artifact(*FP32)))
    assert len(prepared(session, endless(), 3)) == 3


def test_an_evaluation(build: Build, dataset: str, out: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = evaluate(
        build, [FP32, INT8], dataset, out, reference=True, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(0, 9), (2, 9), (4, 9), (6, 9), (8, 9), (9, 9)]
    assert [subject.name for subject in found.subjects] == [REFERENCE, "tflite fp32", "tflite int8"]
    assert [(pair.base, pair.new) for pair in found.comparisons] == [
        (REFERENCE, "tflite fp32"),
        ("tflite fp32", "tflite int8"),
        (REFERENCE, "tflite int8"),
    ]
    # Clips of 3, 4, 5, 6, 7, 3, 4, 5, 6 frames.
    assert [step.clips for step in found.subjects[0].steps] == [9, 9, 9, 7, 5, 3, 1]
    exact = found.comparisons[0]
    assert (exact.final.only_base, exact.final.only_new) == (0, 0)
    written = json.loads((out / "evaluation.json").read_text())
    jsonschema.validate(written, published(EVALUATION_SCHEMA))
    assert written["subjects"][1]["sha256"] == build.artifact(*FP32).sha256


def test_every_number_follows_from_the_ranks() -> None:
    subjects = (Subject("tflite fp32", "a", "0"), Subject("tflite int8", "b", "1"))
    task = Task("m", subjects, "d", 3, "0", (0, 1), None, None)
    # Two clips of one and two steps, then one of two.
    ranks = np.array([[0, 1, 0], [1, 0, 0]], np.uint16)
    first = Shard(0, np.array([1, 2], np.uint32), ranks)
    last = np.array([[6, 5], [0, 4]], np.uint16)
    second = Shard(2, np.array([2], np.uint32), last)
    found = result(task, [first, second], 1)
    fp32, int8 = found.subjects
    assert (fp32.final.top1.value, fp32.final.top5.value) == (2 / 3, 2 / 3)
    assert (int8.final.top1.value, int8.final.top5.value) == (1 / 3, 1.0)
    assert [step.clips for step in fp32.steps] == [3, 2]
    assert [step.top1.value for step in fp32.steps] == [1 / 3, 1 / 2]
    (pair,) = found.comparisons
    assert (pair.final.only_base, pair.final.only_new, pair.final.drop.value) == (1, 0, 1 / 3)
    assert [step.drop.value for step in pair.steps] == [1 / 3 - 2 / 3, 0.0]


def interrupted(parts: int) -> workers.Workers:
    def play(task: Task, folder: Path, missing: Sequence[range]) -> Iterator[Shard]:
        for clips in missing[:parts]:
            yield evaluate_shard(task, folder, clips)
        raise KeyboardInterrupt

    return play


def test_an_interrupted_evaluation_goes_on(build: Build, dataset: str, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(build, [FP32], dataset, out, workers=interrupted(2))
    kept = sorted((out / "shards").iterdir())
    assert [path.name for path in kept] == ["000000.npz", "000002.npz"]
    before = [path.read_bytes() for path in kept]
    seen: list[int] = []
    found = evaluate(build, [FP32], dataset, out, progress=lambda done, total: seen.append(done))
    assert seen == [4, 6, 8, 9]
    assert [path.read_bytes() for path in kept] == before
    assert found == evaluate(build, [FP32], dataset, out.with_name("again"))


@pytest.mark.parametrize("other", [{"clips": 8}, {"frames": 3}, {"reference": True}])
def test_another_evaluation_is_not_mixed_in(build: Build, dataset: str, out: Path, other: dict[str, int]) -> None:
    evaluate(build, [FP32], dataset, out, clips=9)
    with pytest.raises(UsageError, match="holds another evaluation"):
        evaluate(build, [FP32], dataset, out, **other)  # type: ignore[arg-type]


def test_a_broken_file_of_answers_is_told(build: Build, dataset: str, out: Path) -> None:
    evaluate(build, [FP32], dataset, out)
    (out / "shards" / "000004.npz").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"000004.npz cannot be read: .* Remove it"):
        evaluate(build, [FP32], dataset, out)


def test_more_clips_than_there_are(build: Build, dataset: str, out: Path) -> None:
    with pytest.raises(UsageError, match=r"asks for 10 clips, .* has 9"):
        evaluate(build, [FP32], dataset, out, clips=10)


def test_labels_that_the_model_does_not_know(build: Build, out: Path) -> None:
    with pytest.raises(UsageError, match=r"12 of the 12 labels of 'motion' are no classes of the model.*'class 0'"):
        evaluate(build, [FP32], "motion", out)


def test_a_clip_that_cannot_be_read_is_named(build: Build, out: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "list.csv").write_text("path,label\nbad.mp4,0\n")
    with pytest.raises(VideoError, match=r"/bad.mp4: "):
        evaluate(build, [FP32], str(tmp_path / "list.csv"), out)


def test_several_processes_answer_the_same(build: Build, dataset: str, out: Path) -> None:
    one = evaluate(build, [FP32, INT8], dataset, out)
    two = evaluate(build, [FP32, INT8], dataset, out.with_name("two"), workers=workers.local(2))
    assert one == two


def _dies_once(task: Task, folder: Path, clips: range) -> Shard:
    mark = folder / "died"
    if clips.start == 4 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return evaluate_shard(task, folder, clips)


def _dies(task: Task, folder: Path, clips: range) -> Shard:
    os.kill(os.getpid(), 9)
    raise AssertionError


def test_a_killed_process_costs_no_clip(build: Build, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = plan(build, [FP32], dataset)
    parts = shards(task, 2)
    monkeypatch.setattr(workers, "evaluate_shard", _dies_once)
    played = [shard.first for shard in workers.local(2)(task, build.folder, parts)]
    assert sorted(played) == [0, 2, 4, 6, 8]
    assert (build.folder / "died").exists()


def test_processes_that_always_die(build: Build, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = plan(build, [FP32], dataset)
    monkeypatch.setattr(workers, "evaluate_shard", _dies)
    with pytest.raises(RuntimeLoadError, match="killed 3 times in a row"):
        list(workers.local(2)(task, build.folder, shards(task, 2)))
