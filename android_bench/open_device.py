"""The device that a word of the command line names, and the programs and libraries that the user gives for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from mvtool.android_bench.adb_devices import choose
from mvtool.android_bench.adb_program import find_program
from mvtool.android_bench.given_runner import given_runner
from mvtool.android_bench.host import Host
from mvtool.android_bench.phone import Phone
from mvtool.android_bench.runners import build_runner, phone_executorch_runner
from mvtool.android_bench.toolchain import Target
from mvtool.bench.device import Runner
from mvtool.errors import ToolchainError, UsageError
from mvtool.ports import Runtime

HOST: Final = "host"
ANDROID: Final = "android"


@dataclass(frozen=True)
class Tools:
    """Programs and libraries that the user gives.

    Attributes:
        runner: Runner compiled for the phone.
        library: Runtime library for the phone.
        ndk: Folder of the Android NDK.
        adb: The adb program.
        benchmark_model: Google's tool, compiled for the device.
    """

    runner: Path | None = None
    library: Path | None = None
    ndk: Path | None = None
    adb: Path | None = None
    benchmark_model: Path | None = None


def check_tools(tools: Tools, devices: Sequence[str], runtimes: Sequence[Runtime]) -> None:
    """Refuse, before anything is measured, what would be ignored or cannot work.

    Raises:
        UsageError: A file is missing, is given for no phone, or for two runtimes at once.
    """
    for option, path in (
        ("--runner", tools.runner),
        ("--lib", tools.library),
        ("--benchmark-model", tools.benchmark_model),
    ):
        if path is not None and not path.is_file():
            raise UsageError(f"{option} names {path}, which is no file. Give the file itself.")
    given = [
        name for name, path in (("--runner", tools.runner), ("--lib", tools.library), ("--ndk", tools.ndk)) if path
    ]
    if given and not any(device.startswith(ANDROID) for device in devices):
        raise UsageError(
            f"{' and '.join(given)} is for phones, and only {', '.join(devices)} is measured. Add --device android, or leave it "
            "out: this machine is measured with the libraries of the installed packages."
        )
    if (tools.runner or tools.library) and len(set(runtimes)) > 1:
        raise UsageError(
            "--runner and --lib are for one runtime; choose the artifacts with --runtime tflite or --runtime executorch."
        )


def open_device(name: str, tools: Tools, scratch: Path) -> Host | Phone:
    """The device of a name.

    Args:
        name: `host`, `android`, or `android:SERIAL`.
        tools: What the user gives.
        scratch: Folder for libraries from archives; it must stay until the last run.

    Raises:
        UsageError: It is no such word.
        DeviceError: The phone cannot be used.
    """
    kind, _, serial = name.partition(":")
    if kind == HOST and ":" not in name:
        return Host()
    if kind == ANDROID and (serial or ":" not in name):
        adb = choose(serial or None, find_program(tools.adb))
        return Phone(adb, partial(phone_runner, tools, scratch))
    raise UsageError(f"--device got {name!r}; expected host, android, or android:SERIAL.")


def phone_runner(tools: Tools, scratch: Path, runtime: Runtime, abi: str) -> Runner:
    """The runner for a phone: the user's, or one that is compiled.

    Raises:
        UsageError: The library is missing or does not fit.
        ToolchainError: It cannot be compiled.
    """
    if tools.runner is None and runtime is Runtime.EXECUTORCH:
        return _linked_runner(tools, scratch, abi)
    if tools.library is None and runtime is Runtime.TFLITE:
        raise UsageError(
            f"A phone needs the runtime library for {abi}: give libLiteRt.so or libtensorflowlite_jni.so, or the Android "
            "package (.aar) that holds it, with --lib. docs/benchmarking.md says where they are published."
        )
    program = tools.runner or build_runner(runtime, _target(abi), tools.ndk)
    return given_runner(program, tools.library, runtime, abi, scratch)


def _linked_runner(tools: Tools, scratch: Path, abi: str) -> Runner:
    """The runner of `.pte` files, which is linked with its library."""
    if tools.library is None or tools.library.suffix != ".so":
        raise UsageError(
            f"The runner of .pte files is linked with ExecuTorch's library for {abi}: unpack libexecutorch.so, and libfbjni.so "
            "beside it, from their Android packages (.aar), and name libexecutorch.so with --lib."
        )
    return phone_executorch_runner(_target(abi), tools.ndk, tools.library, scratch)


def _target(abi: str) -> Target:
    known = (Target.ANDROID_ARM64, Target.ANDROID_X86_64)
    for target in known:
        if target == abi:
            return target
    raise ToolchainError(
        f"mvtool compiles runners for {' and '.join(known)}; the phone has {abi}. Compile the sources in mvtool's folder "
        "android_bench/native for it yourself, and give the program with --runner."
    )
