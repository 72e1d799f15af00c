"""What the models of the zoo become: every figure of `docs/zoo.md`, from really converting and verifying them.

One `ModelRecord` per model, written as `NAME.json` when the model is done, so that a survey that was
interrupted goes on with the next model. Nothing in a record is taken from anywhere but its own conversion.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field, JsonValue, ValidationError

from mvtool.build import MANIFEST_FILE, Build, tool_versions
from mvtool.errors import CaptureError, ConversionError, ManifestError, RuntimeLoadError, SourceError
from mvtool.files import write_atomic
from mvtool.ports import Document, PortManifest, Precision, Runtime
from mvtool.verification.report import Check, Status

if TYPE_CHECKING:
    from mvtool.build import ArtifactEntry
    from mvtool.converters.progress import Listener, StageEvent
    from mvtool.verification.report import ArtifactReport, Verification
    from mvtool.zoo.entry import ModelEntry

RECORD_SCHEMA: Final = "mvtool.zoo/1"
STAGE_TIMEOUT_S = 3600.0
VERDICTS = (SourceError, CaptureError, ConversionError, RuntimeLoadError)
"""Errors that say something of the model; all others are of the machine, and no record is made of them."""
_LOG = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


class ArtifactRecord(Document):
    """What became of one target and precision.

    Attributes:
        runtime: Target.
        precision: Arithmetic.
        status: `verified`: written and every check of verify holds. `failed`: written, and a check does not hold.
            `refused`: not written.
        reason: The first check that failed, or why nothing was written.
        engine: What executed it: the runtime, or mvtool's reference evaluator where Core ML cannot run; None where
            nothing was written.
        size_bytes: Of the file or package.
        delegation: What the runtime's delegate takes, as in the build manifest.
        state_bytes: Size of all state ports, on one side of the loop.
        snr_db: Of the free-running int8 artifact's outputs against the fp32 PyTorch model, at the last step replayed.
        convert_s: Seconds of its conversion.
        verify_s: Seconds of processor time of its verification.
    """

    runtime: Runtime
    precision: Precision
    status: Literal["verified", "failed", "refused"]
    reason: str = ""
    engine: str | None = None
    size_bytes: int | None = None
    delegation: dict[str, JsonValue] = Field(default_factory=dict)
    state_bytes: int | None = None
    snr_db: float | None = None
    convert_s: float | None = None
    verify_s: float | None = None


class ModelRecord(Document):
    """Measured figures of one model.

    Attributes:
        format: `mvtool.zoo/1`.
        name: Name in the zoo.
        fingerprint: Of all that the registry says of how the model is built and fed.
        parameters: Trainable scalars, counted.
        macs: Multiply-adds of one call, counted.
        resolution: Height and width in pixels.
        frames_per_call: Frames that go into one call.
        states: Number of logical states.
        steps: Calls that verify replayed.
        step: What a call takes: `frame`, `clip` or `step`.
        artifacts: One per target and precision.
        seconds: Wall time of conversion and verification.
        tools: Versions that took part.
    """

    format: Literal["mvtool.zoo/1"] = RECORD_SCHEMA
    name: str
    fingerprint: str
    parameters: int
    macs: int
    resolution: int
    frames_per_call: int
    states: int = 0
    steps: int = 0
    step: str = "frame"
    artifacts: tuple[ArtifactRecord, ...]
    seconds: float
    tools: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Survey:
    """Where a survey keeps its records and its builds.

    Attributes:
        records: Folder of the records.
        builds: Folder of the builds.
        targets: Targets to convert to.
        precisions: Precisions to convert to.
        keep: Leave a build there when its record is written.
    """

    records: Path
    builds: Path
    targets: tuple[Runtime, ...] = tuple(Runtime)
    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.INT8)
    keep: bool = False

    def load(self, entry: ModelEntry) -> ModelRecord | None:
        """The record of a model; None where there is none, or it lacks a target or precision, or the entry has changed since.

        Raises:
            ManifestError: The file is no record.
        """
        path = self.path(entry)
        if not path.is_file():
            return None
        try:
            record = ModelRecord.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ManifestError(
                f"{path} is no record of a model: {error}. Delete it; the survey makes it anew."
            ) from error
        wanted = {(runtime, precision) for runtime in self.targets for precision in self.precisions}
        complete = wanted <= {(artifact.runtime, artifact.precision) for artifact in record.artifacts}
        return record if complete and record.fingerprint == fingerprint(entry) else None

    def path(self, entry: ModelEntry) -> Path:
        """File of the record of a model."""
        return self.records / f"{entry.name}.json"

    def run(self, entries: Sequence[ModelEntry], listener: Listener, progress: Progress) -> list[ModelRecord]:
        """Convert and verify every model that has no record.

        Args:
            entries: The models.
            listener: Told of every stage of a conversion.
            progress: Told of a verification: what goes on, steps done, steps in all.

        Raises:
            MvtoolError: Something that says nothing of the model: a full disk, a package that is not installed.
        """
        done = []
        for entry in entries:
            record = self.load(entry)
            if record is None:
                record = self._survey(entry, listener, progress)
                self.records.mkdir(parents=True, exist_ok=True)
                text = json.dumps(record.model_dump(mode="json"), indent=1)
                write_atomic(self.path(entry), f"{text}\n".encode())
            done.append(record)
        return done

    def _survey(self, entry: ModelEntry, listener: Listener, progress: Progress) -> ModelRecord:
        began = time.monotonic()
        macs = macs_of(entry)
        failures: dict[tuple[str, str], str] = {}

        def listen(event: StageEvent) -> None:
            if event.status == "failed" and event.target and event.precision:
                failures[event.target, event.precision] = f"{event.stage}: {event.message}"
            listener(event)

        build, error = self._convert(entry, listen)
        verification = None if build is None else _verify(build, progress)
        artifacts = [
            _artifact(build, verification, runtime, precision, failures.get((runtime, precision), error))
            for runtime in self.targets
            for precision in self.precisions
        ]
        if not self.keep:
            shutil.rmtree(self.builds / entry.name, ignore_errors=True)
        return ModelRecord(
            name=entry.name,
            fingerprint=fingerprint(entry),
            parameters=entry.parameters,
            macs=macs,
            resolution=entry.resolution,
            frames_per_call=entry.frames_per_call,
            states=0 if build is None else len(build.manifest.artifacts[0].ports.states),
            steps=0 if verification is None else verification.frames,
            step="frame" if verification is None else verification.step,
            artifacts=tuple(artifacts),
            seconds=round(time.monotonic() - began, 1),
            tools=dict(tool_versions()),
        )

    def _convert(self, entry: ModelEntry, listener: Listener) -> tuple[Build | None, str]:
        from mvtool.converters.pipeline import convert

        folder = self.builds / entry.name
        if (folder / MANIFEST_FILE).is_file():
            # What an earlier run left must never be taken for the result of this one.
            shutil.rmtree(folder)
        try:
            build = convert(
                entry.name,
                targets=self.targets,
                precisions=self.precisions,
                out=folder,
                stage_timeout_s=STAGE_TIMEOUT_S,
                listener=listener,
            )
        except VERDICTS as error:
            _LOG.warning("%s: %s", entry.name, error)
            return (Build.load(folder) if folder.exists() else None), str(error)
        return build, ""


def fingerprint(entry: ModelEntry) -> str:
    """Hash of what the registry says of how a model is built and fed; not of what is only said about it."""
    said = {
        key: value for key, value in vars(entry).items() if key not in ("description", "reported", "labels", "rule")
    }
    # Records are older than these fields; where they say nothing, nothing has changed.
    silent = {"weights": None, "calibration": None, "damps": False}
    said = {key: value for key, value in said.items() if key not in silent or value != silent[key]}
    return hashlib.sha256(repr(sorted(said.items())).encode()).hexdigest()[:16]


def _doubt(verification: Verification) -> str:
    """The first check of the build as a whole that does not hold, but for the list of files, which is in the record."""
    failed = [c for c in verification.checks if c.status is not Status.PASSED and c.check is not Check.LISTED]
    return f"{failed[0].check.value}: {failed[0].message}" if failed else ""


def macs_of(entry: ModelEntry) -> int:
    """Multiply-adds of one call as published."""
    import torch

    from mvtool.zoo.macs import count_macs

    with torch.device("meta"):
        module = entry.build()
    return count_macs(module, (1, 3, entry.frames_per_call, entry.resolution, entry.resolution))


def _verify(build: Build, progress: Progress) -> Verification:
    from mvtool.verification.verify import verify

    return verify(build.folder, timeout_s=STAGE_TIMEOUT_S, progress=progress)


def _artifact(
    build: Build | None, verification: Verification | None, runtime: Runtime, precision: Precision, error: str
) -> ArtifactRecord:
    written = (
        []
        if build is None
        else [a for a in build.manifest.artifacts if (a.runtime, a.precision) == (runtime, precision)]
    )
    reports = (
        []
        if verification is None
        else [r for r in verification.artifacts if (r.runtime, r.precision) == (runtime, precision)]
    )
    if not written or not reports:
        return ArtifactRecord(runtime=runtime, precision=precision, status="refused", reason=_first_lines(error))
    return _measured(written[0], reports[0], "" if verification is None else _doubt(verification))


def _measured(entry: ArtifactEntry, report: ArtifactReport, doubt: str) -> ArtifactRecord:
    failed = [doubt] * bool(doubt) + [f"{check.check.value}: {check.message}" for check in report.failures]
    return ArtifactRecord(
        runtime=entry.runtime,
        precision=entry.precision,
        status="verified" if report.passed and not doubt else "failed",
        reason=_first_lines(failed[0]) if failed else "",
        engine=report.engine,
        size_bytes=entry.bytes,
        delegation=dict(entry.delegation),
        state_bytes=_state_bytes(entry.ports),
        snr_db=report.snr[-1].outputs_db if report.snr else None,
        convert_s=round(sum(entry.seconds.values()), 1),
        verify_s=report.seconds,
    )


def _state_bytes(ports: PortManifest) -> int:
    return sum(binding.input.size_bytes for binding in ports.states)


def _first_lines(text: str, limit: int = 300) -> str:
    return " ".join(text.split())[:limit]
