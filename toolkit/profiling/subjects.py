"""What is profiled: artifacts of a build, and `.tflite` files of any converter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mvtool.build import ArtifactEntry, Build
from mvtool.errors import ConversionError, RuntimeLoadError, UsageError
from mvtool.files import sha256_of
from mvtool.ports import Precision, Runtime
from mvtool.profiling.written import Written

SUFFIX = ".tflite"


@dataclass(frozen=True)
class Subject:
    """One file to profile.

    Attributes:
        path: Where it is.
        name: What it is called in the record.
        runtime: That executes it.
        entry: Its entry in the build manifest; None for a file that is not the build's.
    """

    path: Path
    name: str
    runtime: Runtime
    entry: ArtifactEntry | None = None

    @property
    def states(self) -> list[str]:
        """Names of the ports of states, on both sides, as far as they are known."""
        held = [] if self.entry is None else self.entry.ports.states
        return [port.name for state in held for port in (state.input, state.output)]

    def precision(self, operators: Sequence[Written]) -> Precision:
        """As the build manifest says it; of another file the arithmetic of most of its multiply-adds.

        Args:
            operators: Of the file.
        """
        if self.entry is not None:
            return self.entry.precision
        macs: Counter[Precision] = Counter()
        for operator in operators:
            if operator.arithmetic is not None:
                macs[operator.arithmetic] += operator.macs or 0
        return macs.most_common(1)[0][0] if macs else Precision.FP32


def of_build(build: Build, entries: Sequence[ArtifactEntry]) -> list[Subject]:
    """Artifacts of a build."""
    return [Subject(build.path(entry), entry.file, entry.runtime, entry) for entry in entries]


def of_files(paths: Sequence[Path], known: Sequence[Subject] = ()) -> list[Subject]:
    """Other `.tflite` files; those with the same name are told apart by their folders, or by a number.

    Args:
        paths: The files.
        known: Subjects that are profiled with them.

    Raises:
        UsageError: A path is no `.tflite` file, is given twice, or its file cannot be profiled.
        RuntimeLoadError: A file is truncated or is no TFLite file.
        MissingExtraError: ai-edge-litert is not installed.
    """
    seen = {subject.path.resolve() for subject in known}
    names = {subject.name for subject in known}
    alike = Counter(path.name for path in paths) + Counter(names)
    found = []
    for path in paths:
        check(path)
        if path.resolve() in seen:
            raise UsageError(f"{path} is given twice, or is an artifact of the build. Name each file once.")
        seen.add(path.resolve())
        name = path.name if alike[path.name] == 1 else f"{path.resolve().parent.name}/{path.name}"
        number = 2
        while name in names:
            name, number = f"{path.name} ({number})", number + 1
        names.add(name)
        found.append(Subject(path, name, Runtime.TFLITE))
    return found


def check(path: Path) -> None:
    """Refuse a file that cannot be profiled by itself.

    Raises:
        UsageError: It is missing, of another kind, or has more than one subgraph.
        RuntimeLoadError: It is truncated or is no TFLite file.
    """
    suffix = path.suffix.lower()
    if suffix == ".pte":
        raise UsageError(
            f"{path} is an ExecuTorch program. Its runtime has no profiler: mvtool estimates operators by cutting the XNNPACK graph of "
            "programs that it wrote itself, beside their build manifest, and knows no others. Give the build folder."
        )
    if suffix == ".mlpackage":
        raise UsageError(f"{path} is a Core ML package; those are profiled on Apple's devices, with Xcode.")
    if not path.exists():
        raise UsageError(f"{path} does not exist. Expected a build folder or a .tflite file.")
    if suffix != SUFFIX or not path.is_file():
        what = "a folder" if path.is_dir() else "no .tflite file"
        raise UsageError(f"{path} is {what}. Expected .tflite files here; a build folder may only come first.")
    _parse(path)


def _parse(path: Path) -> None:
    from mvtool.profiling import tflite_graph
    from mvtool.runtimes.litert import check_complete

    try:
        check_complete(path)
    except RuntimeLoadError as error:
        raise RuntimeLoadError(f"{path} cannot be profiled. {error}") from error
    try:
        operators = tflite_graph.read(path)[1].operators
    except ConversionError as error:
        raise UsageError(
            f"{path} has several subgraphs: loops, conditions, or signatures with graphs of their own. Only files with one can be profiled."
        ) from error
    if not operators:
        raise RuntimeLoadError(f"{path} holds no operators; there is nothing to profile.")


def check_hashes(build: Build | None, subjects: Sequence[Subject]) -> None:
    """Refuse artifacts that are not those of their manifest.

    Raises:
        ManifestError: One is not.
    """
    for subject in subjects:
        if build is not None and subject.entry is not None:
            build.check_hash(subject.entry)


def sha256(subject: Subject) -> str:
    """Hash of the file."""
    return subject.entry.sha256 if subject.entry is not None else sha256_of(subject.path)
