"""What compiles the runner is found, and what is missing is named with the packages that bring it."""

from __future__ import annotations

import importlib.util
import stat
import sys
import sysconfig
from pathlib import Path

import pytest

from mvtool.android_bench.toolchain import Target, toolchain_for
from mvtool.errors import ToolchainError

VARIABLES = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CMAKE_GENERATOR")


class Machine:
    """A folder that is the whole PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, *names: str, says: str = "version 1.0") -> None:
        for name in names:
            path = self.folder / name
            path.write_text(f'#!/bin/sh\necho "{name} {says}"\n', encoding="ascii")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def path(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with nothing: no program on PATH or beside the interpreter, and no zig from pip."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python" / "python"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "python"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    return Machine(folder)


def test_without_cmake_the_packages_are_named(machine: Machine) -> None:
    with pytest.raises(
        ToolchainError, match=r"'cmake' was not found.*pip install cmake ninja ziglang.*apt install cmake"
    ):
        toolchain_for(Target.HOST)


def test_cmake_alone_makes_no_program(machine: Machine) -> None:
    machine.install("cmake")
    with pytest.raises(ToolchainError, match=r"make or ninja.*pip install cmake ninja ziglang"):
        toolchain_for(Target.HOST)


def test_without_a_compiler_the_packages_are_named(machine: Machine) -> None:
    machine.install("cmake", "make")
    with pytest.raises(ToolchainError, match=r"needs a C compiler.*ziglang.*g\+\+"):
        toolchain_for(Target.HOST)


def test_without_a_compiler_of_cplusplus_the_packages_are_named(machine: Machine) -> None:
    machine.install("cmake", "make", "gcc")
    toolchain_for(Target.HOST)
    with pytest.raises(ToolchainError, match=r"needs a C\+\+ compiler"):
        toolchain_for(Target.HOST, cplusplus=True)


def test_the_machines_compilers_are_taken(machine: Machine) -> None:
    machine.install("cmake", "make", "clang", "g++", "cc")
    found = toolchain_for(Target.HOST, cplusplus=True)
    assert found.cmake == machine.path("cmake")
    assert found.arguments == (
        f"-DCMAKE_C_COMPILER={machine.path('clang')}",
        f"-DCMAKE_CXX_COMPILER={machine.path('g++')}",
    )
    assert not found.is_zig


def test_the_identity_follows_versions_and_flags(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.install("cmake", "make", "gcc")
    first = toolchain_for(Target.HOST).identity
    machine.install("gcc", says="version 2.0")
    second = toolchain_for(Target.HOST).identity
    monkeypatch.setenv("CFLAGS", "-O1")
    third = toolchain_for(Target.HOST).identity
    assert "gcc version 1.0" in first
    assert "gcc version 2.0" in second
    assert len({first, second, third}) == 3


def test_compilers_of_the_environment_come_first(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.install("cmake", "make", "gcc", "mine")
    monkeypatch.setenv("CC", "mine -m64")
    assert toolchain_for(Target.HOST).arguments == (f"-DCMAKE_C_COMPILER={machine.path('mine')};-m64",)
    monkeypatch.setenv("CC", "gone")
    with pytest.raises(ToolchainError, match="CC names the compiler 'gone', which was not found"):
        toolchain_for(Target.HOST)


def test_a_compiler_that_does_not_run_is_refused(machine: Machine) -> None:
    machine.install("cmake", "make", "gcc")
    (machine.folder / "gcc").write_text("#!/bin/sh\nexit 3\n", encoding="ascii")
    with pytest.raises(ToolchainError, match="does not tell its version"):
        toolchain_for(Target.HOST)


def test_pips_programs_are_found_beside_the_interpreter(machine: Machine, tmp_path: Path) -> None:
    """An interpreter that is called by its path has its programs beside it, not on PATH."""
    machine.install("gcc")
    beside = Machine(tmp_path / "python")
    beside.folder.mkdir()
    beside.install("cmake", "ninja")
    found = toolchain_for(Target.HOST)
    assert found.cmake == beside.path("cmake")
    assert found.arguments[:2] == ("-GNinja", f"-DCMAKE_MAKE_PROGRAM={beside.path('ninja')}")


def test_a_generator_of_the_environment_is_left_alone(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.install("cmake", "gcc")
    monkeypatch.setenv("CMAKE_GENERATOR", "Ninja Multi-Config")
    assert toolchain_for(Target.HOST).arguments == (f"-DCMAKE_C_COMPILER={machine.path('gcc')}",)


def test_zig_compiles_where_nothing_else_does(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.install("cmake", "make", "python")
    monkeypatch.setattr(sys, "executable", machine.path("python"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "ziglang" or None)
    host, arm = toolchain_for(Target.HOST), toolchain_for(Target.LINUX_ARM64)
    assert host.arguments == (f"-DCMAKE_C_COMPILER={machine.path('python')};-m;ziglang;cc",)
    assert host.is_zig
    assert arm.arguments[-1].endswith(";-m;ziglang;cc;-target;aarch64-linux-gnu.2.31")


def test_debians_cross_compiler_is_taken_for_arm(machine: Machine) -> None:
    machine.install("cmake", "make")
    with pytest.raises(ToolchainError, match="apt install gcc-aarch64-linux-gnu"):
        toolchain_for(Target.LINUX_ARM64)
    machine.install("aarch64-linux-gnu-gcc")
    arguments = toolchain_for(Target.LINUX_ARM64).arguments
    assert arguments[-1] == f"-DCMAKE_C_COMPILER={machine.path('aarch64-linux-gnu-gcc')}"
    assert "-DCMAKE_SYSTEM_PROCESSOR=aarch64" in arguments


def test_other_systems_are_refused_as_a_host(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.install("cmake", "make", "clang")
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ToolchainError, match=r"this machine runs darwin.*--device android"):
        toolchain_for(Target.HOST)


def ndk(folder: Path, revision: str | None) -> Path:
    """A folder with the two files by which an NDK is known."""
    (folder / "build" / "cmake").mkdir(parents=True)
    (folder / "build" / "cmake" / "android.toolchain.cmake").touch()
    if revision is not None:
        text = f"Pkg.Desc = Android NDK\nPkg.Revision = {revision}\n"
        (folder / "source.properties").write_text(text, encoding="ascii")
    return folder


@pytest.mark.parametrize("target", [Target.ANDROID_ARM64, Target.ANDROID_X86_64])
def test_an_ndk_compiles_for_phones(machine: Machine, tmp_path: Path, target: Target) -> None:
    machine.install("cmake", "make")
    folder = ndk(tmp_path / "ndk", "27.2.12479018")
    found = toolchain_for(target, folder)
    assert found.arguments == (
        f"-DCMAKE_TOOLCHAIN_FILE={folder}/build/cmake/android.toolchain.cmake",
        f"-DANDROID_ABI={target}",
        "-DANDROID_PLATFORM=android-26",
        "-DANDROID_STL=c++_static",
    )
    assert "27.2.12479018" in found.identity


def test_folders_that_are_no_ndk_are_refused(machine: Machine, tmp_path: Path) -> None:
    machine.install("cmake", "make")
    with pytest.raises(ToolchainError, match=r"compiled with the Android NDK, and none was given.*--ndk"):
        toolchain_for(Target.ANDROID_ARM64)
    with pytest.raises(ToolchainError, match="is no Android NDK"):
        toolchain_for(Target.ANDROID_ARM64, tmp_path / "nothing")
    with pytest.raises(ToolchainError, match="is no Android NDK"):
        toolchain_for(Target.ANDROID_ARM64, ndk(tmp_path / "without", None))
    with pytest.raises(ToolchainError, match=r"is NDK 21\.4\.7075529; expected 23 or newer"):
        toolchain_for(Target.ANDROID_ARM64, ndk(tmp_path / "old", "21.4.7075529"))
