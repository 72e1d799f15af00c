from __future__ import annotations

import errno
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from interrupts import interruptible_children

import mvtool
from mvtool import cli, errors
from mvtool.cli.group import COMMANDS, LazyCommand
from mvtool.cli.signals import ending
from mvtool.errors import MissingExtraError, MvtoolError, VerificationError


def status(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[BaseException]:
    """A command `fail` that raises what `failing.error` holds."""

    class Failing:
        error: BaseException = RuntimeError("never set")

        @staticmethod
        @click.command("fail")
        def command() -> None:
            raise Failing.error

    monkeypatch.setitem(sys.modules, "failing_command", Failing)
    monkeypatch.setitem(cli.cli._table, "fail", LazyCommand("failing_command", "Fail."))
    return Failing  # type: ignore[return-value]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_is_there_with_its_summary(name: str) -> None:
    command = importlib.import_module(COMMANDS[name].module).command
    assert isinstance(command, click.Command)
    assert command.name == name
    assert (command.help or "").splitlines()[0] == COMMANDS[name].summary


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(name, "--help") == 0
    assert f"Usage: mvtool {name}" in capsys.readouterr().out


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown and entry.summary in shown for name, entry in COMMANDS.items())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("--version") == 0
    assert capsys.readouterr().out.startswith(f"mvtool {mvtool.__version__} (Python 3.")


def test_unknown_command_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("convrt") == 2
    assert status("zoo", "--no-such-option") == 2
    assert "Usage: mvtool" in capsys.readouterr().err


def all_errors(root: type[MvtoolError] = MvtoolError) -> list[type[MvtoolError]]:
    return [root, *(error for child in root.__subclasses__() for error in all_errors(child))]


@pytest.mark.parametrize("kind", [e for e in all_errors() if e is not MissingExtraError], ids=lambda e: e.__name__)
def test_errors_of_mvtool_have_no_traceback(
    failing: type, kind: type[MvtoolError], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.error = kind("the thing failed; do this")  # type: ignore[attr-defined]
    assert status("fail") == kind.exit_code
    assert capsys.readouterr().err == "Error: the thing failed; do this\n"


def test_a_missing_extra_names_the_pip_line(failing: type, capsys: pytest.CaptureFixture[str]) -> None:
    failing.error = MissingExtraError("coremltools", "coreml", "to write Core ML models")  # type: ignore[attr-defined]
    assert status("fail") == 8
    assert "pip install 'mvtool[coreml]'" in capsys.readouterr().err


def test_exit_codes_are_distinct() -> None:
    codes = [
        error.exit_code for error in vars(errors).values() if isinstance(error, type) and issubclass(error, MvtoolError)
    ]
    assert len(codes) == len(set(codes))
    assert not {0, cli.INTERRUPTED} & set(codes)


def test_a_defect_keeps_its_traceback(failing: type, capsys: pytest.CaptureFixture[str]) -> None:
    failing.error = ZeroDivisionError("in the depths")  # type: ignore[attr-defined]
    assert status("fail") == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "ZeroDivisionError: in the depths" in shown
    assert "report" in shown


def test_a_file_that_the_system_refuses_is_no_defect(
    failing: type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "film.mp4").write_bytes(b"")
    with pytest.raises(NotADirectoryError) as caught:
        (tmp_path / "film.mp4" / "build").mkdir()
    failing.error = caught.value  # type: ignore[attr-defined]
    assert status("fail") == errors.StorageError.exit_code == 12
    shown = capsys.readouterr().err
    assert shown.startswith(f"Error: {tmp_path}/film.mp4/build could not be read or written: Not a directory. Check")
    assert "defect" not in shown


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "Free space"), (errno.EROFS, "can only be read"), (errno.EACCES, "permissions")],
)
def test_a_refused_file_has_a_remedy(
    failing: type, number: int, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.error = OSError(number, os.strerror(number))  # type: ignore[attr-defined]
    assert status("fail") == 12
    shown = capsys.readouterr().err
    assert os.strerror(number) in shown
    assert remedy in shown


@pytest.mark.parametrize(
    "error", [OSError("could not get source code"), ConnectionResetError(errno.ECONNRESET, "reset")]
)
def test_an_error_of_the_system_that_names_no_file_is_a_defect(
    failing: type, error: OSError, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.error = error  # type: ignore[attr-defined]
    assert status("fail") == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupt(failing: type, capsys: pytest.CaptureFixture[str]) -> None:
    failing.error = KeyboardInterrupt()  # type: ignore[attr-defined]
    assert status("fail") == 130
    assert "Interrupted" in capsys.readouterr().err


def test_exit_code_chosen_by_a_command(failing: type) -> None:
    failing.error = click.exceptions.Exit(VerificationError.exit_code)  # type: ignore[attr-defined]
    assert status("fail") == 7


def test_the_installed_command_and_the_module_are_the_same() -> None:
    module = subprocess.run([sys.executable, "-m", "mvtool", "--version"], capture_output=True, text=True, check=True)
    script = Path(sys.executable).with_name("mvtool")
    command = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert module.stdout == command.stdout != ""


@pytest.mark.skipif(os.name != "posix", reason="pipes and signals of POSIX")
def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "mvtool", "zoo", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.wait(timeout=60)
        assert process.stderr.read() == b""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_a_signal_to_a_real_process(number: signal.Signals, expected: int, tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(
        "import time, click\n@click.command('sleeper')\ndef command():\n    print('ready', flush=True)\n"
        "    try:\n        time.sleep(60)\n    finally:\n        print('cleaning', flush=True)\n        time.sleep(0.5)\n"
        "        print('cleaned', flush=True)\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from mvtool import cli\nfrom mvtool.cli.group import LazyCommand\n"
        "cli.cli._table['sleeper'] = LazyCommand('sleeper', '')\ncli.main(['sleeper'])"
    )
    command = [sys.executable, "-c", code]
    with interruptible_children(), subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.1)
        process.send_signal(number)
        assert process.stdout.readline() == b"cleaning\n"
        # Another one does not disturb the cleaning up.
        process.send_signal(signal.SIGTERM if number != signal.SIGINT else 0)
        printed, shown = process.communicate(timeout=30)
    assert process.returncode == expected
    assert printed == b"cleaned\n"
    assert b"Interrupted" in shown
    assert b"Traceback" not in shown


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of POSIX")
def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
