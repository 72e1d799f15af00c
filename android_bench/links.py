"""What runners are linked with: the libraries of the installed wheels, or that of a phone."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mvtool.android_bench.elf import shared_library
from mvtool.android_bench.toolchain import Target
from mvtool.errors import MissingExtraError, ToolchainError, UsageError
from mvtool.files import atomic_path, sha256_of
from mvtool.ports import Runtime

PURPOSES: Final = {Runtime.TFLITE: "to measure .tflite files", Runtime.EXECUTORCH: "to measure .pte files"}
ANDROID_LIBRARIES: Final = frozenset(
    ("libandroid.so", "libc.so", "libdl.so", "liblog.so", "libm.so", "libneuralnetworks.so", "libz.so")
)
"""Of every phone (https://developer.android.com/ndk/guides/stable_apis)."""
BESIDE: Final = {"LD_LIBRARY_PATH": "."}
"""Environment of a runner that finds its libraries in its own folder."""


@dataclass(frozen=True)
class Link:
    """What a runner is compiled and linked with besides its own sources.

    Attributes:
        includes: Folders of headers.
        libraries: Files, the one with the runtime first.
        memory_includes: What they bring into the process that an app would not hold.
        versions: Of the packages that they are from.
    """

    includes: tuple[Path, ...] = ()
    libraries: tuple[Path, ...] = ()
    memory_includes: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()


def package_folder(module: str, extra: str, runtime: Runtime) -> Path:
    """Folder of an installed package, which is not imported.

    Raises:
        MissingExtraError: It is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(module, extra, PURPOSES[runtime])
    return Path(next(iter(spec.submodule_search_locations)))


def executorch_link(target: Target, library: Path | None) -> Link:
    """What a runner of `.pte` files is linked with.

    Args:
        target: This machine, or Android's.
        library: The phone's `libexecutorch.so`; of no use for this machine.

    Raises:
        UsageError: The phone's library is missing, or there is none for the target.
        MissingExtraError: A wheel is not installed.
        ToolchainError: A wheel or this Python lacks a library.
    """
    package = package_folder("executorch", "executorch", Runtime.EXECUTORCH)
    include = package / "include"
    includes = (include, include / "executorch" / "runtime" / "core" / "portable_type" / "c10")
    version = importlib.metadata.version("executorch")
    if target is Target.HOST:
        torch = package_folder("torch", "executorch", Runtime.EXECUTORCH) / "lib"
        versions = (f"executorch {version}", f"torch {importlib.metadata.version('torch')}")
        return Link(includes, _wheel_libraries(package, torch), ("libtorch", "libpython"), versions)
    if target is Target.LINUX_ARM64:
        raise UsageError("There is no ExecuTorch library for 64-bit ARM under Linux to link a runner with.")
    if library is None or not library.is_file():
        raise UsageError(
            f"A runner of .pte files for phones is linked with the phone's library, got {library}. Unpack libexecutorch.so "
            f"from the Android package org.pytorch:executorch-android:{version} and name it with --lib."
        )
    return Link(includes, (library.resolve(),), (), (f"executorch {version}", sha256_of(library)))


def linked_libraries(library: Path, folder: Path) -> tuple[Path, ...]:
    """What must lie beside a runner on a phone that is linked with a library: that one, and those that it needs.

    Args:
        library: For example `libexecutorch.so`; what it needs and Android does not have must lie in the same folder.
        folder: Where the library is copied to under the name that programs ask for, if that is another; it must stay
            until the last run.

    Raises:
        UsageError: It is no shared library, or one that it needs is missing.
    """
    names = shared_library(library)
    needed = [library.parent / name for name in names.needed if name not in ANDROID_LIBRARIES]
    if missing := [str(path) for path in needed if not path.is_file()]:
        raise UsageError(
            f"{library} needs {', '.join(missing)}, which Android does not have. Put it there; libfbjni.so is in the Android "
            "package com.facebook.fbjni:fbjni, below jni/."
        )
    if names.soname == library.name:
        return library, *needed
    # Several phones may ask for it at the same time.
    with atomic_path(folder / names.soname) as partial:
        shutil.copy2(library, partial)
    return folder / names.soname, *needed


def _wheel_libraries(package: Path, torch: Path) -> tuple[Path, ...]:
    runtime = package / "extension" / "pybindings" / f"_portable_lib{sysconfig.get_config_var('EXT_SUFFIX')}"
    # On x86-64 the wheel keeps some symbols of the runtime, such as logging, in Qualcomm's backend.
    qualcomm = package / "backends" / "qualcomm" / "libqnn_executorch_backend.so"
    names = ("libtorch_python.so", "libtorch.so", "libtorch_cpu.so", "libc10.so")
    libraries = (runtime, *([qualcomm] if qualcomm.is_file() else []), *(torch / name for name in names))
    if missing := [str(path) for path in libraries if not path.is_file()]:
        raise ToolchainError(
            f"The installed executorch and torch lack {', '.join(missing)}, which the runner is linked with. Install them "
            "anew with: pip install --force-reinstall 'mvtool[executorch]'"
        )
    return (*libraries, _python_library())


def _python_library() -> Path:
    """The interpreter as a library; the wheel's extension is linked with nothing else that brings its symbols."""
    names = _configured("INSTSONAME", "LDLIBRARY")
    multiarch = [f"/usr/lib/{triple}" for triple in _configured("MULTIARCH")]
    folders = [*_configured("LIBDIR"), f"{sys.base_prefix}/lib", "/usr/lib", *multiarch]
    paths = [Path(folder) / name for folder in folders for name in names if ".so" in name]
    if found := next(filter(Path.is_file, paths), None):
        return found
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise ToolchainError(
        f"This Python ({sys.executable}) has no shared library libpython{version}.so, which the runner of .pte files for "
        f"this machine is linked with. Install it, for example with: apt install libpython{version}, or use a Python that "
        "was built with --enable-shared."
    )


def _configured(*names: str) -> list[str]:
    """What this Python was built with, as far as it tells."""
    return [str(value) for value in map(sysconfig.get_config_var, names) if value]
