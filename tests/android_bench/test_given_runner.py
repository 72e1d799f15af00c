"""Runners and libraries that the user gives."""

from __future__ import annotations

import platform
import struct
import zipfile
from pathlib import Path

import pytest
from fake_launches import small_library

from mvtool.android_bench import links
from mvtool.android_bench.given_runner import given_runner
from mvtool.errors import UsageError
from mvtool.ports import Runtime

ARM64, ARM32, X86_64 = 183, 40, 62


def elf(machine: int) -> bytes:
    """The begin of a program or library."""
    return b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HH", 3, machine) + bytes(100)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "mvtool-run-tflite"
    path.write_bytes(elf(ARM64))
    return path


def archive(folder: Path, *names: str) -> Path:
    path = folder / "litert-2.1.6.aar"
    machines = {"arm64-v8a": ARM64, "armeabi-v7a": ARM32, "x86_64": X86_64}
    with zipfile.ZipFile(path, "w") as written:
        for name in names:
            written.writestr(name, elf(machines[name.split("/")[1]]))
        written.writestr("AndroidManifest.xml", "<manifest/>")
    return path


def give(program: Path, library: Path | None, runtime: Runtime = Runtime.TFLITE) -> tuple[str | None, str | None]:
    """Name and version of the library of the runner for a phone."""
    out = program.parent / "out"
    out.mkdir(exist_ok=True)
    runner = given_runner(program, library, runtime, "arm64-v8a", out)
    assert runner.program == program
    return (runner.library.name if runner.library else None), runner.library_version


def test_a_library_or_none(program: Path, tmp_path: Path) -> None:
    assert give(program, None) == (None, None)
    library = tmp_path / "libLiteRt.so"
    library.write_bytes(elf(ARM64))
    assert give(program, library) == ("libLiteRt.so", None)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["jni/arm64-v8a/libLiteRt.so", "jni/armeabi-v7a/libLiteRt.so", "jni/x86_64/libLiteRt.so"], "libLiteRt.so"),
        (["jni/arm64-v8a/liblitert_jni.so", "jni/arm64-v8a/libLiteRt.so"], "libLiteRt.so"),
        (["jni/arm64-v8a/libtensorflowlite_jni.so"], "libtensorflowlite_jni.so"),
        (["jni/arm64-v8a/libsomething.so"], "libsomething.so"),
    ],
)
def test_the_one_library_of_an_archive(program: Path, tmp_path: Path, names: list[str], chosen: str) -> None:
    assert give(program, archive(tmp_path, *names)) == (chosen, "2.1.6")
    assert (tmp_path / "out" / chosen).read_bytes() == elf(ARM64)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"no library for arm64-v8a \(found: none at all\)"),
        (["jni/x86_64/libLiteRt.so"], r"no library for arm64-v8a \(found: jni/x86_64/libLiteRt.so\)"),
        (["jni/arm64-v8a/liba.so", "jni/arm64-v8a/libb.so"], r"several libraries for arm64-v8a.*expected libLiteRt.so"),
    ],
)
def test_an_archive_without_the_library(program: Path, tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        give(program, archive(tmp_path, *names))


def test_a_runner_of_executorch_has_its_libraries_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is linked with them; the published library calls itself libexecutorch_jni.so."""
    monkeypatch.setattr(links, "ANDROID_LIBRARIES", {"libc.so.6"})
    abi = {"x86_64": "x86_64", "aarch64": "arm64-v8a"}[platform.machine()]
    program, out = tmp_path / "mvtool-run-executorch", tmp_path / "out"
    program.write_text("#!/bin/sh\n")
    out.mkdir()
    companion = small_library(tmp_path / "libfbjni.so", "-Wl,-soname,libfbjni.so")
    library = small_library(
        tmp_path / "libexecutorch.so", "-Wl,-soname,libexecutorch_jni.so", "-Wl,--no-as-needed", str(companion)
    )
    runner = given_runner(program, library, Runtime.EXECUTORCH, abi, out)
    assert (runner.program, runner.library, runner.library_version) == (program, None, None)
    assert (runner.beside, runner.environment) == (
        (out / "libexecutorch_jni.so", companion),
        {"LD_LIBRARY_PATH": "."},
    )
    assert runner.beside[0].read_bytes() == library.read_bytes()
    with pytest.raises(UsageError, match=r"libexecutorch\.so is compiled for"):
        given_runner(program, library, Runtime.EXECUTORCH, "armeabi-v7a", out)
    assert given_runner(program, None, Runtime.EXECUTORCH, abi, out).beside == ()
    companion.unlink()
    with pytest.raises(UsageError, match=r"needs .*libfbjni\.so"):
        given_runner(program, library, Runtime.EXECUTORCH, abi, out)


def test_an_archive_is_no_library_of_executorch(program: Path, tmp_path: Path) -> None:
    path = archive(tmp_path, "jni/arm64-v8a/libfbjni.so", "jni/arm64-v8a/libexecutorch.so")
    with pytest.raises(
        UsageError, match=r"litert-2\.1\.6\.aar is an archive.*Unpack libexecutorch\.so, and libfbjni\.so"
    ):
        give(program, path, Runtime.EXECUTORCH)


def test_files_for_another_instruction_set(program: Path, tmp_path: Path) -> None:
    library = tmp_path / "libLiteRt.so"
    library.write_bytes(elf(X86_64))
    with pytest.raises(UsageError, match=r"libLiteRt.so is compiled for x86_64; the device has arm64-v8a"):
        give(program, library)
    program.write_bytes(elf(ARM32))
    with pytest.raises(UsageError, match=r"mvtool-run-tflite is compiled for armeabi-v7a"):
        give(program, None)


def test_files_that_cannot_be_read(program: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.so cannot be read"):
        give(program, tmp_path / "none.so")
    broken = tmp_path / "broken.aar"
    broken.write_bytes(b"no archive")
    with pytest.raises(UsageError, match=r"broken\.aar cannot be read as an archive"):
        give(program, broken)
