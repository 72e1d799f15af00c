"""A job of a batch: one artifact, or several in turns, on a device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from mvtool.android_bench import benchmark_model
from mvtool.android_bench.open_device import Tools
from mvtool.bench.benching import bench, file_name
from mvtool.bench.cross_check import CrossCheck
from mvtool.bench.device import Device, Runner, Workspace
from mvtool.bench.profiles import Request
from mvtool.bench.roofline import Rooflines
from mvtool.bench.subjects import Subject
from mvtool.errors import StorageError
from mvtool.files import sha256_of
from mvtool.ports import Runtime


@dataclass
class Measurement:
    """See the module docstring.

    Attributes:
        subjects: The artifacts.
        request: How.
        out: Folder of the records.
        source: Video.
        tools: What the user gives.
        rooflines: Measures the peaks of the device.
        tell: Told of the progress.
    """

    subjects: tuple[Subject, ...]
    request: Request
    out: Path
    source: str | None
    tools: Tools
    rooflines: Rooflines | None
    tell: Callable[[str, int, int], None]

    @property
    def key(self) -> str:
        """Names of the artifacts, and a hash of all that the figures depend on: files, by their content, and what was asked for."""
        files = [self.tools.runner, self.tools.library, self.tools.benchmark_model, self.source and Path(self.source)]
        hashes = [sha256_of(path) if path and path.exists() else str(path) for path in files]
        asked = [[s.artifact.sha256 for s in self.subjects], asdict(self.request), hashes, str(self.tools.ndk)]
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:12]
        return f"{' and '.join(subject.name for subject in self.subjects)} {digest}"

    def run(self, device: Device) -> Path:
        """Measure and write the records.

        Returns:
            The first one; the others of an interleaved session lie beside it.

        Raises:
            MvtoolError: Nothing was recorded.
        """
        try:
            return self._run(device)
        except OSError as error:
            known = StorageError.of(error)
            if known is None:
                raise
            raise known from error

    def _run(self, device: Device) -> Path:
        records = list(
            bench(
                self.subjects,
                device,
                self.request,
                source=self.source,
                roofline=self.rooflines,
                cross_check=self._cross_check if self.tools.benchmark_model else None,
                tell=self.tell,
            )
        )
        paths = [self.out / file_name(record) for record in records]
        for record, path in zip(records, paths, strict=True):
            record.save(path)
        return paths[0]

    def _cross_check(self, space: Workspace, subject: Subject, runner: Runner) -> CrossCheck | None:
        program = self.tools.benchmark_model
        if program is None or subject.artifact.runtime is not Runtime.TFLITE:
            return None
        beside = () if runner.library is None else (runner.library,)
        return benchmark_model.run_in(space, program, subject.path, self.request.threads, beside=beside)
