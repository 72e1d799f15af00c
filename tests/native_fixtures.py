"""Session fixtures for tests of the native runner: compiled programs, fake libraries, and artifacts of one small stream."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_launches import compiled_fake
from native_launches import Artifacts

from mvtool.android_bench.runners import build_runner, host_runner
from mvtool.android_bench.toolchain import Target
from mvtool.bench.device import Runner
from mvtool.ports import Precision, Runtime

# Waiting threads cost tiny models eight times the work on a busy machine. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def program() -> Path:
    """`mvtool-run-tflite` for this machine."""
    return build_runner(Runtime.TFLITE, Target.HOST)


@pytest.fixture(scope="session")
def litert(program: Path) -> Runner:
    """With the library of the installed wheel."""
    return host_runner(Runtime.TFLITE)


@pytest.fixture(scope="session")
def executorch() -> Runner:
    """`mvtool-run-executorch` for this machine."""
    return host_runner(Runtime.EXECUTORCH)


@pytest.fixture(scope="session")
def fake_tflite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled_fake(tmp_path_factory.mktemp("fake"), "tflite.c", "libfake_tflite.so")


@pytest.fixture(scope="session")
def fake_litert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled_fake(tmp_path_factory.mktemp("fake"), "litert.c", "libfake_litert.so")


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """Artifacts of a network with two states, one of whose reset values differs from element to element."""
    folder = tmp_path_factory.mktemp("artifacts")
    written: dict[tuple[Runtime, Precision], Path] = {}

    def artifact(runtime: Runtime, precision: Precision) -> Path:
        if (runtime, precision) not in written:
            from emitted import write
            from ramp_stream import captured

            written[runtime, precision] = write(captured(), runtime, precision, folder)
        return written[runtime, precision]

    return artifact
