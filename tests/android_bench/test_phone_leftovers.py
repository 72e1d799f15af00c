"""What runs that were killed left on a phone is removed at the next start, and nothing else."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_adb import AdbServer
from loopback_phone import LoopbackPhone
from loopback_system import DATA

from mvtool.android_bench import phone, phone_folders
from mvtool.android_bench.adb import Adb
from mvtool.android_bench.phone import Phone
from mvtool.android_bench.phone_folders import OWNER_FILE, remove_leftovers
from mvtool.errors import DeviceError

KILLED = """
import sys
from pathlib import Path
from mvtool.android_bench.adb import Adb
from mvtool.android_bench.phone import Phone
program, serial, script = sys.argv[1:]
with Phone(Adb(Path(program), serial)).workspace() as space:
    space.put(Path(script), "run", executable=True)
    space.execute("run", (), {}, 600)
"""


def test_what_a_killed_process_left_is_removed_at_the_next_start(
    server: AdbServer, adb: Adb, loopback: LoopbackPhone, tmp_path: Path
) -> None:
    script = tmp_path / "run"
    script.write_text("#!/bin/sh\nexec sleep 600 > /dev/null\n")
    arguments = [str(server.program), loopback.serial, str(script)]
    command = [sys.executable, "-c", textwrap.dedent(KILLED), *arguments]
    with subprocess.Popen(command, env={**server.environment, "PYTHONDONTWRITEBYTECODE": "1"}) as process:
        end = time.monotonic() + 60
        while not any("./run" in command for command in loopback.commands):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        process.kill()
    assert loopback.files, "nobody could clean up"
    assert loopback.system.running() != []
    with Phone(adb).workspace() as space:
        assert {name.split("/")[0] for name in loopback.files} == {Path(space.folder).name}
        assert loopback.system.running(within_s=20) == [], "what still runs would disturb the measurement"
    assert loopback.files == []


@pytest.mark.parametrize(
    ("owner", "age_hours", "removed"),
    [
        ({}, 0, False),
        ({"pid": 1, "started": "other"}, 0, True),
        ({"host": "another computer"}, 0, False),
        ({"host": "another computer"}, 2, True),
        ({"boot": "before"}, 0, False),
        ({"boot": "before"}, 2, True),
        (None, 0, False),
        (None, 2, True),
    ],
)
def test_whose_folders_are_removed(
    adb: Adb, loopback: LoopbackPhone, owner: dict[str, object] | None, age_hours: int, removed: bool
) -> None:
    folder = loopback.system.data / f"mvtool-{'0' * 32}"
    folder.mkdir()
    if owner is not None:
        this = phone_folders.this_process()
        (folder / OWNER_FILE).write_text(json.dumps({**this, **owner}))
    for path in (*folder.iterdir(), folder):
        adb.shell(
            [
                "touch",
                "-d",
                f"@{time.time() - 3600 * age_hours:.0f}",
                f"{DATA}/{path.relative_to(loopback.system.data)}",
            ]
        )
    assert remove_leftovers(adb) == ((f"{DATA}/{folder.name}",) if removed else ())
    assert folder.exists() is not removed


def test_a_removal_that_was_cut_off_is_ended(adb: Adb, loopback: LoopbackPhone) -> None:
    folder = f"{DATA}/mvtool-{'2' * 32}.gone"
    adb.script(f"mkdir {folder}; : > {folder}/model.tflite; touch -d @0 {folder}/model.tflite {folder}")
    assert remove_leftovers(adb) == (folder,)
    assert loopback.files == []


def test_folders_with_other_names_are_left_alone(adb: Adb, loopback: LoopbackPhone) -> None:
    for name in ("mvtool-notes", "mvtool-0123", "other"):
        (loopback.system.data / name).mkdir()
        adb.shell(["touch", "-d", "@0", f"{DATA}/{name}"])
    assert remove_leftovers(adb) == ()
    assert loopback.files == ["mvtool-0123", "mvtool-notes", "other"]


def test_an_old_folder_where_a_program_of_another_computer_runs_is_left_alone(
    adb: Adb, loopback: LoopbackPhone, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = f"{DATA}/mvtool-{'1' * 32}"
    adb.script(f"mkdir {folder}; cd {folder}; sleep 600 > /dev/null 2>&1 & cd {DATA}; touch -d @0 {folder}")
    assert remove_leftovers(adb) == ()
    loopback.system.end_processes()
    assert remove_leftovers(adb) == (folder,)
    assert folder in caplog.text


@pytest.fixture
def other_process() -> Iterator[dict[str, object]]:
    """What the owner file of another mvtool on this computer says, while it runs."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield {**phone_folders.this_process(), "pid": process.pid, "started": phone_folders.started(process.pid)}
        process.kill()


def own(loopback: LoopbackPhone, owner: dict[str, object], name: str = "3" * 32) -> Path:
    """A folder of a process on the phone."""
    folder = loopback.system.data / f"mvtool-{name}"
    folder.mkdir()
    (folder / OWNER_FILE).write_text(json.dumps(owner))
    return folder


def test_a_phone_that_another_process_measures_is_refused(
    adb: Adb, loopback: LoopbackPhone, other_process: dict[str, object]
) -> None:
    folder = own(loopback, other_process)
    pid = other_process["pid"]
    with (
        pytest.raises(DeviceError, match=rf"{adb.serial} is in use: process {pid} .*{folder.name}.*kill {pid}"),
        Phone(adb).workspace(),
    ):
        pass
    assert loopback.files == [folder.name, f"{folder.name}/{OWNER_FILE}"]
    assert len(loopback.commands) == 1, "nothing is tried there"


def test_two_processes_that_begin_at_the_same_moment(
    adb: Adb, loopback: LoopbackPhone, other_process: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one made its folder after this one had looked."""
    monkeypatch.setattr(phone, "remove_leftovers", lambda adb, alone: own(loopback, other_process))
    with pytest.raises(DeviceError, match="is in use"), Phone(adb).workspace():
        pass
    assert [name for name in loopback.files if "/" not in name] == [f"mvtool-{'3' * 32}"]


def test_whoever_has_begun_goes_on(adb: Adb, loopback: LoopbackPhone, other_process: dict[str, object]) -> None:
    """With workspaces of its own process beside each other; one that comes later is no reason to end."""
    device = Phone(adb)
    with device.workspace() as first:
        own(loopback, other_process)
        with device.workspace() as second:
            assert first.folder != second.folder
    with pytest.raises(DeviceError, match="is in use"), device.workspace():
        pass


def test_a_folder_that_another_process_just_removes_is_no_reason_to_refuse(
    adb: Adb, loopback: LoopbackPhone, other_process: dict[str, object]
) -> None:
    own(loopback, other_process, f"{'4' * 32}.gone")
    with Phone(adb).workspace(), Phone(adb).workspace():
        assert len([name for name in loopback.files if "/" not in name]) == 3
