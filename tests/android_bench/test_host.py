"""This machine as a device: real processes, ended when they must be."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path

import pytest

from mvtool.android_bench.host import Host
from mvtool.bench.record import DeviceKind, Moment
from mvtool.errors import DeviceError, RunnerError


def script(folder: Path, text: str) -> Path:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    return path


def test_facts_and_readings_are_of_this_machine() -> None:
    facts = Host().facts()
    assert (facts.kind, facts.cores, facts.loopback) == (DeviceKind.HOST, os.cpu_count(), False)
    assert facts.memory_bytes > 2**28
    assert facts.name
    reading = Host().reading(Moment.DURING, 1.5)
    assert (reading.moment, reading.time_s) == (Moment.DURING, 1.5)
    assert reading.load_average is not None


def test_a_program_runs_in_the_folder_and_the_folder_is_gone_afterwards(tmp_path: Path) -> None:
    with Host().workspace() as space:
        space.put(script(tmp_path, 'echo "$WORD $1 $(pwd)"; echo done > out.txt'), "program", executable=True)
        printed = space.execute("program", ("argument",), {"WORD": "hello"}, 10)
        word, argument, folder = printed.split()
        assert (word, argument) == ("hello", "argument")
        assert space.get("out.txt") == b"done\n"
        space.remove("out.txt")
        space.remove("out.txt")
        with pytest.raises(RunnerError, match=r"wrote no out\.txt"):
            space.get("out.txt")
    assert not Path(folder).exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo no such state; exit 66", "ended with status 66.*no such state"),
        ("kill -SEGV $$", "crashed with SIGSEGV"),
    ],
)
def test_a_program_that_fails_is_named_with_what_it_printed(tmp_path: Path, text: str, message: str) -> None:
    with Host().workspace() as space:
        space.put(script(tmp_path, text), "program", executable=True)
        with pytest.raises(RunnerError, match=message):
            space.execute("program", (), {}, 10)


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    with Host().workspace() as space:
        space.put(script(tmp_path, "echo before; sleep 600 & echo $! > child; wait"), "program", executable=True)
        with pytest.raises(RunnerError, match="did not end within 1 seconds"):
            space.execute("program", (), {}, 1)
        child = int(space.get("child"))
    assert _gone(child)


def test_an_interrupt_from_another_thread_ends_the_program(tmp_path: Path) -> None:
    host = Host()
    with host.workspace() as space:
        space.put(script(tmp_path, "echo $$ > own; exec sleep 600"), "program", executable=True)
        threading.Timer(0.3, host.interrupt).start()
        with pytest.raises(DeviceError, match="interrupted"):
            space.execute("program", (), {}, 60)
        own = int(space.get("own"))
    assert _gone(own)


def _gone(number: int) -> bool:
    """Whether a process has ended; a zombie that nobody has waited for yet has."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_folders_of_killed_runs_are_removed_at_the_next_start() -> None:
    left = Path(tempfile.mkdtemp(prefix="mvtool-run-4194304-"))  # above the largest process number of Linux
    living = Path(tempfile.mkdtemp(prefix=f"mvtool-run-{os.getpid()}-"))
    with Host().workspace():
        assert not left.exists()
        assert living.exists()
    living.rmdir()
