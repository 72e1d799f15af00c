"""Launches of the native runner in a folder of their own, and what the Python session computes on the same frames."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from mvtool.bench.device import Runner
from mvtool.bench.plan import PLAN_FILE, InputFile, Plan
from mvtool.bench.run_result import RunResult
from mvtool.ports import AnyArray, PortManifest, Precision, Runtime, TensorPort
from mvtool.runtimes import open_file

FRAMES = 5
"""Different frames, fed in turn."""
TIMEOUT_S = 120.0

Artifacts = Callable[[Runtime, Precision], Path]


@dataclass(frozen=True)
class Launch:
    """A runner and an artifact in one folder.

    Attributes:
        folder: Everything that the plan names.
        program: Command that the plan is appended to.
        plan: What a launch does where nothing else is said.
        environment: Variables for the process.
    """

    folder: Path
    program: tuple[str, ...]
    plan: Plan
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, text: str | None = None, **changes: Any) -> subprocess.CompletedProcess[str]:
        """Run the plan with some fields changed, or a plan that is `text`."""
        plan = replace(self.plan, **changes)
        (self.folder / PLAN_FILE).write_text(plan.to_text() if text is None else text, encoding="utf-8")
        return self.command(PLAN_FILE)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the program with these arguments."""
        return subprocess.run(
            [*self.program, *arguments],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def run(self, **changes: Any) -> RunResult:
        """The result of a launch that must end well."""
        ended = self.start(**changes)
        assert ended.returncode == 0, ended.stderr
        return RunResult.parse((self.folder / self.plan.result).read_bytes(), "this machine")


def frames_of(manifest: PortManifest, count: int = FRAMES) -> list[list[AnyArray]]:
    """Stored arrays of every input that is no state, one list per frame, the same in every call."""
    generator = np.random.default_rng(11)
    real = [[generator.random(port.logical_shape, dtype=np.float32) for port in manifest.inputs] for _ in range(count)]
    return [[p.encode(a) for p, a in zip(manifest.inputs, frame, strict=True)] for frame in real]


def prepare(folder: Path, artifact: Path, runner: Runner, command: tuple[str, ...] = (), **options: Any) -> Launch:
    """Put everything that a launch needs into `folder`.

    Args:
        folder: Is created.
        artifact: `.tflite` or `.pte` with a port manifest.
        runner: Its library is copied beside the program.
        command: What runs the program, for example an emulator.
        options: Fields of the plan.
    """
    folder.mkdir()
    manifest = open_file(artifact).manifest
    frames = frames_of(manifest)
    inputs = []
    for index, port in enumerate(manifest.inputs):
        name = f"input_{port.name}.bin"
        (folder / name).write_bytes(b"".join(frame[index].tobytes() for frame in frames))
        inputs.append(InputFile(name, FRAMES))
    library = runner.library.name if runner.library else None
    plan = replace(
        Plan(manifest, artifact.name, library, tuple(inputs), min_invokes=3, max_seconds=60.0),
        **options,
    )
    for name, data in plan.reset_files().items():
        (folder / name).write_bytes(data)
    for source in filter(None, (artifact, runner.program, runner.library, *runner.beside)):
        shutil.copy2(source, folder / source.name)
    return Launch(folder, (*command, f"./{runner.program.name}"), plan, runner.environment)


def expected_dump(artifact: Path, steps: int) -> bytes:
    """What `check.bin` must hold: the stored outputs of each step, then the states, computed by the Python session."""
    session = open_file(artifact)
    manifest, frames = session.manifest, frames_of(session.manifest)
    outputs = []
    for step in range(steps):
        frame = frames[step % FRAMES]
        real = session.step(*(p.decode(a) for p, a in zip(manifest.inputs, frame, strict=True)))
        outputs += [port.encode(real[port.name]).tobytes() for port in manifest.outputs]
    states = session.state()
    return b"".join([*outputs, *(states[b.state].tobytes() for b in manifest.states)])


def split(manifest: PortManifest, dump: bytes, steps: int) -> list[tuple[TensorPort, AnyArray]]:
    """Port and stored array of everything in a check file."""
    ports: list[TensorPort] = [*list(manifest.outputs) * steps, *(b.output for b in manifest.states)]
    parts, at = [], 0
    for port in ports:
        parts.append((port, np.frombuffer(dump[at : at + port.size_bytes], port.dtype).reshape(port.shape)))
        at += port.size_bytes
    assert at == len(dump)
    return parts


def needed(variable: str, what: str) -> Path:
    """A path that the environment names; without it the test is skipped, and fails in continuous integration."""
    value = os.environ.get(variable)
    if value:
        return Path(value)
    unavailable(f"{variable} does not name {what}; `.ci/setup` fetches it")


def unavailable(reason: str) -> NoReturn:
    """Skip the test for what this machine lacks; in continuous integration, which must have it, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
