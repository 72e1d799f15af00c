"""Names in shared libraries, read as readelf reads them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mvtool.android_bench.elf import shared_library
from mvtool.errors import UsageError


def library(path: Path, *flags: str) -> Path:
    source = path.with_suffix(".c")
    source.write_text("int answer(void);\nint answer(void) { return 42; }\n", encoding="ascii")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(path), str(source), *flags], check=True)
    return path


def test_a_library_has_the_name_that_it_was_given(tmp_path: Path) -> None:
    found = shared_library(library(tmp_path / "liba.so", "-Wl,-soname,libother.so", "-Wl,--no-as-needed", "-lm"))
    assert found.soname == "libother.so"
    assert {"libm.so.6", "libc.so.6"} <= set(found.needed)


def test_a_library_without_a_name_has_that_of_its_file(tmp_path: Path) -> None:
    assert shared_library(library(tmp_path / "libb.so")).soname == "libb.so"


@pytest.mark.parametrize("cut", [0, 3, 40, 64, 200])
def test_what_is_no_library_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "libc.so"
    path.write_bytes(library(tmp_path / "libwhole.so").read_bytes()[:cut])
    with pytest.raises(UsageError, match="is no shared library for 64-bit Android"):
        shared_library(path)


def test_other_classes_are_refused(tmp_path: Path) -> None:
    whole = library(tmp_path / "libwhole.so")
    whole.write_bytes(b"\x7fELF\x01" + whole.read_bytes()[5:])
    with pytest.raises(UsageError, match="is no shared library for 64-bit Android"):
        shared_library(whole)


def test_a_missing_file_is_an_error_of_the_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        shared_library(tmp_path / "none.so")
