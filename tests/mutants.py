"""Damaging real builds: the manifest inside an artifact, its weights, its scales, its length."""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mvtool.build import ArtifactEntry, Build, describe
from mvtool.errors import MvtoolError
from mvtool.ports import PortManifest, Precision, Runtime
from mvtool.verification.build_checks import check_sha256, check_size
from mvtool.verification.examine import Examination
from mvtool.verification.frames import FrameSource
from mvtool.verification.lockstep import replay_all
from mvtool.verification.messages import ALL_SLOTS, Command, Job, Step
from mvtool.verification.report import Check, CheckResult, blame, required_checks
from mvtool.verification.store import FrameStore
from mvtool.verification.verify import make_job

STEPS = 16

Edit = Callable[[dict[str, Any]], None]


class Copy:
    """A copy of a build with one artifact to damage."""

    def __init__(self, build: Build, folder: Path, runtime: Runtime, precision: Precision) -> None:
        shutil.copytree(build.folder, folder)
        self.build = Build.load(folder)
        self.entry = self.build.artifact(runtime, precision)
        self.path = self.build.path(self.entry)

    @property
    def files(self) -> list[Path]:
        """The artifact's files that hold a model."""
        inner = [entry for entry in self.path.rglob("*") if entry.is_file()]
        return inner if self.path.is_dir() else [self.path]

    def weights(self) -> Path:
        """The file with the weights."""
        return max(self.files, key=lambda file: file.stat().st_size)

    def edit_manifest(self, edit: Edit) -> None:
        """Change the port manifest in the file, padded to its old length so that every offset stays."""
        old = self.entry.ports.to_json().encode()
        document = json.loads(old)
        edit(document)
        new = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode().ljust(len(old))
        assert len(new) == len(old)
        changed = 0
        for file in self.files:
            data = file.read_bytes()
            changed += data.count(old)
            file.write_bytes(data.replace(old, new))
        assert changed == 1

    def places(self, part: bytes) -> list[tuple[Path, int]]:
        """Where `part` stands in the artifact's files."""
        return [(file, place) for file in sorted(self.files) for place in _places(file.read_bytes(), part)]

    def overwrite(self, place: tuple[Path, int], new: bytes) -> None:
        """Write `new` over what stands at a place."""
        file, start = place
        data = file.read_bytes()
        file.write_bytes(data[:start] + new + data[start + len(new) :])

    def rehashed(self, edit: Edit | None = None) -> ArtifactEntry:
        """An entry that fits the damaged file in size and hash, and in its manifest if `edit` is given."""
        fields = describe(self.build.folder, self.entry.file).model_dump()
        if edit is not None:
            document = json.loads(self.entry.ports.to_json())
            edit(document)
            fields["ports"] = PortManifest.model_validate(document)
        return self.entry.model_copy(update=fields)

    def examine(self, entry: ArtifactEntry | None = None) -> dict[Check, CheckResult]:
        """All checks of the artifact in this process, over few steps."""
        from mvtool.converters.program_io import load_program
        from mvtool.runtimes.pytorch import open_program

        entry = entry or self.entry
        reference = open_program(load_program(self.build.path(self.build.manifest.program)))
        store_path = (
            self.build.folder.parent / f"{self.build.folder.name}-{len(list(self.build.folder.parent.iterdir()))}"
        )
        store = FrameStore(store_path, reference.manifest, ALL_SLOTS)
        worker = Here(make_job(self.build, entry, reference.manifest, store_path, STEPS, 1))
        source = FrameSource(reference.manifest.inputs, reference.manifest.preprocessing)
        if worker.examination.replay is not None:
            replay_all(reference, source, store, [worker], STEPS, lambda *_: None)  # type: ignore[list-item]
        results = [check_size(self.path, entry), check_sha256(self.path, entry), *worker.results]
        if worker.reason:
            results.append(blame(required_checks(entry.precision, stream=True), results, worker.reason))
        return {result.check: result for result in results}


class Here:
    """What a worker process does, in this one."""

    def __init__(self, job: Job) -> None:
        self.examination = Examination(job, lambda activity: None)
        self.results = list(self.examination.prepare())
        self.reason = ""

    def send(self, command: Command) -> None:
        if self.reason:
            return
        try:
            if isinstance(command, Step):
                self.results += self.examination.step(command)
            else:
                self.results += self.examination.finish()
        except MvtoolError as error:
            self.reason = str(error)

    def wait_ready(self) -> None: ...

    def wait_step(self, number: int) -> None: ...

    def wait_finished(self) -> None: ...


def _places(data: bytes, part: bytes) -> Iterator[int]:
    place = data.find(part)
    while place >= 0:
        yield place
        place = data.find(part, place + 1)


def float_bytes(value: float) -> bytes:
    """A float32 as it stands in a file."""
    return struct.pack("<f", value)


def swap_outputs(document: dict[str, Any]) -> None:
    """Let the two states of one shape claim each other's result."""
    first, second = twins(document)
    first["output"], second["output"] = second["output"], first["output"]


def swap_inputs(document: dict[str, Any]) -> None:
    """Let the two states of one shape claim each other's argument."""
    first, second = twins(document)
    first["input"], second["input"] = second["input"], first["input"]
    first["reset"], second["reset"] = second["reset"], first["reset"]


def twins(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two states whose ports have one shape."""
    states = [s for s in document["states"] if math.prod(s["input"]["shape"]) > 100]
    assert len(states) == 2
    assert states[0]["input"]["shape"] == states[1]["input"]["shape"]
    return states[0], states[1]


def rename_model(document: dict[str, Any]) -> None:
    """The manifest of another model."""
    document["model"] = "other"


def reset_to_zero(document: dict[str, Any]) -> None:
    """Write 0 where the zero point belongs, or another value where there is none."""
    state = twins(document)[1]
    bytes_per_element = len(state["reset"]["element_hex"]) // 2
    zero = state["input"]["quantization"] is not None
    state["reset"] = {"element_hex": "00" if zero else ("3c" * bytes_per_element), "base64": None}


def untie(document: dict[str, Any]) -> None:
    """Another scale on the way out."""
    state = twins(document)[0]
    kind = "quantization" if state["output"]["quantization"] else "grid"
    state["output"][kind]["scale"] = 0.5


def widen(document: dict[str, Any]) -> None:
    """Claim another scale, the same on both sides."""
    state = twins(document)[0]
    for side in ("input", "output"):
        state[side]["quantization"]["scale"] = 0.5
