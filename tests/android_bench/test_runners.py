"""Runners are compiled once per compiler and sources, safely by several processes, and errors show the compiler's words."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from fake_launches import small_library

from mvtool.android_bench import links, runners
from mvtool.android_bench.links import Link
from mvtool.android_bench.runners import build_runner, compile_runner, host_runner, phone_executorch_runner
from mvtool.android_bench.toolchain import Target, Toolchain, toolchain_for
from mvtool.bench.device import Runner
from mvtool.errors import MissingExtraError, ToolchainError, UsageError
from mvtool.ports import Runtime

pytest_plugins = ["native_fixtures"]

ROOT = Path(__file__).parents[2]
PAGE_16K = 16384


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mvtool" / "runners"


@pytest.fixture
def fake_cmake(tmp_path: Path) -> Toolchain:
    """A toolchain whose CMake writes the program at once and counts its calls in a file."""
    script = tmp_path / "cmake"
    script.write_text(
        f"""#!/bin/sh
echo "$@" >> {tmp_path}/calls
if [ "$1" = "--build" ]; then
    echo made > "$2/mvtool-run-tflite"
    chmod +x "$2/mvtool-run-tflite"
else
    mkdir -p "$4"
fi
""",
        encoding="ascii",
    )
    script.chmod(0o755)
    return Toolchain(Target.HOST, str(script), (), "fake 1.0")


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    return path.read_text(encoding="ascii").splitlines() if path.exists() else []


def test_the_host_runner_has_the_library_of_the_wheel(litert: Runner) -> None:
    assert litert.library is not None
    assert litert.library.name == "libLiteRt.so"
    assert litert.library_version == importlib.metadata.version("ai-edge-litert")
    assert (litert.program.name, os.access(litert.program, os.X_OK)) == ("mvtool-run-tflite", True)


@pytest.mark.slow
def test_the_host_runner_of_executorch_is_linked(executorch: Runner) -> None:
    assert executorch.library is None
    assert executorch.library_version
    ended = subprocess.run([executorch.program, "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("mvtool-run-executorch ")


def test_a_runner_is_compiled_once(cache: Path, fake_cmake: Toolchain, tmp_path: Path) -> None:
    first = compile_runner(Runtime.TFLITE, fake_cmake, Link())
    assert first.parent.parent == cache
    assert len(calls(tmp_path)) == 2
    assert compile_runner(Runtime.TFLITE, fake_cmake, Link()) == first
    assert len(calls(tmp_path)) == 2


def test_another_compiler_or_link_gives_another_runner(
    cache: Path, fake_cmake: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {compile_runner(Runtime.TFLITE, fake_cmake, Link())}
    made.add(compile_runner(Runtime.TFLITE, fake_cmake.with_arguments("-DX=1"), Link()))
    made.add(compile_runner(Runtime.TFLITE, fake_cmake, Link(versions=("executorch 1.0",))))
    monkeypatch.setattr(runners, "_sources_hash", lambda: "0" * 64)
    made.add(compile_runner(Runtime.TFLITE, fake_cmake, Link()))
    assert len(made) == 4


def test_a_relative_cache_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the specification of XDG_CACHE_HOME says."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert runners.cache_folder() == tmp_path / ".cache" / "mvtool" / "runners"


def test_what_the_compiler_said_is_in_the_error(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "broken-cc"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo broken 1.0; exit 0; }\necho "broken: no such luck" >&2\nexit 1\n',
        encoding="ascii",
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(ToolchainError, match=r"broken 1\.0.*(?s:.*)broken: no such luck"):
        build_runner(Runtime.TFLITE, Target.HOST)
    assert not list(cache.rglob("mvtool-run-*"))


@pytest.mark.slow
def test_two_processes_may_compile_at_once(cache: Path) -> None:
    """Both end with the same program, which works."""
    code = "from mvtool.android_bench.runners import *\nprint(build_runner(Runtime.TFLITE, Target.HOST))"
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(2)
    ]
    printed = {process.communicate(timeout=300)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    (program,) = printed
    assert subprocess.run([program, "--version"], capture_output=True, check=True).stdout
    assert sorted(path.name for path in cache.rglob("*")) == sorted([Path(program).parent.name, "mvtool-run-tflite"])


@pytest.mark.parametrize(
    ("runtime", "package"), [(Runtime.TFLITE, "ai_edge_litert"), (Runtime.EXECUTORCH, "executorch")]
)
def test_a_missing_wheel_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, runtime: Runtime, package: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    with pytest.raises(MissingExtraError, match=rf"'{package}' is not installed.*pip install 'mvtool\[{runtime}\]'"):
        host_runner(runtime)


def test_a_wheel_without_the_library_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runners, "package_folder", lambda *arguments: tmp_path)
    with pytest.raises(ToolchainError, match=r"has no libLiteRt\.so"):
        host_runner(Runtime.TFLITE)


def test_core_ml_has_no_native_runner() -> None:
    with pytest.raises(UsageError, match="no native runner for coreml; expected one of tflite, executorch"):
        host_runner(Runtime.COREML)


def test_executorch_on_a_phone_needs_the_phones_library(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"libexecutorch\.so.*--lib"):
        build_runner(Runtime.EXECUTORCH, Target.ANDROID_ARM64, library=tmp_path / "none.so")
    with pytest.raises(UsageError, match="64-bit ARM under Linux"):
        build_runner(Runtime.EXECUTORCH, Target.LINUX_ARM64)


def test_the_phones_library_lies_beside_under_the_name_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The published libexecutorch.so calls itself libexecutorch_jni.so and needs libfbjni.so."""
    given, folder = tmp_path / "given", tmp_path / "folder"
    given.mkdir()
    folder.mkdir()
    companion = small_library(given / "libfbjni.so", "-Wl,-soname,libfbjni.so")
    library = small_library(
        given / "libexecutorch.so", "-Wl,-soname,libexecutorch_jni.so", "-Wl,--no-as-needed", str(companion)
    )
    monkeypatch.setattr(runners, "build_runner", lambda *arguments: tmp_path / "program")
    monkeypatch.setattr(links, "ANDROID_LIBRARIES", {"libc.so.6"})
    runner = phone_executorch_runner(Target.ANDROID_ARM64, None, library, folder)
    assert (runner.library, runner.beside) == (None, (folder / "libexecutorch_jni.so", companion))
    assert runner.environment == {"LD_LIBRARY_PATH": "."}
    assert runner.beside[0].read_bytes() == library.read_bytes()
    companion.unlink()
    with pytest.raises(UsageError, match=r"needs .*libfbjni\.so.*com\.facebook\.fbjni:fbjni"):
        phone_executorch_runner(Target.ANDROID_ARM64, None, library, folder)


def test_a_python_without_a_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name, package=None: None)
    with pytest.raises(ToolchainError, match=r"no shared library libpython3.*apt install libpython3"):
        links._python_library()


def test_zig_does_not_link_executorch(fake_cmake: Toolchain) -> None:
    zig = Toolchain(Target.HOST, fake_cmake.cmake, (), "zig", is_zig=True)
    with pytest.raises(ToolchainError, match=r"apt install g\+\+"):
        compile_runner(Runtime.EXECUTORCH, zig, Link(libraries=(Path("libx.so"),)))


def test_the_sources_are_shipped() -> None:
    """All of them, as text; no compiled program among them."""
    shipped = {name for name, _ in runners._sources()}
    assert shipped == {path.name for path in (ROOT / "android_bench" / "native").iterdir() if path.is_file()}
    assert {"CMakeLists.txt", "main.c", "executorch.cpp"} <= shipped
    assert {Path(name).suffix for name in shipped} == {".txt", ".c", ".h", ".cpp"}


def strict(toolchain: Toolchain) -> Toolchain:
    return toolchain.with_arguments("-DMVTOOL_WERROR=ON")


@pytest.mark.slow
def test_the_sources_compile_without_a_warning(cache: Path) -> None:
    compile_runner(Runtime.TFLITE, strict(toolchain_for(Target.HOST)), Link())


@pytest.mark.slow
def test_the_sources_compile_without_a_warning_for_executorch_and_arm(cache: Path) -> None:
    link = links.executorch_link(Target.HOST, None)
    compile_runner(Runtime.EXECUTORCH, strict(toolchain_for(Target.HOST, cplusplus=True)), link)
    compile_runner(Runtime.TFLITE, strict(toolchain_for(Target.LINUX_ARM64)), Link())


@pytest.mark.slow
def test_programs_for_android_are_aligned_to_large_pages(cache: Path, tmp_path: Path) -> None:
    """With a stand-in for the NDK that says what the NDK's file says and compiles with this machine's compiler."""
    ndk = tmp_path / "ndk"
    (ndk / "build" / "cmake").mkdir(parents=True)
    (ndk / "source.properties").write_text("Pkg.Revision = 27.2.12479018\n", encoding="ascii")
    (ndk / "build" / "cmake" / "android.toolchain.cmake").write_text("set(ANDROID TRUE)\n", encoding="ascii")
    program = build_runner(Runtime.TFLITE, Target.ANDROID_X86_64, ndk)
    readelf = shutil.which("readelf")
    assert readelf, "binutils come with every compiler for Linux"
    listing = subprocess.run([readelf, "-lW", program], capture_output=True, text=True, check=True).stdout
    alignments = {int(line.split()[-1], 16) for line in listing.splitlines() if line.strip().startswith("LOAD")}
    assert alignments == {PAGE_16K}
