"""Jobs that crash, hang or die are told apart, and the others finish. The workers here are real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from interrupts import alive, interruptible_children

from mvtool.converters.jobs import Job, JobResult
from mvtool.converters.progress import StageEvent
from mvtool.converters.supervisor import WORKER as REAL_WORKER
from mvtool.converters.supervisor import JobFailure, Outcome, Supervisor
from mvtool.ports import Precision, Runtime

WORKER = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
def tell(**line):
    print(json.dumps(line), flush=True)
tell(stage="emit", status="start")
print("converter noise", file=sys.stderr, flush=True)
how = job["program"]
if how == "crash": os.kill(os.getpid(), signal.SIGSEGV)
if how == "memory": os.kill(os.getpid(), signal.SIGKILL)
if how == "hang":
    child = os.fork()
    (folder / f"pid{os.getpid()}").touch()
    time.sleep(60)
if how == "error":
    tell(stage="emit", status="failed", message="op foo has no form", error="ConversionError")
    sys.exit(1)
if how == "silent": sys.exit(3)
if how == "noise": print("not json", flush=True)
tell(stage="emit", status="done", seconds=0.1)
(folder / "result.json").write_text("{}")
"""


def ends(pid: int, within_s: float = 10.0) -> bool:
    """Whether a process that was killed is gone; the kernel may take a moment to end it."""
    deadline = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


@pytest.fixture
def worker(tmp_path: Path) -> list[str]:
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    return [sys.executable, str(script)]


def run(
    worker: list[str],
    tmp_path: Path,
    names: dict[str, str],
    needs: dict[str, str] | None = None,
    timeout_s: float = 20.0,
) -> tuple[dict[str, Outcome], list[StageEvent]]:
    events: list[StageEvent] = []
    jobs = {
        name: Job(kind="emit", program=how, target=Runtime.TFLITE, precision=Precision.FP32)
        for name, how in names.items()
    }
    supervisor = Supervisor(tmp_path / "jobs", 2, timeout_s, events.append, worker)
    return supervisor.run(jobs, needs or {}), events


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("crash", "crashed with SIGSEGV"),
        ("memory", "lack of memory"),
        ("silent", "ended with exit code 3"),
        ("error", "op foo has no form"),
    ],
)
def test_a_dead_worker_is_explained_and_the_others_finish(
    how: str, words: str, worker: list[str], tmp_path: Path
) -> None:
    outcomes, events = run(worker, tmp_path, {"bad": how, "good": "fine", "noisy": "noise"})
    failure = outcomes["bad"]
    assert isinstance(failure, JobFailure)
    assert words in failure.message
    assert failure.stage == "emit"
    assert isinstance(outcomes["good"], JobResult)
    assert isinstance(outcomes["noisy"], JobResult)
    assert [e.status for e in events].count("failed") == 1


def test_the_log_of_a_crash_is_quoted(worker: list[str], tmp_path: Path) -> None:
    outcomes, _ = run(worker, tmp_path, {"bad": "crash"})
    failure = outcomes["bad"]
    assert isinstance(failure, JobFailure)
    assert "converter noise" in failure.message


def test_a_hang_ends_at_the_stage_timeout_with_everything_it_started(worker: list[str], tmp_path: Path) -> None:
    began = time.monotonic()
    outcomes, _ = run(worker, tmp_path, {"bad": "hang", "good": "fine"}, timeout_s=2.0)
    failure = outcomes["bad"]
    assert isinstance(failure, JobFailure)
    assert "took longer than 2 s" in failure.message
    assert "--stage-timeout" in failure.message
    assert time.monotonic() - began < 20
    for mark in (tmp_path / "jobs" / "bad").glob("pid*"):
        assert ends(int(mark.name[3:]))


def test_modules_in_the_users_folder_do_not_replace_pythons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("random", "queue", "pickle", "inspect"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken from the folder of the user')")
    monkeypatch.chdir(tmp_path)
    outcomes, _ = run(list(REAL_WORKER), tmp_path, {"bad": "no/such/program"})
    failure = outcomes["bad"]
    assert isinstance(failure, JobFailure)
    assert failure.stage == "load"
    assert "no/such/program" in failure.message


def test_what_needs_a_failed_job_is_not_tried(worker: list[str], tmp_path: Path) -> None:
    outcomes, _ = run(worker, tmp_path, {"first": "error", "second": "fine"}, needs={"second": "first"})
    failure = outcomes["second"]
    assert isinstance(failure, JobFailure)
    assert "not tried" in failure.message
    assert not (tmp_path / "jobs" / "second").exists()


def test_an_interrupt_stops_the_workers(worker: list[str], tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from mvtool.converters.jobs import Job
from mvtool.converters.supervisor import Supervisor
Supervisor(Path({str(tmp_path / "jobs")!r}), 1, 60.0, lambda event: print("stage", flush=True), {worker!r}).run(
    {{"bad": Job(kind="emit", program="hang")}}, {{}})
"""
    with (
        interruptible_children(),
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"stage\n"
        deadline = time.monotonic() + 20
        while not list((tmp_path / "jobs" / "bad").glob("pid*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
    assert process.returncode not in (0, None)
    marks = list((tmp_path / "jobs" / "bad").glob("pid*"))
    assert marks
    for mark in marks:
        assert ends(int(mark.name[3:]))
