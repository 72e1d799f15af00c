"""The wrapper against the real adb and a loopback phone."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from interrupts import alive
from loopback_adb import AdbServer
from loopback_faults import Fault, Kind
from loopback_phone import Auth, LoopbackPhone

from mvtool.android_bench import adb as adb_module
from mvtool.android_bench.adb import Adb
from mvtool.android_bench.adb_devices import choose, devices, parse_devices
from mvtool.android_bench.adb_failures import explain
from mvtool.android_bench.adb_program import Ended, find_program
from mvtool.errors import DeviceError

CAPTURES = Path(__file__).parent / "captures"
REMOTE = "/data/local/tmp/file.bin"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(700_000))
    return path


def program(folder: Path, name: str = "adb", text: str = "#!/bin/sh\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_adb_is_found_in_this_order(tmp_path: Path) -> None:
    option, variable = program(tmp_path / "option"), program(tmp_path / "variable")
    home, path = program(tmp_path / "sdk/platform-tools"), program(tmp_path / "path")
    environment = {"ADB": str(variable), "ANDROID_HOME": str(tmp_path / "sdk"), "PATH": str(path.parent)}
    assert find_program(option, environment) == option
    assert find_program(None, environment) == variable
    del environment["ADB"]
    assert find_program(None, environment) == home
    del environment["ANDROID_HOME"]
    assert find_program(None, environment) == path
    with pytest.raises(DeviceError, match=r"adb was not found.*apt install adb"):
        find_program(None, {"PATH": str(tmp_path)})
    with pytest.raises(DeviceError, match=r"none.*the option"):
        find_program(tmp_path / "none", environment)


def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="could not be started"):
        Adb(tmp_path / "none", "x").script("true")


def test_the_list_of_devices() -> None:
    listed = parse_devices((CAPTURES / "devices_29.txt").read_text())
    assert [device.state for device in listed] == ["device", "unauthorized", "offline"]
    assert listed[0].serial == "127.0.0.1:37943"
    assert listed[0].description == "product:loopback model:Loopback device:loopback transport_id:1"
    (closed,) = parse_devices((CAPTURES / "devices_no_permissions.txt").read_text())
    assert (closed.serial, closed.state) == ("0123456789ABCDEF", "no permissions")
    assert parse_devices("* daemon started successfully\nList of devices attached\n\n") == ()


@pytest.mark.parametrize(
    "words",
    [
        ["echo", "it's $HOME; `id`", 'a "b" \\ *', "-n"],
        ["printf", "%s|", "", " ", "\t", "ä\n"],
    ],
)
def test_words_reach_the_device_unchanged(adb: Adb, words: list[str]) -> None:
    expected = {"echo": 'it\'s $HOME; `id` a "b" \\ * -n\n', "printf": "| |\t|ä\n|"}
    assert adb.shell(words).output == expected[words[0]]


@pytest.mark.parametrize("status", [0, 1, 44, 255])
def test_the_exit_status_and_both_outputs(adb: Adb, status: int) -> None:
    done = adb.script(f"echo out; echo error >&2; exit {status}")
    assert (done.status, done.output) == (status, "out\nerror\n")


def test_a_script_that_prints_no_line_end(adb: Adb) -> None:
    assert adb.script("printf abc").output == "abc"
    assert adb.script("true").output == ""


def test_a_mark_that_the_output_imitates_is_not_believed(adb: Adb) -> None:
    done = adb.script("echo; echo mvtool-0123456789abcdef=0; exit 3")
    assert (done.status, done.output) == (3, "\nmvtool-0123456789abcdef=0\n")


def test_a_hanging_command_is_ended_with_adb(adb: Adb, loopback: LoopbackPhone) -> None:
    began = time.monotonic()
    with pytest.raises(DeviceError, match=r"did not end within 0\.3 s"):
        adb.script("sleep 600", 0.3)
    assert time.monotonic() - began < 60
    assert adb.script("echo still there").output == "still there\n"


def test_a_child_of_adb_is_ended_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    fake = program(tmp_path / "bin", text=f'#!/bin/sh\nsleep 600 &\necho $! > "{pid}"\nwait\n')
    with pytest.raises(DeviceError):
        Adb(fake, "x").script("true", 1)
    end = time.monotonic() + 10
    while alive(int(pid.read_text())):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_push_and_pull(adb: Adb, loopback: LoopbackPhone, source: Path) -> None:
    adb.push(source, REMOTE, executable=True)
    assert adb.sha256(REMOTE) == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (loopback.system.data / "file.bin").stat().st_mode & 0o777 == 0o755
    assert adb.pull(REMOTE) == source.read_bytes()
    adb.push(source, REMOTE)
    assert (loopback.system.data / "file.bin").stat().st_mode & 0o777 == 0o644
    assert adb.sha256("/data/local/tmp/none") is None
    assert adb.pull("/data/local/tmp/none") is None


def test_a_copy_in_either_direction_has_time_by_its_size(
    adb: Adb, loopback: LoopbackPhone, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """700,000 bytes at 1,000 bytes per second."""
    limits: dict[str, float] = {}
    run = Adb._run

    def noted(self: Adb, words: list[str], timeout_s: float, what: str, even_interrupted: bool = False) -> Ended:
        limits[words[0]] = timeout_s
        return run(self, words, timeout_s, what, even_interrupted)

    monkeypatch.setattr(Adb, "_run", noted)
    monkeypatch.setattr(adb_module, "_SLOWEST_BYTES_PER_S", 1000)
    adb.push(source, REMOTE)
    assert adb.pull(REMOTE) == source.read_bytes()
    assert limits["push"] == limits["pull"] == 730


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            Fault(Kind.REFUSE_PUSH, where="write failed: No space left on device"),
            r"its disk is full.*Free space on the phone",
        ),
        (Fault(Kind.REFUSE_PUSH, where="couldn't create file: Read-only file system"), "can only be read"),
        (Fault(Kind.TRUNCATE_PUSH, after=1000), r"is not what was sent.*1000 bytes; expected .*700000 bytes"),
    ],
)
def test_a_push_that_does_not_arrive_leaves_nothing(
    adb: Adb, loopback: LoopbackPhone, source: Path, fault: Fault, message: str
) -> None:
    loopback.fault = fault
    with pytest.raises(DeviceError, match=message):
        adb.push(source, REMOTE)
    assert loopback.files == []


def test_a_place_that_may_not_be_written(adb: Adb, source: Path) -> None:
    with pytest.raises(DeviceError, match=r"permission denied.*mvtool needs /data/local/tmp"):
        adb.push(source, "/system/file.bin")


@pytest.mark.parametrize(
    ("fault", "act"),
    [
        (Fault(Kind.DROP_PUSH, after=300_000), "push"),
        (Fault(Kind.DROP_SHELL, where="line 1", after=7), "shell"),
        (Fault(Kind.DROP_SHELL, where="line 1"), "shell"),
        (Fault(Kind.DROP_PULL, after=300_000), "pull"),
    ],
)
def test_a_lost_connection_is_no_result(
    adb: Adb, loopback: LoopbackPhone, source: Path, fault: Fault, act: str
) -> None:
    """adb 29 ends with status 0 when a shell loses its connection, and with what had been printed until then."""
    adb.push(source, REMOTE)
    loopback.fault = fault
    acts: dict[str, Callable[[], object]] = {
        "push": lambda: adb.push(source, REMOTE),
        "pull": lambda: adb.pull(REMOTE),
        "shell": lambda: adb.script("echo line 1; sleep 0.2; echo line 2"),
    }
    with pytest.raises(DeviceError, match="connection to it was lost"):
        acts[act]()
    assert loopback.fault is None, "the fault must have happened"
    assert adb.wait(20), "the server connects it anew by itself"
    assert adb.script("echo back").output == "back\n"


def test_a_device_that_stays_away(server: AdbServer, leaving: LoopbackPhone) -> None:
    adb = Adb(server.program, leaving.serial, server.variables)
    leaving.fault = Fault(Kind.DROP_SHELL, where="echo line", gone=True)
    with pytest.raises(DeviceError, match="connection to it was lost"):
        adb.script("echo line")
    assert not adb.wait(0.3)
    with pytest.raises(DeviceError, match="it is offline"):
        adb.script("echo line")
    server.disconnect(leaving)
    while leaving.serial in server.call("devices"):
        time.sleep(0.05)
    with pytest.raises(DeviceError, match="not connected any more"):
        adb.script("echo line")


def test_an_interrupt_ends_the_call_of_another_thread(adb: Adb) -> None:
    raised: list[str] = []

    def wait() -> None:
        try:
            adb.script("sleep 600")
        except DeviceError as error:
            raised.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    while not adb._running:
        time.sleep(0.01)
    adb.interrupt()
    thread.join(20)
    assert "interrupted" in raised[0]
    assert adb.script("true", even_interrupted=True).status == 0
    with pytest.raises(DeviceError, match="not started: the run was interrupted"):
        adb.script("true")


def test_an_interrupt_does_not_end_the_removal_of_what_is_left(adb: Adb, loopback: LoopbackPhone) -> None:
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.append(adb.script("sleep 1; exit 3", even_interrupted=True).status))
    thread.start()
    while not any("exit 3" in command for command in loopback.commands):
        time.sleep(0.01)
    adb.interrupt()
    thread.join(20)
    assert ended == [3]


def test_choosing_a_device(server: AdbServer, tmp_path: Path) -> None:
    def chosen(serial: str | None = None) -> Adb:
        return choose(serial, server.program, server.variables)

    with pytest.raises(DeviceError, match=r"No phone is connected.*USB debugging"):
        chosen()
    with pytest.raises(DeviceError, match=r"No phone is connected \(asked for abc\)"):
        chosen("abc")
    with LoopbackPhone(tmp_path / "one") as one, LoopbackPhone(tmp_path / "two") as two:
        server.connect(one)
        assert chosen().serial == one.serial
        assert chosen(one.serial).serial == one.serial
        server.connect(two)
        assert {device.serial for device in devices(server.program, server.variables)} == {one.serial, two.serial}
        with pytest.raises(DeviceError, match=rf"2 phones are connected and no serial.*{two.serial}.*android:SERIAL"):
            chosen()
        assert chosen(two.serial).serial == two.serial
        with pytest.raises(DeviceError, match=rf"No phone with serial abc.*{one.serial} \(device\)"):
            chosen("abc")
        for phone in (one, two):
            server.disconnect(phone)


@pytest.mark.parametrize(
    ("auth", "state", "message"),
    [
        (Auth.UNAUTHORIZED, "unauthorized", r"not allowed this computer.*Allow USB debugging"),
        (Auth.MUTE, "offline", r"it is offline.*reconnect"),
    ],
)
def test_a_device_that_does_not_let_in(server: AdbServer, tmp_path: Path, auth: Auth, state: str, message: str) -> None:
    with LoopbackPhone(tmp_path / "phone", auth=auth) as phone:
        server.connect_in_vain(phone, state)
        with pytest.raises(DeviceError, match=message):
            choose(None, server.program, server.variables)
        with pytest.raises(DeviceError, match=message):
            Adb(server.program, phone.serial, server.variables).script("true")
        server.disconnect(phone)


@pytest.mark.parametrize(
    ("errors", "cause"),
    [
        # adb 29.0.6
        ("error: device offline", "it is offline"),
        ("error: device '127.0.0.1:1' not found", "not connected any more"),
        ("error: no devices/emulators found", "not connected any more"),
        ("error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set", "not allowed"),
        ("adb: error: failed to copy 'a' to 'b': couldn't read from device", "connection to it was lost"),
        ("adb: error: failed to copy 'a' to 'b': remote write failed: No space left on device", "disk is full"),
        ("error: protocol fault (couldn't read status): Success", "disagree about the protocol"),
        ("error: cannot connect to daemon", "server does not answer"),
        # adb 36.0.0
        ("adb: device offline", "it is offline"),
        ("adb: device '127.0.0.1:1' not found", "not connected any more"),
        ("adb: error: failed to read copy response: EOF", "connection to it was lost"),
        ("error: closed", "connection to it was lost"),
        ("", "connection to it was lost"),
    ],
)
def test_texts_of_adb(errors: str, cause: str) -> None:
    error = explain("SERIAL", "A command", 1, errors, "line 1")
    assert cause in str(error)
    assert "A command on SERIAL failed" in str(error)
