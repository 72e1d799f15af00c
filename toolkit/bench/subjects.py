"""What is measured: an artifact of a build, or a single file."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mvtool.bench.record import ArtifactFacts, ModelFacts
from mvtool.build import DEFAULT_PRECISIONS, SUFFIX_OF_RUNTIME, Build
from mvtool.errors import UsageError
from mvtool.files import sha256_of, size_of
from mvtool.ports import PortManifest, Runtime
from mvtool.runtimes import module_of, runtime_of

MEASURED = (Runtime.TFLITE, Runtime.EXECUTORCH)
"""Runtimes that the native runner knows."""


@dataclass(frozen=True)
class Subject:
    """One artifact to measure.

    Attributes:
        path: The file.
        ports: Its port manifest.
        artifact: Facts for the record.
        model: Facts for the record.
    """

    path: Path
    ports: PortManifest
    artifact: ArtifactFacts
    model: ModelFacts

    @property
    def name(self) -> str:
        """For people: `movinet_a0_stream int8 tflite`."""
        return f"{self.model.name} {self.artifact.precision} {self.artifact.runtime}"


def subjects(
    path: Path, runtimes: Sequence[str] | None = None, precisions: Sequence[str] | None = None
) -> list[Subject]:
    """The artifacts of a build folder that a runner can execute, or one file.

    Args:
        path: Build folder, `.tflite` or `.pte`.
        runtimes: Only these; `tflite` and `executorch` if not given.
        precisions: Only these; all if not given.

    Raises:
        ManifestError: A manifest is missing, or a file is not the one that it describes.
        UsageError: Nothing is left to measure.
    """
    if path.is_dir() and path.suffix.lower() not in SUFFIX_OF_RUNTIME.values():
        found = _of_build(Build.load(path), runtimes, precisions)
    else:
        found = [_of_file(path, None)]
    if not found:
        raise UsageError(
            f"{path} holds nothing to measure for {', '.join(runtimes or MEASURED)} in {', '.join(precisions or ('any precision',))}. "
            "`mvtool inspect` shows what it holds; Core ML packages are measured on Apple's devices only."
        )
    return found


def _of_build(build: Build, runtimes: Sequence[str] | None, precisions: Sequence[str] | None) -> list[Subject]:
    entries = [
        entry
        for entry in build.manifest.artifacts
        if entry.runtime in (runtimes or MEASURED)
        and entry.runtime in MEASURED
        and entry.precision in (precisions or (entry.precision,))
    ]
    macs = count_macs(build) if entries else None
    for entry in entries:
        build.check_hash(entry)
    entries.sort(key=lambda entry: (MEASURED.index(entry.runtime), DEFAULT_PRECISIONS.index(entry.precision)))
    label = build.folder.resolve().name
    return [_of_file(build.path(entry), macs, label) for entry in entries]


def _of_file(path: Path, macs: int | None, build: str | None = None) -> Subject:
    runtime = runtime_of(path)
    if runtime not in MEASURED:
        raise UsageError(f"{path} is a Core ML package; those are measured on Apple's devices only.")
    if not path.is_file():
        raise UsageError(f"{path} does not exist. Expected a build folder, a .tflite or a .pte file.")
    ports = module_of(runtime).read_manifest(path)
    others = [*ports.inputs, *ports.outputs]
    artifact = ArtifactFacts(
        file=path.name,
        build=build,
        runtime=ports.runtime,
        precision=ports.precision,
        bytes=size_of(path),
        sha256=sha256_of(path),
        state_bytes=sum(binding.input.size_bytes for binding in ports.states),
        port_bytes=sum(port.size_bytes for port in others),
    )
    model = ModelFacts(
        name=ports.model,
        untrained=ports.untrained,
        frames_per_call=ports.frames_per_step,
        frame_rate=ports.frame_rate,
        macs=macs,
    )
    return Subject(path, ports, artifact, model)


def count_macs(build: Build) -> int | None:
    """Multiply-adds of one call of the captured program, as `mvtool zoo` counts them; None where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    from mvtool.converters.program_io import load_program
    from mvtool.zoo.macs import count_step_macs

    return count_step_macs(load_program(build.path(build.manifest.program)))
