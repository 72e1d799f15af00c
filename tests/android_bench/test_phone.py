"""The phone as a device, over the real adb and a loopback phone."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from loopback_adb import AdbServer
from loopback_faults import Fault, Kind
from loopback_phone import LoopbackPhone
from loopback_system import DATA, Description

from mvtool.android_bench import phone_folders, phone_workspace
from mvtool.android_bench.adb import Adb
from mvtool.android_bench.phone import Phone
from mvtool.android_bench.phone_folders import OWNER_FILE
from mvtool.bench.device import Device, Runner, Workspace
from mvtool.bench.record import DeviceKind, Moment
from mvtool.errors import DeviceError, RunnerError, ToolchainError
from mvtool.ports import Runtime


@pytest.fixture
def phone(adb: Adb) -> Phone:
    return Phone(adb)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A program for the phone, to be filled by the test."""
    path = tmp_path / "run"
    path.write_text("#!/bin/sh\n")
    return path


def put(space: Workspace, script: Path, text: str) -> None:
    script.write_text(f"#!/bin/sh\n{text}\n")
    space.put(script, "run", executable=True)


def run_once(phone: Phone, script: Path, text: str) -> None:
    """A session with a single run of a program that does `text`."""
    with phone.workspace() as space:
        phone.reading(Moment.BEFORE, 0.0)
        put(space, script, text)
        space.execute("run", (), {}, 600)


def end_with(phone: Phone, loopback: LoopbackPhone, error: BaseException) -> None:
    """A session that ends before its first run."""
    with phone.workspace():
        assert loopback.files
        raise error


def test_it_keeps_the_contract(phone: Phone) -> None:
    device: Device = phone
    with device.workspace() as space:
        checked: Workspace = space
        assert checked is space


def test_facts(phone: Phone, loopback: LoopbackPhone) -> None:
    facts = phone.facts()
    assert (facts.kind, facts.name, facts.serial) == (DeviceKind.ANDROID, "mvtool Loopback", "LOOPBACK0001")
    assert (facts.abi, facts.os_version, facts.memory_bytes) == ("x86_64", "14 (API 34)", 7_841_012 * 1024)
    assert facts.loopback, "a stand-in must be known as one"
    assert not phone.emulated
    asked = len(loopback.commands)
    assert phone.facts() is facts
    assert len(loopback.commands) == asked


def test_a_phone_that_tells_too_little(phone: Phone, loopback: LoopbackPhone) -> None:
    loopback.system.description = Description(abi="")
    loopback.system.refresh()
    with pytest.raises(DeviceError, match="does not tell its instruction set"):
        phone.facts()


def test_reading(phone: Phone, loopback: LoopbackPhone) -> None:
    loopback.system.description = Description(skin_c=38.5, thermal_status=2)
    loopback.system.refresh()
    reading = phone.reading(Moment.DURING, 7.5)
    assert (reading.moment, reading.time_s, reading.thermal_status) == (Moment.DURING, 7.5, 2)
    assert reading.temperatures_c == {"skin": 38.5, "CPU0": 41.5}, "cached values and voltages are no temperatures"
    assert (reading.battery_c, reading.battery_percent, reading.charging) == (38.5, 85.0, True)
    assert reading.frequencies_khz["cpu0"] == 1_800_000
    assert reading.governors["cpu0"] == "schedutil"
    assert reading.load_average == 1.25


def test_a_runner_is_provided_once_per_runtime(adb: Adb, tmp_path: Path) -> None:
    asked: list[tuple[Runtime, str]] = []

    def provide(runtime: Runtime, abi: str) -> Runner:
        asked.append((runtime, abi))
        return Runner(tmp_path / "runner", None)

    phone = Phone(adb, provide)
    assert phone.runner(Runtime.TFLITE) is phone.runner(Runtime.TFLITE)
    assert asked == [(Runtime.TFLITE, "x86_64")]
    with pytest.raises(ToolchainError, match=r"no tflite runner for x86_64.*--runner BIN.*--ndk DIR"):
        Phone(adb).runner(Runtime.TFLITE)


def test_files_come_and_go(phone: Phone, loopback: LoopbackPhone, tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(b"\x00\xff" * 1000)
    with phone.workspace() as space:
        space.put(source, "model.tflite")
        assert space.get("model.tflite") == source.read_bytes()
        space.remove("model.tflite")
        space.remove("model.tflite")
        with pytest.raises(RunnerError, match=r"wrote no model\.tflite"):
            space.get("model.tflite")
        with pytest.raises(ValueError, match="not a relative path"):
            space.put(source, "../elsewhere")
        (folder,) = [name for name in loopback.files if "/" not in name]
        owner = json.loads((loopback.system.data / folder / OWNER_FILE).read_text())
        assert owner["pid"] > 0
    assert loopback.files == []


def test_a_program_runs_in_its_folder_with_its_arguments(phone: Phone, script: Path) -> None:
    with phone.workspace() as space:
        put(space, script, 'pwd; echo "$1|$2|$VALUE|$LD_LIBRARY_PATH"; echo error >&2; : > made')
        printed = space.execute("run", ("plan.txt", "two words; $HOME"), {"VALUE": "it's"}, 20)
        assert printed == f"{space.folder}\nplan.txt|two words; $HOME|it's|{space.folder}\nerror\n"
        assert space.get("made") == b""
        assert space.folder.startswith(f"{DATA}/mvtool-")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo reason >&2; exit 66", r"refused \(status 66\).*reason"),
        ("echo last words; kill -SEGV $$", r"crashed with SIGSEGV.*last words"),
        ("kill -ABRT $$", "crashed with SIGABRT"),
        ("kill -KILL $$", r"was killed by the phone.*lack of memory"),
        ("exit 3", "ended with status 3, expected 0"),
        ("exec ./nothing", r"cannot be executed \(status 127\).*compiled for Android"),
    ],
)
def test_how_a_program_fails(phone: Phone, loopback: LoopbackPhone, script: Path, text: str, message: str) -> None:
    with phone.workspace() as space:
        put(space, script, text)
        with pytest.raises(RunnerError, match=rf"(?s)run on 127.*{message}"):
            space.execute("run", (), {}, 20)
    assert loopback.files == []


def test_a_program_that_hangs_is_ended_on_the_phone(phone: Phone, loopback: LoopbackPhone, script: Path) -> None:
    with phone.workspace() as space:
        put(space, script, "echo started; exec sleep 600")
        with pytest.raises(RunnerError, match=r"(?s)did not end within 1 s.*Nothing was recorded.*started"):
            space.execute("run", (), {}, 0.5)
    assert loopback.system.running(within_s=20) == []
    assert loopback.files == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_the_folder_is_gone_however_the_run_ended(
    phone: Phone, loopback: LoopbackPhone, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        end_with(phone, loopback, error())
    assert loopback.files == []


def test_a_phone_that_comes_back_is_cleaned(phone: Phone, loopback: LoopbackPhone, script: Path) -> None:
    """Also of the program, which the lost connection did not end."""
    loopback.fault = Fault(Kind.DROP_SHELL, where="./run", after=1)
    with pytest.raises(DeviceError, match=r"The run of run on .* connection to it was lost"):
        run_once(phone, script, "echo started; exec sleep 600 > /dev/null")
    assert loopback.files == []
    assert loopback.system.running(within_s=20) == []


def test_an_interrupt_from_another_thread_cleans_up(phone: Phone, loopback: LoopbackPhone, script: Path) -> None:
    raised: list[str] = []

    def run() -> None:
        try:
            run_once(phone, script, "exec sleep 600 > /dev/null")
        except DeviceError as error:
            raised.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    while not any("./run" in command for command in loopback.commands):
        time.sleep(0.01)
    phone.interrupt()
    thread.join(60)
    assert "The run of run on" in raised[0]
    assert "interrupted" in raised[0]
    assert loopback.files == []
    assert loopback.system.running(within_s=20) == []


def test_an_interrupt_during_the_removal_stays_in_force(
    phone: Phone, loopback: LoopbackPhone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(adb: Adb, folder: str, even_interrupted: bool = False) -> bool:
        phone.interrupt()
        return phone_folders.remove_folder(adb, folder, even_interrupted)

    with monkeypatch.context() as patch:
        patch.setattr(phone_workspace, "remove_folder", interrupted)
        with phone.workspace():
            pass
    assert loopback.files == []
    with pytest.raises(DeviceError, match="the run was interrupted"), phone.workspace():
        pass


def test_a_phone_that_stays_away_keeps_a_folder_whose_name_is_told(
    server: AdbServer, leaving: LoopbackPhone, script: Path, caplog: pytest.LogCaptureFixture
) -> None:
    phone = Phone(Adb(server.program, leaving.serial, server.variables), return_s=0.2)
    leaving.fault = Fault(Kind.DROP_SHELL, where="./run", after=1, gone=True)
    with pytest.raises(DeviceError, match="connection to it was lost"):
        run_once(phone, script, "echo started")
    (folder,) = {name.split("/")[0] for name in leaving.files}
    assert f"The folder {DATA}/{folder} remains on {leaving.serial}" in caplog.text


def test_a_folder_that_remained_goes_with_the_next_run(
    phone: Phone, loopback: LoopbackPhone, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(phone_workspace, "remove_folder", lambda adb, folder, even_interrupted: False)
        with phone.workspace() as first:
            pass
    assert loopback.files, "the removal was hindered"
    with phone.workspace() as second:
        assert first.folder != second.folder
        assert {name.split("/")[0] for name in loopback.files} == {Path(second.folder).name}
    assert loopback.files == []


def test_a_hot_phone_that_is_lost_is_said_to_have_been_hot(phone: Phone, loopback: LoopbackPhone, script: Path) -> None:
    loopback.system.description = Description(thermal_status=4)
    loopback.system.refresh()
    loopback.fault = Fault(Kind.DROP_SHELL, where="./run", after=1)
    with pytest.raises(DeviceError, match=r"(?s)lost.*thermal status was 4.*--max-temperature"):
        run_once(phone, script, "echo started")
    assert loopback.files == []
