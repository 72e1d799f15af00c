"""`mvtool bench` on a phone, as a user calls it: its exit status, its records, and nothing left behind."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from loopback_adb import AdbServer
from loopback_faults import Fault, Kind
from loopback_phone import LoopbackPhone
from native_launches import Artifacts

from mvtool import cli
from mvtool.bench.device import Runner
from mvtool.bench.plan import CHECK_FILE
from mvtool.bench.record import Record
from mvtool.errors import DeviceError, RunnerError, VerificationError
from mvtool.ports import Precision, Runtime

pytest_plugins = ["native_fixtures"]
# The framework that writes the artifact warns of itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

OPTIONS = ("--quick", "--launches", "1", "--no-roofline")
OTHER_BYTES = "tr '\\000-\\377' '\\001-\\377\\000'"


@pytest.fixture(autouse=True)
def _adb_of_the_tests(server: AdbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ADB", str(server.program))


def bench(artifact: Path, phone: LoopbackPhone, program: Path, litert: Runner, out: Path) -> int:
    """Exit status of the command, which must leave nothing on the phone."""
    given = ["--device", f"android:{phone.serial}", "--runner", program, "--lib", litert.library, "--out", out]
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", str(artifact), *map(str, given), *OPTIONS])
    assert phone.fault is None, "the fault must have happened"
    assert phone.files == []
    assert phone.system.running(within_s=20) == []
    return int(end.value.code or 0)


def around(program: Path, before: str, after: str, folder: Path) -> Path:
    """A runner that does something before and after what the real one does, which it carries in itself."""
    text = base64.encodebytes(program.read_bytes()).decode()
    script = folder / "runner"
    script.write_text(f"#!/bin/sh\n{before}\nbase64 -d > real << END\n{text}END\nchmod +x real\n./real $1\n{after}\n")
    return script


def test_a_good_session(
    loopback: LoopbackPhone, artifacts: Artifacts, litert: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert bench(artifacts(Runtime.TFLITE, Precision.FP32), loopback, litert.program, litert, out) == 0
    (path,) = out.glob("*.json")
    record = Record.load(path)
    assert (record.device.loopback, record.engine.library, len(record.launches)) == (True, "libLiteRt.so", 1)
    assert "(loopback)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fault", "before", "after", "status", "message"),
    [
        pytest.param(
            Fault(Kind.DROP_SHELL, where="./runner", after=1),
            "echo begun",
            "",
            DeviceError.exit_code,
            "connection to it was lost",
            id="drop",
        ),
        pytest.param(None, "kill -SEGV $$", "", RunnerError.exit_code, "crashed with SIGSEGV", id="crash"),
        pytest.param(
            None,
            "",
            f"{OTHER_BYTES} < {CHECK_FILE} > other; mv other {CHECK_FILE}",
            VerificationError.exit_code,
            "does not compute what",
            id="other outputs",
        ),
    ],
)
def test_what_goes_wrong_is_an_exit_status_and_no_record(
    fault: Fault | None,
    before: str,
    after: str,
    status: int,
    message: str,
    loopback: LoopbackPhone,
    artifacts: Artifacts,
    litert: Runner,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loopback.fault = fault
    out, program = tmp_path / "out", around(litert.program, before, after, tmp_path)
    assert bench(artifacts(Runtime.TFLITE, Precision.FP32), loopback, program, litert, out) == status
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(out.rglob("*.json"))


def test_the_exit_statuses_are_those_that_are_documented() -> None:
    assert (DeviceError.exit_code, RunnerError.exit_code, VerificationError.exit_code) == (13, 14, 7)
