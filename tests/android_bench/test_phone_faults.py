"""Whole sessions over the real adb, in each of which one thing goes wrong.

Each ends in the error and exit code that say so, with no record, and nothing stays behind on the phone, neither a
file nor a process. The runner is a script that gives back the result of a good launch; the stand-in device computed it
once, by executing the artifact.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_device import FakeDevice
from loopback_adb import AdbServer
from loopback_faults import Fault, Kind
from loopback_phone import Auth, LoopbackPhone
from native_launches import Artifacts

from mvtool.android_bench.adb_devices import choose
from mvtool.android_bench.batch import Batch, Journal, Queue, State
from mvtool.android_bench.phone import Phone
from mvtool.bench import benching
from mvtool.bench.benching import bench
from mvtool.bench.device import Device, Runner
from mvtool.bench.plan import CHECK_FILE, RESULT_FILE
from mvtool.bench.profiles import Request
from mvtool.bench.record import Record
from mvtool.bench.subjects import Subject, subjects
from mvtool.errors import DeviceError, MvtoolError, RunnerError, VerificationError
from mvtool.ports import Precision, Runtime

pytest_plugins = ["native_fixtures"]
# The framework that writes the artifact warns of itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

ONE_LAUNCH = Request(quick=True, launches=1, roofline=False, hang_s=0.5)
GOOD_RESULT, GOOD_DUMP = "good.json", "good.bin"
REPLAY = f"cp {GOOD_RESULT} {RESULT_FILE}; cp {GOOD_DUMP} {CHECK_FILE}"


@dataclass(frozen=True)
class Session:
    """An artifact, and the files of a launch of it that went well."""

    subject: Subject
    good: Path

    def runner(self, text: str, folder: Path) -> Runner:
        """A program that does `text`, with the good files beside it."""
        program = folder / "runner"
        program.write_text(f"#!/bin/sh\n# told to follow $1\n{text}\n")
        return Runner(program, None, beside=(self.good / GOOD_RESULT, self.good / GOOD_DUMP))

    def measure(self, device: Device) -> list[Record]:
        """The session: records, or an error."""
        return list(bench([self.subject], device, ONE_LAUNCH))


@pytest.fixture(scope="module")
def session(artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("good")

    def keep(result: dict[str, Any], dump: bytearray) -> None:
        (folder / GOOD_RESULT).write_text(json.dumps(result))
        (folder / GOOD_DUMP).write_bytes(dump)

    (subject,) = subjects(artifacts(Runtime.TFLITE, Precision.FP32))
    assert len(list(bench([subject], FakeDevice(folder, damage=keep), ONE_LAUNCH))) == 1
    return Session(subject, folder)


@pytest.fixture(autouse=True)
def _short_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging runner counts as hung after a second."""
    monkeypatch.setattr(benching, "LOAD_S", 0.0)
    monkeypatch.setattr(benching, "max_seconds", lambda *arguments: 0.5)


def test_a_good_session_is_a_record_that_says_what_it_is(
    server: AdbServer, loopback: LoopbackPhone, session: Session, tmp_path: Path
) -> None:
    adb = choose(None, server.program, server.variables)
    (record,) = session.measure(Phone(adb, lambda runtime, abi: session.runner(REPLAY, tmp_path)))
    assert record.device.loopback
    assert [reading.temperatures_c["skin"] for reading in record.readings] == [31.4] * 3
    assert record.correctness.steps == benching.CHECK_STEPS
    assert loopback.files == []


@dataclass(frozen=True)
class Case:
    """One thing that goes wrong.

    Attributes:
        error: Class of the error.
        message: In its text.
        fault: Of the connection.
        runner: What the runner does; `{thermal}` is the file that `dumpsys thermalservice` prints.
        slow: A variant of another case or of one of the command line, for the slow tests: sessions add up.
    """

    error: type[MvtoolError]
    message: str
    fault: Fault | None = None
    runner: str = REPLAY
    slow: bool = False


FULL_DISK = "write failed: No space left on device"
CASES = {
    "drop during push": Case(DeviceError, "copy of .* connection to it was lost", Fault(Kind.DROP_PUSH, after=10)),
    "drop during shell": Case(
        DeviceError,
        r"run of runner on .* connection to it was lost",
        Fault(Kind.DROP_SHELL, where="./runner", after=3),
        f"{REPLAY}; echo good so far; sleep 0.2; echo done",
        slow=True,
    ),
    "drop at the end of the shell": Case(
        DeviceError, "connection to it was lost", Fault(Kind.DROP_SHELL, where="./runner", after=1), slow=True
    ),
    "drop during pull": Case(DeviceError, "connection to it was lost", Fault(Kind.DROP_PULL, after=50)),
    "no space left": Case(DeviceError, "its disk is full", Fault(Kind.REFUSE_PUSH, where=FULL_DISK)),
    "truncated push": Case(DeviceError, "is not what was sent", Fault(Kind.TRUNCATE_PUSH, after=10)),
    "runner crash": Case(RunnerError, "crashed with SIGSEGV", runner=f"{REPLAY}; kill -SEGV $$", slow=True),
    "runner killed": Case(RunnerError, "was killed by the phone", runner=f"{REPLAY}; kill -KILL $$", slow=True),
    "runner refuses": Case(
        RunnerError, r"refused \(status 65\).*unknown library", runner="echo unknown library; exit 65"
    ),
    "runner hang": Case(RunnerError, "did not end within", runner=f"{REPLAY}; exec sleep 600"),
    "no result": Case(RunnerError, r"wrote no result\.json", runner="true", slow=True),
    "no dump": Case(RunnerError, r"wrote no check\.bin", runner=f"cp {GOOD_RESULT} {RESULT_FILE}", slow=True),
    "garbage JSON": Case(RunnerError, "is not complete", runner=f"{REPLAY}; echo '<html>' > {RESULT_FILE}", slow=True),
    "half a JSON": Case(
        RunnerError, "is not complete", runner=f"{REPLAY}; head -c 200 {GOOD_RESULT} > {RESULT_FILE}", slow=True
    ),
    "JSON without end mark": Case(
        RunnerError, "is not complete: end", runner=f"{REPLAY}; sed 's/, \"end\": .*/}}/' {GOOD_RESULT} > {RESULT_FILE}"
    ),
    "short dump": Case(
        RunnerError, "have 100 bytes, expected", runner=f"{REPLAY}; head -c 100 {GOOD_DUMP} > {CHECK_FILE}", slow=True
    ),
    "wrong outputs": Case(
        VerificationError,
        "does not compute what",
        runner=f"{REPLAY}; tr '\\000-\\377' '\\001-\\377\\000' < {GOOD_DUMP} > {CHECK_FILE}",
        slow=True,
    ),
    "thermal shutdown is announced": Case(
        DeviceError, "thermal status 5", runner=f"{REPLAY}; sed -i 's/Thermal Status: 0/Thermal Status: 5/' {{thermal}}"
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if case.slow else []) for name, case in CASES.items()]
)
def test_nothing_is_recorded_and_nothing_stays(
    name: str, server: AdbServer, loopback: LoopbackPhone, session: Session, tmp_path: Path
) -> None:
    case = CASES[name]
    text = case.runner.replace("{thermal}", str(loopback.system.folder / "system/thermalservice.txt"))
    phone = Phone(choose(None, server.program, server.variables), lambda runtime, abi: session.runner(text, tmp_path))
    loopback.fault = case.fault
    with pytest.raises(case.error, match=f"(?s){case.message}") as raised:
        session.measure(phone)
    assert type(raised.value) is case.error
    assert raised.value.exit_code == {DeviceError: 13, RunnerError: 14, VerificationError: 7}[case.error]
    assert loopback.fault is None, "the fault must have happened"
    assert loopback.files == []
    assert loopback.system.running(within_s=20) == []


def test_a_phone_that_switches_itself_off(
    server: AdbServer, leaving: LoopbackPhone, session: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What stays on it then is told, for want of a way to it."""
    leaving.system.description.thermal_status = 4
    leaving.system.refresh()
    runner = session.runner(f"{REPLAY}; echo end", tmp_path)
    phone = Phone(choose(None, server.program, server.variables), lambda runtime, abi: runner, return_s=0.2)
    leaving.fault = Fault(Kind.DROP_SHELL, where="./runner", after=1, gone=True)
    with pytest.raises(DeviceError, match=r"(?s)lost.*thermal status was 4.*may have switched itself off"):
        session.measure(phone)
    assert f"remains on {leaving.serial}" in caplog.text


@pytest.mark.parametrize(
    ("auth", "state", "message"),
    [(Auth.UNAUTHORIZED, "unauthorized", "not allowed this computer"), (Auth.MUTE, "offline", "it is offline")],
)
def test_a_phone_that_does_not_let_in(server: AdbServer, tmp_path: Path, auth: Auth, state: str, message: str) -> None:
    with LoopbackPhone(tmp_path / "phone", auth=auth) as phone:
        server.connect_in_vain(phone, state)
        with pytest.raises(DeviceError, match=message) as raised:
            choose(phone.serial, server.program, server.variables)
        assert raised.value.exit_code == 13
        assert phone.commands == []
        server.disconnect(phone)


def test_two_devices_and_no_serial(server: AdbServer, loopback: LoopbackPhone, leaving: LoopbackPhone) -> None:
    with pytest.raises(DeviceError, match="2 phones are connected and no serial was given"):
        choose(None, server.program, server.variables)
    assert loopback.commands == leaving.commands == []


@dataclass(frozen=True)
class SessionJob:
    """A session as a job of a batch; its record is the file `key.json`."""

    key: str
    session: Session
    out: Path

    def run(self, device: Device) -> Path:
        (record,) = self.session.measure(device)
        path = self.out / f"{self.key}.json"
        record.save(path)
        return path


KILLED = """
import sys
from pathlib import Path
from test_phone_faults import *

program, serial, artifact, good, out = sys.argv[1:]
benching.LOAD_S = 600.0
(subject,) = subjects(Path(artifact))
session = Session(subject, Path(good))
adb = choose(serial, Path(program))


class HangsAtB(SessionJob):
    def run(self, device):
        text = "exec sleep 600 > /dev/null" if self.key == "b" else REPLAY
        return super().run(Phone(adb, lambda runtime, abi: session.runner(text, Path(out))))


jobs = [HangsAtB(name, session, Path(out)) for name in ("a", "b", "c")]
Batch(Path(out) / "journal.json").run([Queue("phone", Phone(adb), jobs)])
"""


def test_a_batch_whose_computer_was_killed_goes_on(
    server: AdbServer, loopback: LoopbackPhone, session: Session, tmp_path: Path
) -> None:
    arguments = [str(server.program), loopback.serial, str(session.subject.path), str(session.good), str(tmp_path)]
    command = [sys.executable, "-c", KILLED, *arguments]
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    environment = {**server.environment, "PYTHONPATH": ":".join(folders), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(command, env=environment) as process:
        wait_for(lambda: sum("./runner" in command for command in loopback.commands) == 2, process)
        process.kill()
    assert loopback.files, "nobody could clean up"
    assert [path.name for path in tmp_path.glob("*.json")] == ["journal.json", "a.json"] or (
        tmp_path / "a.json"
    ).exists()
    first = (tmp_path / "a.json").read_bytes()

    runner = session.runner(REPLAY, tmp_path)
    phone = Phone(choose(None, server.program, server.variables), lambda runtime, abi: runner)
    jobs = [SessionJob(name, session, tmp_path) for name in ("a", "b", "c")]
    reports = Batch(tmp_path / "journal.json").run([Queue("phone", phone, jobs)])
    assert [(report.key, report.state, report.resumed) for report in reports] == [
        ("a", State.DONE, True),
        ("b", State.DONE, False),
        ("c", State.DONE, False),
    ]
    assert (tmp_path / "a.json").read_bytes() == first
    assert {Record.load(tmp_path / f"{name}.json").device.loopback for name in "abc"} == {True}
    assert set(Journal.load(tmp_path / "journal.json").queues["phone"]) == {"a", "b", "c"}
    assert loopback.files == []
    assert loopback.system.running(within_s=20) == []


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the process ended too early"
        assert time.monotonic() < end
        time.sleep(0.02)
