"""The native runners: compiled from the sources of this package, once per compiler, and kept in a cache.

    mvtool-run-tflite       opens LiteRT or the TFLite C API while running, so one compile serves every such library
    mvtool-run-executorch   is linked with ExecuTorch; on this machine with that of the wheel, which drags in libtorch and
                            libpython, on a phone with the libexecutorch.so of the Android package

A cached runner is found by a key over its sources, its compiler and what it is linked with, so nothing has to be
cleaned up after an update.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.resources
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import mvtool
from mvtool.android_bench.links import BESIDE, PURPOSES, Link, executorch_link, linked_libraries, package_folder
from mvtool.android_bench.toolchain import Target, Toolchain, toolchain_for
from mvtool.bench.device import Runner
from mvtool.errors import ToolchainError, UsageError
from mvtool.files import atomic_path
from mvtool.ports import Runtime

COMPILE_TIMEOUT_S: Final = 600.0
_SHOWN_LINES = 15


def host_runner(runtime: Runtime) -> Runner:
    """The runner for this machine, with the library of the installed wheel.

    Raises:
        UsageError: There is no runner for this runtime.
        MissingExtraError: The wheel is not installed.
        ToolchainError: It cannot be compiled here.
    """
    _check_runtime(runtime)
    if runtime is Runtime.EXECUTORCH:
        package_folder("executorch", "executorch", runtime)
        return Runner(build_runner(runtime, Target.HOST), None, importlib.metadata.version("executorch"))
    folder = package_folder("ai_edge_litert", "tflite", runtime)
    library = folder / "libLiteRt.so"
    version = importlib.metadata.version("ai-edge-litert")
    if not library.is_file():
        raise ToolchainError(
            f"The package ai-edge-litert {version} in {folder} has no {library.name}, which the runner opens. "
            "Install another version with: pip install 'mvtool[tflite]'"
        )
    return Runner(build_runner(runtime, Target.HOST), library, version)


def phone_executorch_runner(target: Target, ndk: Path | None, library: Path, folder: Path) -> Runner:
    """The runner of `.pte` files for a phone, with the libraries that it is linked with beside it.

    Args:
        target: Android's instruction set.
        ndk: Folder of the Android NDK.
        library: `libexecutorch.so`; what it needs and Android does not have, `libfbjni.so`, must lie in the same folder.
        folder: Where the library is copied to under the name that programs ask for, if that is another; it must stay
            until the last run.

    Raises:
        UsageError: A library is missing.
        MissingExtraError: ExecuTorch's wheel is not installed.
        ToolchainError: The compiler is missing or fails.
    """
    beside = linked_libraries(library, folder)
    program = build_runner(Runtime.EXECUTORCH, target, ndk, library)
    return Runner(program, None, importlib.metadata.version("executorch"), beside, dict(BESIDE))


def build_runner(runtime: Runtime, target: Target, ndk: Path | None = None, library: Path | None = None) -> Path:
    """The program for a target, from the cache or compiled.

    Args:
        runtime: Runtime whose files it executes.
        target: What it is compiled for.
        ndk: Folder of the Android NDK, for Android's targets.
        library: The phone's `libexecutorch.so`, for ExecuTorch on Android; of the same version as the wheel, whose
            headers are used.

    Raises:
        UsageError: There is no runner for this runtime and target, or `library` is missing.
        MissingExtraError: ExecuTorch's wheel is not installed.
        ToolchainError: The compiler is missing or fails.
    """
    _check_runtime(runtime)
    link = Link() if runtime is Runtime.TFLITE else executorch_link(target, library)
    return compile_runner(runtime, toolchain_for(target, ndk, cplusplus=runtime is Runtime.EXECUTORCH), link)


def _check_runtime(runtime: Runtime) -> None:
    if runtime not in PURPOSES:
        raise UsageError(f"There is no native runner for {runtime}; expected one of {', '.join(PURPOSES)}.")


def compile_runner(runtime: Runtime, toolchain: Toolchain, link: Link) -> Path:
    """Compile a runner, or take the one that was compiled from the same things before.

    Two processes may do this at once: each compiles in a folder of its own and moves the finished program into place.

    Raises:
        ToolchainError: The compiler fails; the message ends with what it said.
    """
    if toolchain.is_zig and link.libraries:
        raise ToolchainError(
            "ExecuTorch's libraries are made with GNU's C++ library, which zig does not link. Install a C++ compiler "
            "with: apt install g++"
        )
    sources = _sources_hash()
    definitions = _definitions(runtime, link, sources)
    name = f"mvtool-run-{runtime}"
    parts = [sources, toolchain.target, toolchain.identity, *toolchain.arguments, *definitions, *link.versions]
    program = cache_folder() / hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24] / name
    if not os.access(program, os.X_OK):
        with tempfile.TemporaryDirectory(prefix="mvtool-runner-") as work:
            built = _compile(Path(work), toolchain, definitions) / name
            with atomic_path(program) as partial:
                shutil.copy2(built, partial)
    return program


def cache_folder() -> Path:
    """Where compiled runners are kept: `$XDG_CACHE_HOME/mvtool/runners`, by default below `~/.cache`."""
    # The specification of that variable says to ignore a relative path.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "mvtool" / "runners"


def _sources() -> list[tuple[str, bytes]]:
    folder = importlib.resources.files("mvtool.android_bench") / "native"
    return sorted((entry.name, entry.read_bytes()) for entry in folder.iterdir() if entry.is_file())


def _sources_hash() -> str:
    digest = hashlib.sha256()
    for name, content in _sources():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _definitions(runtime: Runtime, link: Link, sources: str) -> tuple[str, ...]:
    definitions = (f"-DMVTOOL_RUNTIME={runtime}", f"-DMVTOOL_VERSION={mvtool.__version__}-{sources[:12]}")
    if not link.libraries:
        return definitions
    return (
        *definitions,
        f"-DMVTOOL_EXECUTORCH_INCLUDE={';'.join(map(str, link.includes))}",
        f"-DMVTOOL_EXECUTORCH_LIBRARIES={';'.join(map(str, link.libraries))}",
        f"-DMVTOOL_MEMORY_INCLUDES={json.dumps(link.memory_includes)}",
    )


def _compile(work: Path, toolchain: Toolchain, definitions: tuple[str, ...]) -> Path:
    """Configure and build in `work`; returns the folder with the program."""
    source, build = work / "source", work / "build"
    source.mkdir()
    for name, content in _sources():
        (source / name).write_bytes(content)
    _run(
        toolchain,
        ("-S", str(source), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release", *toolchain.arguments, *definitions),
    )
    _run(toolchain, ("--build", str(build), "--parallel", "2"))
    return build


def _run(toolchain: Toolchain, arguments: tuple[str, ...]) -> None:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        ended = subprocess.run(
            [toolchain.cmake, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(f"{toolchain.cmake} could not compile the benchmark runner: {error}.") from error
    if ended.returncode != 0:
        lines = [line for line in ended.stdout.decode("utf-8", "replace").splitlines() if line.strip()]
        said = "\n".join(f"    {line}" for line in lines[-_SHOWN_LINES:])
        raise ToolchainError(
            f"The benchmark runner for {toolchain.target} could not be compiled ({toolchain.identity}; {toolchain.cmake} "
            f"ended with status {ended.returncode}). Its last lines:\n{said}\nMend the compiler or name another in CC and "
            "CXX; if the sources are at fault, please report it."
        )
