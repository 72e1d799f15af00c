"""Queues, journals, and batches that are interrupted or killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fake_device import FakeDevice

from mvtool.android_bench.batch import Batch, Job, Journal, Queue, Report, State
from mvtool.bench.device import Device
from mvtool.bench.record import Moment, Reading
from mvtool.errors import DeviceError, ManifestError, RunnerError, UsageError


@dataclass
class Stand(FakeDevice):
    """A device that may be gone."""

    gone: bool = False

    def reading(self, moment: Moment, time_s: float) -> Reading:
        if self.gone:
            raise DeviceError("it does not answer")
        return super().reading(moment, time_s)


@dataclass
class StandJob:
    """Writes a file, after `act`."""

    key: str
    out: Path
    act: Callable[[], None] = field(default=lambda: None)
    runs: int = 0

    def run(self, device: Device) -> Path:
        self.runs += 1
        self.act()
        path = self.out / f"{self.key}.json"
        path.write_text(self.key)
        return path


def fail(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def states(reports: tuple[Report, ...]) -> list[tuple[str, str, State]]:
    return [(report.device, report.key, report.state) for report in reports]


def test_jobs_keep_the_contract(tmp_path: Path) -> None:
    job: Job = StandJob("a", tmp_path)
    assert job.run(FakeDevice(tmp_path)).read_text() == "a"


def test_each_device_works_through_its_jobs_in_order_at_the_same_time_as_the_others(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=30)
    order: list[str] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()

    def job(queue: str, key: str) -> StandJob:
        def act() -> None:
            if key == "a":
                both.wait()  # neither gets past here alone
            order.append(queue + key)

        return StandJob(key, tmp_path / queue, act)

    queues = [Queue(name, Stand(tmp_path), [job(name, key) for key in "abc"]) for name in ("one", "two")]
    told: list[str] = []
    reports = Batch(tmp_path / "journal.json", lambda report: told.append(report.device + report.key)).run(queues)
    assert states(reports) == [(name, key, State.DONE) for name in ("one", "two") for key in "abc"]
    assert [entry for entry in order if entry.startswith("one")] == ["onea", "oneb", "onec"]
    assert sorted(told) == sorted(order)
    assert reports[4].record == tmp_path / "two" / "b.json"


@pytest.mark.parametrize(
    "error", [RunnerError("it crashed"), DeviceError("its disk is full"), ZeroDivisionError("fault")]
)
def test_a_job_that_fails_does_not_stop_the_others(tmp_path: Path, error: Exception) -> None:
    jobs = [StandJob("a", tmp_path), StandJob("b", tmp_path, fail(error)), StandJob("c", tmp_path)]
    reports = Batch(tmp_path / "journal.json").run([Queue("phone", Stand(tmp_path), jobs)])
    assert [report.state for report in reports] == [State.DONE, State.FAILED, State.DONE]
    assert str(error) in reports[1].message
    assert reports[1].record is None
    assert not (tmp_path / "b.json").exists()


def test_a_lost_device_ends_only_its_own_queue(tmp_path: Path) -> None:
    lost, other = Stand(tmp_path), Stand(tmp_path)

    def lose() -> None:
        lost.gone = True
        raise DeviceError("the connection was lost")

    for name in ("lost", "other"):
        (tmp_path / name).mkdir()
    first = [StandJob("a", tmp_path / "lost"), StandJob("b", tmp_path / "lost", lose), StandJob("c", tmp_path / "lost")]
    second = [StandJob(key, tmp_path / "other") for key in "abc"]
    reports = Batch(tmp_path / "journal.json").run([Queue("lost", lost, first), Queue("other", other, second)])
    expected = [State.DONE, State.FAILED, State.NOT_RUN, State.DONE, State.DONE, State.DONE]
    assert [report.state for report in reports] == expected
    assert "lost was lost before: it does not answer" in reports[2].message
    assert first[2].runs == 0


def test_started_again_it_repeats_what_failed_and_what_was_not_run_alone(tmp_path: Path) -> None:
    journal = tmp_path / "journal.json"
    jobs = [StandJob("a", tmp_path), StandJob("b", tmp_path, fail(RunnerError("no"))), StandJob("c", tmp_path)]
    Batch(journal).run([Queue("phone", Stand(tmp_path), jobs)])
    stored = json.loads(journal.read_text())
    assert stored["schema"] == "mvtool.batch/1"
    assert stored["queues"]["phone"]["b"] == {"record": None, "error": "no"}
    jobs[1].act = lambda: None
    (tmp_path / "c.json").unlink()
    reports = Batch(journal).run([Queue("phone", Stand(tmp_path), jobs)])
    assert [(report.state, report.resumed) for report in reports] == [
        (State.DONE, True),
        (State.DONE, False),
        (State.DONE, False),
    ]
    assert [job.runs for job in jobs] == [1, 2, 2], "c's record was gone"
    assert Journal.load(journal).queues["phone"]["b"].error is None


def test_the_same_job_on_another_device_is_another_job(tmp_path: Path) -> None:
    job = StandJob("a", tmp_path)
    for name in ("one", "two"):
        Batch(tmp_path / "journal.json").run([Queue(name, Stand(tmp_path), [job])])
    assert job.runs == 2


def test_names_that_appear_twice_are_refused(tmp_path: Path) -> None:
    job = StandJob("a", tmp_path)
    batch = Batch(tmp_path / "journal.json")
    with pytest.raises(UsageError, match="phone: a"):
        batch.run([Queue("phone", Stand(tmp_path), [job, job])])
    with pytest.raises(UsageError, match="phone"):
        batch.run([Queue("phone", Stand(tmp_path), []), Queue("phone", Stand(tmp_path), [])])
    assert job.runs == 0


@pytest.mark.parametrize("text", ["", "{}x", '{"schema": "mvtool.batch/2"}', '{"queues": {}, "more": 1}'])
def test_a_file_that_is_no_journal(tmp_path: Path, text: str) -> None:
    path = tmp_path / "journal.json"
    path.write_text(text)
    with pytest.raises(ManifestError, match="no journal of a batch"):
        Batch(path)
    assert path.read_text() == text


INTERRUPTED = """
import sys, threading
from pathlib import Path
from test_batch import *

out = Path(sys.argv[1])
ended = threading.Event()


def act():
    (out / "working").touch()
    assert ended.wait(60)
    time.sleep(1.5)  # the clean-up takes its time
    (out / "cleaned").touch()
    raise DeviceError("the run was interrupted")


jobs = [StandJob("a", out), StandJob("b", out, act), StandJob("c", out)]
try:
    Batch(out / "journal.json").run([Queue("phone", Stand(out), jobs, ended.set)])
except KeyboardInterrupt:
    assert (out / "cleaned").exists(), "it did not wait"
    assert [job.runs for job in jobs] == [1, 1, 0]
    sys.exit(77)
"""


def test_an_interrupt_ends_every_queue_waits_for_its_clean_up_and_is_passed_on(tmp_path: Path) -> None:
    """A real signal; what it ended is as if it had not begun, not failed."""
    with started(INTERRUPTED, tmp_path) as process:
        wait_for(process, tmp_path / "working")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 77
    assert list(Journal.load(tmp_path / "journal.json").queues["phone"]) == ["a"]


def started(code: str, out: Path) -> subprocess.Popen[bytes]:
    """A Python process that can import this module."""
    folders = f"{Path(__file__).parent}:{Path(__file__).parents[1]}"
    environment = {"PYTHONPATH": folders, "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.Popen([sys.executable, "-c", code, str(out)], env=environment)


def wait_for(process: subprocess.Popen[bytes], *paths: Path) -> None:
    end = time.monotonic() + 120
    while not all(path.exists() for path in paths):
        assert process.poll() is None, "the process ended too early"
        assert time.monotonic() < end
        time.sleep(0.02)


KILLED = """
import sys, time
from pathlib import Path
from test_batch import *

out = Path(sys.argv[1])


def hang():
    (out / "hangs").touch()
    time.sleep(600)


def job(queue, key):
    return StandJob(key, out / queue, hang if (queue, key) == ("two", "b") else lambda: None)


queues = [Queue(name, Stand(out), [job(name, key) for key in "abc"]) for name in ("one", "two")]
Batch(out / "journal.json").run(queues)
"""


def test_a_killed_batch_goes_on_where_it_was(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with started(KILLED, tmp_path) as process:
        wait_for(process, tmp_path / "hangs", tmp_path / "one" / "c.json")
        time.sleep(0.2)  # for the journal entry of that record
        process.kill()
    done = Journal.load(tmp_path / "journal.json").queues
    assert (set(done["one"]), set(done["two"])) == (set("abc"), set("a"))
    queues = [
        Queue(name, Stand(tmp_path), [StandJob(key, tmp_path / name) for key in "abc"]) for name in ("one", "two")
    ]
    reports = Batch(tmp_path / "journal.json").run(queues)
    assert [report.state for report in reports] == [State.DONE] * 6
    assert [report.resumed for report in reports] == [True, True, True, True, False, False]
