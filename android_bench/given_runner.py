"""A runner and a runtime library that the user gives: a program, and a `.so` or the archive that holds it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path, PurePosixPath
from typing import Final

from mvtool.android_bench.links import BESIDE, linked_libraries
from mvtool.bench.device import Runner
from mvtool.errors import UsageError
from mvtool.files import write_atomic
from mvtool.ports import Runtime

# e_machine of elf.h to Android's name of the instruction set.
_MACHINES: Final = {3: "x86", 40: "armeabi-v7a", 62: "x86_64", 183: "arm64-v8a", 243: "riscv64"}
# What archives name the library of TFLite, the preferred one first.
_LIBRARIES: Final = ("libLiteRt.so", "libtensorflowlite_jni.so", "libtensorflowlite_c.so", "libtensorflowlite.so")
_ARCHIVES: Final = (".aar", ".zip")
_VERSION: Final = re.compile(r"-(\d+\.\d+(?:\.\d+)?(?:[.-]?\w+)?)\.(?:aar|zip)$")


def given_runner(program: Path, library: Path | None, runtime: Runtime, abi: str, folder: Path) -> Runner:
    """The runner that the user named.

    Args:
        program: The executable.
        library: A `.so`, or an archive (`.aar`, `.zip`) with one for `abi`; None where it is linked into the program.
        runtime: What it executes.
        abi: The device's instruction set, for example `arm64-v8a`.
        folder: Where a library from an archive is written; it must stay until the last run.

    Returns:
        A program for ExecuTorch is linked with its library, which then lies beside it; others open theirs.

    Raises:
        UsageError: A file is missing, is for another instruction set, or the archive holds no such library.
    """
    _check_abi(program, abi)
    if library is not None and runtime is Runtime.EXECUTORCH:
        return Runner(program, None, None, _linked(library, abi, folder), dict(BESIDE))
    version = None
    if library is not None and library.suffix in _ARCHIVES:
        found = _VERSION.search(library.name)
        version = found[1] if found else None
        library = _from_archive(library, runtime, abi, folder)
    if library is not None:
        _check_abi(library, abi)
    return Runner(program=program, library=library, library_version=version)


def _linked(library: Path, abi: str, folder: Path) -> tuple[Path, ...]:
    """The library of ExecuTorch under the name that the program asks for, and those that it needs."""
    if library.suffix in _ARCHIVES:
        raise UsageError(
            f"{library} is an archive; a runner of .pte files is linked with its library, which needs others beside it. Unpack "
            "libexecutorch.so, and libfbjni.so from its own Android package (com.facebook.fbjni:fbjni), into one folder, "
            "and give libexecutorch.so."
        )
    _check_abi(library, abi)
    beside = linked_libraries(library, folder)
    for path in beside:
        _check_abi(path, abi)
    return beside


def _from_archive(archive: Path, runtime: Runtime, abi: str, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [PurePosixPath(name) for name in opened.namelist() if name.endswith(".so")]
            chosen = _choose(archive, names, runtime, abi)
            data = opened.read(str(chosen))
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{archive} cannot be read as an archive: {error}. Give a .so, or an .aar that holds it."
        ) from error
    target = folder / chosen.name
    write_atomic(target, data)
    return target


def _choose(archive: Path, names: list[PurePosixPath], runtime: Runtime, abi: str) -> PurePosixPath:
    matching = [name for name in names if abi in name.parts[:-1]]
    known = [name for wanted in _LIBRARIES for name in matching if name.name == wanted]
    chosen = known[:1] or matching
    if len(chosen) == 1:
        return chosen[0]
    listed = ", ".join(map(str, matching or names)) or "none at all"
    what = f"several libraries for {abi}" if matching else f"no library for {abi}"
    wanted = " or ".join(_LIBRARIES)
    raise UsageError(
        f"{archive} holds {what} (found: {listed}); expected {wanted} of {runtime}. Unpack it and give the .so."
    )


def _check_abi(path: Path, abi: str) -> None:
    try:
        with path.open("rb") as stream:
            header = stream.read(20)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. Give the file itself.") from error
    if header[:4] != b"\x7fELF":
        return  # a script; the device says whether it can execute it
    found = _MACHINES.get(int.from_bytes(header[18:20], "little"), "another instruction set")
    if found != abi:
        raise UsageError(f"{path} is compiled for {found}; the device has {abi}. Give one that is compiled for it.")
