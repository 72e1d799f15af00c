"""A device for tests of the run itself: a folder, and a runner in Python that really executes the artifact."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mvtool.bench.device import Runner
from mvtool.bench.plan import CHECK_FILE, RESULT_FILE
from mvtool.bench.record import DeviceFacts, DeviceKind, Moment, Place, Reading
from mvtool.bench.run_result import END_MARK, RUN_SCHEMA
from mvtool.errors import RunnerError
from mvtool.ports import AnyArray, Runtime
from mvtool.runtimes import open_file
from mvtool.runtimes.base import PortSession

INVOKE_NS = 1_000_000
Damage = Callable[[dict[str, Any], bytearray], None]


@dataclass
class FakeDevice:
    """Executes plans through `mvtool.open`; every invoke takes a millisecond by its own account.

    Attributes:
        folder: Where workspaces are made.
        damage: Changes the result document and the dump before they are written.
        readings: Given out in turn; the last one again and again.
        events: What was done, in order.
    """

    folder: Path
    damage: Damage = lambda result, dump: None
    readings: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    events: list[str] = field(default_factory=list)
    open_workspaces: int = 0
    made: int = 0

    def facts(self) -> DeviceFacts:
        return DeviceFacts(
            kind=DeviceKind.HOST,
            serial="fake",
            name="Fake One",
            abi="x86_64",
            cores=2,
            memory_bytes=1 << 30,
            os="Linux",
            os_version="6",
            build="test",
        )

    def runner(self, runtime: Runtime) -> Runner:
        program = self.folder / f"runner-{runtime}"
        program.write_text("not executed")
        return Runner(program, None, "1.0")

    def reading(self, moment: Moment, time_s: float) -> Reading:
        self.events.append(f"reading {moment}")
        fields = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        return Reading(moment=moment, time_s=time_s, **fields)

    @contextmanager
    def workspace(self) -> Iterator[FakeWorkspace]:
        self.made += 1
        place = self.folder / f"space-{self.made}"
        place.mkdir()
        self.open_workspaces += 1
        try:
            yield FakeWorkspace(self, place)
        finally:
            self.open_workspaces -= 1


@dataclass
class FakeWorkspace:
    device: FakeDevice
    place: Path

    def put(self, source: Path, name: str, executable: bool = False) -> None:
        del executable
        (self.place / name).write_bytes(source.read_bytes())

    def execute(self, program: str, arguments: tuple[str, ...], environment: dict[str, str], timeout_s: float) -> str:
        del environment, timeout_s
        self.device.events.append(f"execute {program} in {self.place.name}")
        lines = [line.split() for line in (self.place / arguments[0]).read_text().splitlines()]
        result, dump = _follow(self.place, lines)
        self.device.damage(result, dump)
        (self.place / RESULT_FILE).write_text(json.dumps(result))
        (self.place / CHECK_FILE).write_bytes(dump)
        return ""

    def get(self, name: str) -> bytes:
        path = self.place / name
        if not path.exists():
            raise RunnerError(f"no {name}")
        return path.read_bytes()

    def remove(self, name: str) -> None:
        (self.place / name).unlink(missing_ok=True)


def _follow(place: Path, lines: list[list[str]]) -> tuple[dict[str, Any], bytearray]:
    """What the native runner does, read from the plan's own lines."""
    words = {line[0]: line[1:] for line in lines}
    session = open_file(place / words["model"][0])
    inputs = [line[1:] for line in lines if line[0] == "input"]
    dump = _dump(session, place, inputs, int(words["check"][0]) if "check" in words else 0)
    invokes = int(words["timed"][0])
    column = [INVOKE_NS] * invokes
    return {
        "schema": RUN_SCHEMA,
        "runner": {"name": "fake", "version": "1", "compiler": "none", "abi": "x86_64"},
        "library": {"file": "none", "version": None, "api": "LiteRt"},
        "delegate": {"name": "XNNPACK", "fully_accelerated": True, "evidence": "assumed"},
        "threads": int(words["threads"][0]),
        "affinity": words["affinity"][0] if "affinity" in words else None,
        "state_loop": "swap",
        "library_ns": 5,
        "load_ns": 10,
        "reset_ns": 1,
        "first_ns": 3 * INVOKE_NS,
        "check": {"steps": int(words["check"][0]), "file": CHECK_FILE} if "check" in words else None,
        "warmup_ns": [INVOKE_NS] * int(words["warmup"][0]),
        "samples": {
            "start_ns": [n * INVOKE_NS for n in range(invokes)],
            "input_ns": [1] * invokes,
            "inference_ns": column,
            "state_ns": [1] * invokes,
            "output_ns": [1] * invokes,
            "late_ns": [0] * invokes if "pace" in words else [],
        },
        "memory": [{"at": at, "vm_hwm_kb": 1000, "vm_rss_kb": 900, "vm_swap_kb": 0} for at in Place],
        "memory_includes": [],
        "stopped": "complete",
        "end": END_MARK,
    }, dump


def _dump(session: PortSession, place: Path, inputs: list[list[str]], steps: int) -> bytearray:
    """Outputs of each call as stored, then all states."""
    manifest = session.manifest
    dump = bytearray()
    for index in range(steps):
        results = session.step(*(_logical(session, place, line, index) for line in inputs))
        for port in manifest.outputs:
            dump += port.encode(results[port.name]).tobytes()
    for binding in manifest.states:
        dump += session.state()[binding.state].tobytes()
    return dump


def _logical(session: PortSession, place: Path, line: list[str], index: int) -> AnyArray:
    _, name, size, file, count = line
    port = next(port for port in session.manifest.inputs if port.name == name)
    content = (place / file).read_bytes()
    assert len(content) == int(size) * int(count)
    at = index % int(count) * int(size)
    return port.decode(np.frombuffer(content[at : at + int(size)], port.dtype))
