"""The peaks of a device, measured with the library and the runner that measure the models.

The compute peak is that of a large matrix product: four 1x1 convolutions of 512 to 512 channels over 32x32 pixels, 1.07 G
multiply-adds with 256 operations per byte of weights, so that arithmetic and nothing else limits it. The bandwidth
is that of a copy of 128 MiB by one thread that is pinned to no processor. S. Williams, A. Waterman, D. Patterson: Roofline, Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mvtool.bench.device import Device, Runner, Workspace
from mvtool.bench.frames_file import feed
from mvtool.bench.placing import place
from mvtool.bench.plan import PLAN_FILE, InputFile, Plan
from mvtool.bench.profiles import Request, mask
from mvtool.bench.record import Roofline
from mvtool.bench.run_result import RunResult
from mvtool.bench.subjects import Subject
from mvtool.build import Build, tool_versions
from mvtool.errors import ManifestError, MissingExtraError, ToolchainError, UsageError
from mvtool.ports import PortManifest, Precision, Runtime

PRECISIONS = (Precision.FP32, Precision.INT8)
CHANNELS, PIXELS, LAYERS = 512, 32, 4
MACS = LAYERS * CHANNELS * CHANNELS * PIXELS * PIXELS
COPY_BYTES = 128 << 20
TIMEOUT_S = 300.0
METHOD = (
    f"fastest of at least 20 calls of {LAYERS} 1x1 convolutions {CHANNELS} to {CHANNELS} over {PIXELS}x{PIXELS}; "
    f"copy of {COPY_BYTES >> 20} MiB"
)
_LOG = logging.getLogger(__name__)
_CONVERTING = threading.Lock()
"""Phones that are measured at the same time share the cache."""


class Rooflines:
    """Measures each runtime of a device once.

    Args:
        cache: Folder for the converted products.
        tell: Told what goes on.
    """

    def __init__(self, cache: Path | None = None, tell: Callable[[str], None] = lambda what: None) -> None:
        """Nothing is measured yet."""
        self._cache = cache or cache_folder()
        self._tell = tell
        self._measured: dict[tuple[Runtime, int, str | None], Roofline | None] = {}

    def __call__(self, device: Device, request: Request, subject: Subject) -> Roofline | None:
        """The peaks for the runtime of `subject`; None where torch or the exporter is not installed."""
        return self.of_runtime(device, request, subject.artifact.runtime)

    def of_runtime(self, device: Device, request: Request, runtime: Runtime) -> Roofline | None:
        """The peaks for a runtime; None where torch or the exporter is not installed."""
        key = (runtime, request.threads, request.affinity)
        if key not in self._measured:
            self._measured[key] = self._measure(device, request, runtime)
        return self._measured[key]

    def _measure(self, device: Device, request: Request, runtime: Runtime) -> Roofline | None:
        self._tell(f"peaks of the device, {runtime}")
        try:
            with _CONVERTING:
                build = product(runtime, self._cache)
        except MissingExtraError as error:
            _LOG.warning("No roofline: %s", error)
            return None
        runner = device.runner(runtime)
        peaks = {}
        for entry in build.manifest.artifacts:
            with device.workspace() as space:
                fastest_ns = _fastest_ns(space, build.path(entry), entry.ports, runner, request)
                peaks[entry.precision] = MACS / (fastest_ns * 1e-9)
        return Roofline(macs_per_second=peaks, bytes_per_second=bandwidth(device), method=METHOD)


def product(runtime: Runtime, cache: Path) -> Build:
    """The matrix product as artifacts of `runtime`, converted at first use.

    Raises:
        MissingExtraError: The exporter is not installed.
        ConversionError: It cannot be converted.
    """
    key = hashlib.sha256(json.dumps([METHOD, dict(tool_versions())], sort_keys=True).encode()).hexdigest()[:16]
    folder = cache / f"{runtime}-{key}"
    with suppress(ManifestError):
        build = Build.load(folder)
        for entry in build.manifest.artifacts:
            build.check_hash(entry)
        if {entry.precision for entry in build.manifest.artifacts} == set(PRECISIONS):
            return build
    return _convert(runtime, folder)


def _convert(runtime: Runtime, folder: Path) -> Build:
    from mvtool.converters.inputs import parse_input
    from mvtool.converters.pipeline import convert

    shape = parse_input(f"input=1x{CHANNELS}x{PIXELS}x{PIXELS}@tensor")
    model = "mvtool.bench.roofline_model:make"
    precisions = [precision.value for precision in PRECISIONS]
    with TemporaryDirectory() as scratch:
        # Given, because nobody has to be warned of what is made up here: only the time of the product counts.
        made_up = Path(scratch, "normal.npy")
        generator = np.random.default_rng(0)
        np.save(made_up, generator.standard_normal((2, 1, CHANNELS, PIXELS, PIXELS), dtype=np.float32))
        return convert(
            model, inputs=[shape], targets=[runtime.value], precisions=precisions, calibration=made_up, out=folder
        )


def _fastest_ns(space: Workspace, artifact: Path, ports: PortManifest, runner: Runner, request: Request) -> int:
    affinity = None if request.affinity is None else mask(request.affinity)
    plan_of = partial(_plan, ports, request.threads, affinity)
    plan = place(space, artifact, ports, runner, feed(ports), plan_of)
    space.execute(runner.program.name, (PLAN_FILE,), runner.environment, TIMEOUT_S)
    result = RunResult.parse(space.get(plan.result), "the roofline")
    return min(result.samples.inference_ns)


def _plan(
    ports: PortManifest,
    threads: int,
    affinity: str | None,
    inputs: tuple[InputFile, ...],
    model: str,
    library: str | None,
) -> Plan:
    return Plan(
        ports=ports,
        model=model,
        library=library,
        inputs=inputs,
        threads=threads,
        affinity=affinity,
        warmup_invokes=3,
        min_invokes=20,
        min_seconds=0.5,
        max_seconds=20.0,
    )


def bandwidth(device: Device) -> float | None:
    """Bytes per second of a copy, read and written together; None without the runner that copies."""
    try:
        runner = device.runner(Runtime.TFLITE)
    except (MissingExtraError, ToolchainError, UsageError):
        return None
    with device.workspace() as space:
        space.put(runner.program, runner.program.name, executable=True)
        printed = space.execute(runner.program.name, ("--bandwidth", str(COPY_BYTES)), runner.environment, TIMEOUT_S)
    return float(json.loads(printed.strip().splitlines()[-1])["bytes_per_second"])


def cache_folder() -> Path:
    """Where converted products are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mvtool" / "roofline"
