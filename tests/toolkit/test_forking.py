"""Processes forked from a template: their streams, their ends, and what happens when one side goes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from interrupts import alive

from mvtool.forking import ForkedProcess, Template, TemplateGone, available

pytestmark = pytest.mark.skipif(not available(), reason="forks on Linux only")
WORK, PREPARE = "forked_work:work", "forked_work:prepare"


@pytest.fixture
def template() -> Iterator[Template]:
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    made = Template(("forked_work", "no_such_module"), {"PYTHONPATH": path, "MARK": "here"})
    yield made
    made.close()


def outcome(process: ForkedProcess) -> tuple[str, int]:
    assert process.stdout is not None
    with process.stdout as stream:
        text = stream.read().decode().strip()
    return text, process.wait()


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_a_copy_has_what_was_prepared_and_streams_of_its_own(template: Template, tmp_path: Path) -> None:
    template.prepare(PREPARE, "one")
    template.prepare(PREPARE, "fail")
    with (tmp_path / "log").open("wb") as log:
        assert outcome(template.start(WORK, "", log)) == ("one True here", 0)
        template.prepare(PREPARE, "two")
        assert outcome(template.start(WORK, "three", log)) == ("one,two True here", 3)
    assert (tmp_path / "log").read_text() == "to the log\n" * 2
    assert template.cpu_seconds > 0


def test_input_reaches_it(template: Template, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = template.start(WORK, "echo", log, stdin=True)
        assert process.stdin is not None
        with process.stdin as stream:
            stream.write(b"hello\n")
        assert outcome(process)[0].startswith("hello")


@pytest.mark.parametrize(("how", "code"), [("crash", -signal.SIGSEGV), ("raise", 1)])
def test_failures_end_the_copy_alone(template: Template, tmp_path: Path, how: str, code: int) -> None:
    with (tmp_path / "log").open("wb") as log:
        assert outcome(template.start(WORK, how, log))[1] == code
        assert outcome(template.start(WORK, "", log))[1] == 0
    assert ("RuntimeError: as told" in (tmp_path / "log").read_text()) == (how == "raise")


def test_a_kill_reaches_what_the_copy_started(template: Template, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = template.start(WORK, "sleep", log)
        assert process.stdout is not None
        children = [int(process.stdout.readline()) for _ in range(2)]
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert all(gone(pid) for pid in children)
    process.stdout.close()


def test_copies_end_with_the_template(template: Template, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = template.start(WORK, "sleep", log)
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(template.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert gone(process.pid)
        with pytest.raises(TemplateGone):
            template.start(WORK, "", log)
    process.stdout.close()
