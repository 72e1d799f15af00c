"""What compiles the native runner: CMake, a build tool, and a compiler for this machine or for a phone.

Nothing of it is installed by mvtool. Where something is missing, the error says which packages bring it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from mvtool.errors import ToolchainError

ANDROID_API: Final = 26
"""Android 8.0: the oldest that LiteRT's own builds are for (litert/cc_sdk/README.md)."""
OLDEST_NDK: Final = 23
"""The first whose toolchain file needs no GNU binutils."""
OLDEST_GLIBC: Final = "2.31"
"""What zig links against, so that a program runs on any Linux since 2020."""
PIP_REMEDY: Final = "Install them with: pip install cmake ninja ziglang, or with: apt install cmake make g++"
_VERSION_TIMEOUT_S = 60.0


class Target(StrEnum):
    """What a runner is compiled for; Android's are the names of the NDK."""

    HOST = "host"
    ANDROID_ARM64 = "arm64-v8a"
    ANDROID_X86_64 = "x86_64"
    LINUX_ARM64 = "linux-arm64"


@dataclass(frozen=True)
class Toolchain:
    """Everything that CMake must be told.

    Attributes:
        target: What it compiles for.
        cmake: Path of CMake.
        arguments: Of the configuration, without those that depend on what is compiled.
        identity: What decides the bytes that come out: compilers, their versions, flags of the environment.
        is_zig: Its C++ library is not the one that ExecuTorch's wheel is linked with.
    """

    target: Target
    cmake: str
    arguments: tuple[str, ...]
    identity: str
    is_zig: bool = False

    def with_arguments(self, *arguments: str) -> Toolchain:
        """The same with more arguments of the configuration, for example flags of the compiler."""
        return replace(self, arguments=(*self.arguments, *arguments))


def toolchain_for(target: Target, ndk: Path | None = None, cplusplus: bool = False) -> Toolchain:
    """The toolchain of this machine for a target.

    Args:
        target: What to compile for.
        ndk: Folder of an Android NDK; Android's targets need it.
        cplusplus: C++ is compiled as well.

    Raises:
        ToolchainError: Something is missing; the message says what brings it.
    """
    cmake = _tool("cmake", "CMake", PIP_REMEDY)
    generator = _generator()
    if target is Target.HOST:
        return _host(cmake, generator, cplusplus)
    if target is Target.LINUX_ARM64:
        return _linux_arm64(cmake, generator)
    if ndk is None:
        raise ToolchainError(
            f"A runner for {target} is compiled with the Android NDK, and none was given. Download it from "
            "https://developer.android.com/ndk/downloads, unpack it, and name its folder with --ndk."
        )
    return _android(cmake, generator, target, ndk)


def _found(name: str) -> str | None:
    """Path of a program; pip puts programs beside the interpreter, which need not be on PATH."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), sysconfig.get_path("scripts")])
    return shutil.which(name) or shutil.which(name, path=beside)


def _tool(name: str, what: str, remedy: str) -> str:
    path = _found(name)
    if path is None:
        raise ToolchainError(f"The benchmark runner is compiled with {what}, and {name!r} was not found. {remedy}")
    return path


def _generator() -> tuple[str, ...]:
    """CMake makes no program itself; it writes files for make, which pip does not bring, or for ninja."""
    if "CMAKE_GENERATOR" in os.environ or _found("make"):
        return ()
    ninja = _tool("ninja", "make or ninja", PIP_REMEDY)
    return ("-GNinja", f"-DCMAKE_MAKE_PROGRAM={ninja}")


def _host(cmake: str, generator: tuple[str, ...], cplusplus: bool) -> Toolchain:
    if sys.platform != "linux":
        raise ToolchainError(
            f"The benchmark runner reads its memory from /proc, which Linux and Android have; this machine runs "
            f"{sys.platform}. Measure on Linux, or on a phone with --device android."
        )
    c = _compiler("CC", ("gcc", "clang", "cc")) or _zig("cc")
    compilers = {"C": c}
    if cplusplus:
        compilers["CXX"] = _compiler("CXX", ("g++", "clang++", "c++")) or _zig("c++")
    is_zig = any(_is_zig(command) for command in compilers.values())
    identity = "; ".join(f"{command[0]}: {_version(command)}" for command in compilers.values())
    arguments = tuple(f"-DCMAKE_{language}_COMPILER={';'.join(path)}" for language, path in compilers.items())
    return Toolchain(Target.HOST, cmake, (*generator, *arguments), f"{identity}; {_flags()}", is_zig)


def _compiler(variable: str, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """The compiler of the environment, or the first of `names` that is there."""
    wish = shlex.split(os.environ.get(variable, ""))
    if wish:
        path = _found(wish[0])
        if path is None:
            raise ToolchainError(
                f"{variable} names the compiler {wish[0]!r}, which was not found. Unset {variable}, or name one."
            )
        return (path, *wish[1:])
    found = next(filter(None, map(_found, names)), None)
    return (found,) if found else None


def _zig(language: str) -> tuple[str, ...]:
    if importlib.util.find_spec("ziglang") is None:
        kind = "C++" if language == "c++" else "C"
        raise ToolchainError(f"The benchmark runner needs a {kind} compiler, and none was found. {PIP_REMEDY}")
    return (sys.executable, "-m", "ziglang", language)


def _is_zig(command: tuple[str, ...]) -> bool:
    return "ziglang" in command


def _flags() -> str:
    return " ".join(f"{name}={os.environ.get(name, '')}" for name in ("CFLAGS", "CXXFLAGS", "LDFLAGS"))


def _version(command: tuple[str, ...]) -> str:
    try:
        ended = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolchainError(
            f"The compiler {shlex.join(command)} does not tell its version: {error}. Install a compiler that works, or "
            "name one in CC and CXX."
        ) from error
    return ended.stdout.partition("\n")[0].strip()


def _linux_arm64(cmake: str, generator: tuple[str, ...]) -> Toolchain:
    """Debian's cross compiler, else zig, which brings the C library of every Linux."""
    system = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64")
    gcc = _found("aarch64-linux-gnu-gcc")
    if gcc is not None:
        arguments = (*generator, *system, f"-DCMAKE_C_COMPILER={gcc}")
        return Toolchain(Target.LINUX_ARM64, cmake, arguments, f"{gcc}: {_version((gcc,))}; {_flags()}")
    try:
        zig = _zig("cc")
    except ToolchainError as error:
        raise ToolchainError(
            "No compiler for 64-bit ARM under Linux was found. Install one with: pip install ziglang, or with: "
            "apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
        ) from error
    triple = f"aarch64-linux-gnu.{OLDEST_GLIBC}"
    arguments = (*generator, *system, f"-DCMAKE_C_COMPILER={';'.join((*zig, '-target', triple))}")
    return Toolchain(Target.LINUX_ARM64, cmake, arguments, f"zig {triple}: {_version(zig)}; {_flags()}", is_zig=True)


def _android(cmake: str, generator: tuple[str, ...], target: Target, ndk: Path) -> Toolchain:
    file = ndk / "build" / "cmake" / "android.toolchain.cmake"
    revision = _ndk_revision(ndk)
    if revision is None or not file.is_file():
        raise ToolchainError(
            f"{ndk} is no Android NDK: it lacks source.properties with a Pkg.Revision, or {file.relative_to(ndk)}. Name "
            "the folder that holds both, for example $ANDROID_HOME/ndk/27.2.12479018."
        )
    if int(revision.partition(".")[0]) < OLDEST_NDK:
        raise ToolchainError(f"{ndk} is NDK {revision}; expected {OLDEST_NDK} or newer. Install a newer one.")
    arguments = (
        *generator,
        f"-DCMAKE_TOOLCHAIN_FILE={file.resolve()}",
        f"-DANDROID_ABI={target.value}",
        f"-DANDROID_PLATFORM=android-{ANDROID_API}",
        # The library of ExecuTorch holds a C++ library of its own and passes no objects of it.
        "-DANDROID_STL=c++_static",
    )
    return Toolchain(target, cmake, arguments, f"NDK {revision} in {ndk.resolve()}; API {ANDROID_API}")


def _ndk_revision(ndk: Path) -> str | None:
    try:
        text = (ndk / "source.properties").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^Pkg\.Revision\s*=\s*(\d[\w.-]*)\s*$", text, re.MULTILINE)
    return found[1] if found else None
