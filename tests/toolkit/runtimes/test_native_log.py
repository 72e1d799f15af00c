"""Log lines of C++ code, and everything else on standard error."""

from __future__ import annotations

import os
import sys

import pytest

from mvtool.runtimes.native_log import NativeLog, native_log


def test_log_lines_are_taken_and_others_come_out(capfd: pytest.CaptureFixture[str]) -> None:
    with native_log() as log:
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n")
        print("a warning of Python", file=sys.stderr)
        os.write(2, b"[XNNCompiler.cpp:823] Failed to create linear node 2\n")
    assert log.lines == ["Created TensorFlow Lite XNNPACK delegate for CPU.", "Failed to create linear node 2"]
    assert log.reason().endswith("Failed to create linear node 2.")
    assert capfd.readouterr().err == "a warning of Python\n"
    os.write(2, b"[after.cpp:1] free again\n")
    assert capfd.readouterr().err == "[after.cpp:1] free again\n"


def test_the_log_of_a_failure_is_there_when_it_is_caught(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with native_log() as log:
            logs.append(log)
            os.write(2, b"[method.cpp:128] Init failed\nplain\n")
            raise RuntimeError("0x1")

    logs: list[NativeLog] = []
    with pytest.raises(RuntimeError, match="0x1"):
        fail()
    (log,) = logs
    assert log.lines == ["Init failed"]
    assert capfd.readouterr().err == "plain\n"


def test_nothing_logged_is_no_reason() -> None:
    with native_log() as log:
        pass
    assert log.reason() == ""
