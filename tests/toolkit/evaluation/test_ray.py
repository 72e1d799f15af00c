"""An evaluation on a real Ray cluster of this machine: what its workers answer, and one that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mvtool.build import Build
from mvtool.errors import UsageError, VideoError
from mvtool.evaluation import evaluate as evaluating
from mvtool.evaluation import workers
from mvtool.evaluation.evaluate import evaluate
from mvtool.evaluation.task import Shard, Task, evaluate_shard, unpacked
from mvtool.ports import Precision, Runtime

ray: Any = pytest.importorskip("ray")
pytestmark = pytest.mark.slow
FP32 = (Runtime.TFLITE, Precision.FP32)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster in processes of its own."""
    program = str(Path(sys.executable).parent / "ray")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RAY_USAGE_STATS_ENABLED": "0"}
    start = (program, "start", "--head", "--port=6399", "--num-cpus=2", "--include-dashboard=false")
    subprocess.run(start, env=environment, check=True, capture_output=True, timeout=120)
    yield "127.0.0.1:6399"
    subprocess.run((program, "stop", "--force"), check=True, capture_output=True, timeout=120)


def test_a_cluster_answers_as_this_process(
    build: Build, dataset: str, out: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "CLIPS_PER_SHARD", 2)
    here = evaluate(build, [FP32], dataset, out)
    there = evaluate(build, [FP32], dataset, out.with_name("there"), workers=workers.on_ray(cluster))
    assert here == there


def _killed_in_the_middle(task: Task, archive: bytes, clips: range) -> Shard:
    mark = Path(task.dataset).parent / "killed"
    shard = evaluate_shard(task, unpacked(archive), clips)
    if clips.start == 4 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return shard


def test_a_killed_worker_costs_no_clip_and_counts_none_twice(
    build: Build, dataset: str, out: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "CLIPS_PER_SHARD", 2)
    here = evaluate(build, [FP32], dataset, out)
    monkeypatch.setattr(workers, "_play_archive", _killed_in_the_middle)
    seen: list[int] = []
    there = evaluate(
        build,
        [FP32],
        dataset,
        out.with_name("there"),
        workers=workers.on_ray(cluster),
        progress=lambda done, total: seen.append(done),
    )
    assert (Path(dataset).parent / "killed").exists()
    assert here == there
    assert sorted(seen) == seen
    assert seen[-1] == 9
    assert len(list((out.with_name("there") / "shards").iterdir())) == 5


def test_what_a_worker_says_arrives_as_it_was_said(build: Build, out: Path, cluster: str, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "list.csv").write_text("path,label\nbad.mp4,0\n")
    with pytest.raises(VideoError, match=r"^\S+/bad.mp4: "):
        evaluate(build, [FP32], str(tmp_path / "list.csv"), out, workers=workers.on_ray(cluster))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:port"])
def test_no_cluster(build: Build, dataset: str, out: Path, address: str) -> None:
    with pytest.raises(UsageError, match=rf"No Ray cluster answers at '{address}'.*HOST:PORT"):
        evaluate(build, [FP32], dataset, out, workers=workers.on_ray(address))
