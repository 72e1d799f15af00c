"""Sessions on artifacts: one contract (`mvtool.session.Session`), one module per runtime.

Frameworks are imported when a file of theirs is opened.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol, cast

from mvtool.build import SUFFIX_OF_RUNTIME, Build
from mvtool.errors import RuntimeLoadError, UsageError
from mvtool.ports import PortManifest, Precision, Runtime
from mvtool.runtimes.base import FilePorts, PortSession
from mvtool.session import Session

_MODULES = {Runtime.TFLITE: "litert", Runtime.EXECUTORCH: "executorch", Runtime.COREML: "coreml"}


class RuntimeModule(Protocol):
    """What each runtime's module offers for a file of its kind."""

    def check_complete(self, path: Path) -> None:
        """Raise if the file's own tables refer to bytes that it does not have."""
        ...

    def read_manifest(self, path: Path) -> PortManifest:
        """The embedded port manifest."""
        ...

    def file_ports(self, path: Path) -> FilePorts:
        """Ports as the file declares them without its manifest."""
        ...


def module_of(runtime: Runtime) -> RuntimeModule:
    """The module that knows the files of `runtime`."""
    return cast(RuntimeModule, importlib.import_module(f"mvtool.runtimes.{_MODULES[runtime]}"))


def runtime_of(path: Path) -> Runtime:
    """The runtime that a file is for, by its suffix.

    Raises:
        UsageError: The suffix is of no runtime.
    """
    for runtime, suffix in SUFFIX_OF_RUNTIME.items():
        if path.suffix.lower() == suffix:
            return runtime
    raise UsageError(f"{path} is not an artifact: expected a name ending in {', '.join(SUFFIX_OF_RUNTIME.values())}.")


def open_file(path: Path, threads: int = 1) -> PortSession:
    """A session on one artifact, wired by the port manifest that the file itself holds.

    Raises:
        UsageError: The suffix is of no runtime.
        RuntimeLoadError: There is no such file, or the runtime refuses it.
        ManifestError: The file's port manifest is missing, or does not belong to it.
        MissingExtraError: The runtime is not installed.
    """
    runtime = runtime_of(path)
    if not path.exists():
        raise RuntimeLoadError(f"{path} does not exist. Check the path, or convert the model.")
    if runtime is Runtime.TFLITE:
        from mvtool.runtimes.litert import open_tflite

        return open_tflite(path, threads)
    if runtime is Runtime.EXECUTORCH:
        from mvtool.runtimes.executorch import open_executorch

        return open_executorch(path, threads)
    from mvtool.runtimes.coreml import open_coreml

    return open_coreml(path, threads)


def open_artifact(
    path: str | Path,
    runtime: Runtime | str | None = None,
    precision: Precision | str | None = None,
    threads: int = 1,
) -> Session:
    """A session on a build folder's artifact or on a single artifact.

    Args:
        path: Build folder, `.tflite`, `.pte` or `.mlpackage`.
        runtime: Which artifact of a build; see `Build.artifact` for the choice without it.
        precision: Which artifact of a build.
        threads: Threads of the runtime, where it lets one choose.

    Raises:
        UsageError: The build has no such artifact, a runtime was asked of a single file, or `path` is neither.
        ManifestError: A manifest is missing, malformed or of another file.
        RuntimeLoadError: The runtime refuses the file.
        MissingExtraError: The runtime is not installed.
    """
    path = Path(path)
    # A .mlpackage is a folder with a Manifest.json, which some file systems do not tell from manifest.json.
    if path.is_dir() and path.suffix.lower() not in SUFFIX_OF_RUNTIME.values():
        return Build.load(path).open(runtime, precision, threads)
    session = open_file(path, threads)
    asked, have = (runtime, precision), (session.manifest.runtime, session.manifest.precision)
    if any(wish not in (None, fact) for wish, fact in zip(asked, have, strict=True)):
        raise UsageError(f"{path} is {have[0]} {have[1]}; runtime and precision choose an artifact of a build folder.")
    return session
