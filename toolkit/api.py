"""The Python interface of opening and verifying; `mvtool` re-exports it without importing a framework."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mvtool.ports import Precision, Runtime
    from mvtool.session import Session
    from mvtool.verification.lockstep import Progress
    from mvtool.verification.report import Verification


def open(
    path: str | Path,
    *,
    runtime: Runtime | str | None = None,
    precision: Precision | str | None = None,
    threads: int = 1,
) -> Session:
    """A session on an artifact: `reset`, `step`, `state`.

    Args:
        path: Build folder, `.tflite`, `.pte` or `.mlpackage`.
        runtime: Which artifact of a build; without it the first there is of tflite, executorch, coreml.
        precision: Which artifact of a build; without it the first there is of fp32, fp16, int8.
        threads: Threads of the runtime, where it lets one choose.

    Raises:
        UsageError: `path` is no artifact, or the build has none that fits.
        ManifestError: A manifest is missing, malformed or of another file.
        RuntimeLoadError: The runtime refuses the file.
        MissingExtraError: The runtime is not installed.

    Example:
        session = mvtool.open("build/a0", precision="int8")
        for frame in frames:                    # logical shape, for example (1, 3, 1, 172, 172)
            logits = session.step(frame)["logits"]
    """
    from mvtool.runtimes import open_artifact

    return open_artifact(path, runtime, precision, threads)


def verify(path: str | Path, *, threads: int = 1, save: bool = True, progress: Progress | None = None) -> Verification:
    """Execute every artifact of a build folder and hold it against the trained model.

    Args:
        path: Build folder.
        threads: Threads per artifact.
        save: Write the result into the build manifest.
        progress: Called with an activity, the number of its parts that are done, and their total.

    Returns:
        The report; `passed` says whether everything holds.

    Raises:
        ManifestError: The build manifest is missing, malformed, or names files outside the folder.

    Example:
        assert mvtool.verify("build/a0").passed
    """
    from mvtool.verification import verify as run

    return run(path, threads=threads, save=save, progress=progress)
