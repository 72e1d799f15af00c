"""Workers end with their parent, also if that is killed. Everything here is a real process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interrupts import alive

from mvtool.converters.supervisor import WORKER
from mvtool.parent import PARENT_VARIABLE

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")

WORKER_SCRIPT = """
import os, sys, time
from mvtool.parent import end_with_parent
end_with_parent(told_by_kernel={by_kernel})
os.mkdir(os.path.join(sys.argv[1], f"pid{{os.getpid()}}"))
time.sleep(60)
"""
PARENT_SCRIPT = """
from pathlib import Path
from mvtool.converters.jobs import Job
from mvtool.converters.supervisor import Supervisor
Supervisor(Path({folder!r}), 1, 60.0, print, {command!r}).run({{"job": Job(kind="emit", program="")}}, {{}})
"""


@pytest.mark.parametrize("by_kernel", [sys.platform == "linux", False])
def test_a_worker_ends_with_its_killed_parent(by_kernel: bool, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER_SCRIPT.format(by_kernel=by_kernel))
    command = [sys.executable, str(tmp_path / "worker.py")]
    parent = PARENT_SCRIPT.format(folder=str(tmp_path / "jobs"), command=command)
    deadline = time.monotonic() + 30
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        while not (marks := list(tmp_path.glob("jobs/job/pid*"))) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert marks
        assert alive(int(marks[0].name[3:]))
        process.kill()
    while alive(int(marks[0].name[3:])) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(int(marks[0].name[3:]))


@pytest.mark.parametrize("command", [[*WORKER, "none"], [sys.executable, "-m", "mvtool.verification.worker"]])
def test_a_worker_whose_parent_is_gone_already_does_nothing(command: list[str]) -> None:
    gone = {PARENT_VARIABLE: str(os.getppid())}
    result = subprocess.run(
        command, env={**os.environ, **gone}, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 1
    assert "The process that started this worker is gone" in result.stderr
