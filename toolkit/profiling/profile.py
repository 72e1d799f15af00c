"""Profiles of the artifacts of a build and of other files: measure, name, compare with the peaks, and say what to do next."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvtool.bench.record import Roofline
from mvtool.build import ArtifactEntry, Build, tool_versions
from mvtool.errors import MissingExtraError, ToolchainError, UsageError
from mvtool.ports import Precision, Runtime
from mvtool.profiling import subjects as subjects_of
from mvtool.profiling.alignment import ANY_UNARY
from mvtool.profiling.kinds import work
from mvtool.profiling.layers import KnownLayers, Named, common_module, known_layers, name_layers
from mvtool.profiling.measured import Measured, Timed
from mvtool.profiling.record import Agreement, Group, OperatorTime, Profile, Profiles
from mvtool.profiling.steps import next_steps
from mvtool.profiling.subjects import Subject
from mvtool.profiling.written import Written

MARGIN = 0.15
"""Largest part of the latency that the operators' sum may miss; a busy machine takes more."""
UNKNOWN = "unknown"
OVER_THE_PEAK = 1.05
ABOVE = (
    "Operators above 100 % of the peak show that the peak was measured while the machine was busy, or that their weights stay in a "
    "nearer cache than those of the large product; measure again on an idle machine."
)
PROFILED = (Runtime.TFLITE, Runtime.EXECUTORCH)
SEVERAL, MOST_NAMED = "several operators", 2

Tell = Callable[[str], None]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Options:
    """How to profile.

    Attributes:
        calls: Calls of a TFLite artifact, with and without profiling each.
        threads: Of the runtimes.
        roofline: Measure the peaks of the machine.
        layers: Name the layers of the PyTorch module.
    """

    calls: int = 400
    threads: int = 1
    roofline: bool = True
    layers: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers that measure nothing.

        Raises:
            UsageError: A number is too small.
        """
        if self.calls < 20:
            raise UsageError(f"--calls got {self.calls}; expected at least 20, one block of calls.")
        if self.threads < 1:
            raise UsageError(f"--threads got {self.threads}; expected at least 1.")


def chosen(
    build: Build, runtimes: Sequence[str] | None = None, precisions: Sequence[str] | None = None
) -> list[ArtifactEntry]:
    """The artifacts of a build that can be profiled here.

    Raises:
        UsageError: Core ML was asked for, or nothing is left.
    """
    if runtimes and Runtime.COREML in runtimes:
        raise UsageError("Core ML packages are profiled on Apple's devices, with Xcode; here: tflite, executorch.")
    found = [
        entry
        for entry in build.manifest.artifacts
        if entry.runtime in (runtimes or PROFILED)
        and entry.runtime in PROFILED
        and entry.precision in (precisions or (entry.precision,))
    ]
    if not found:
        have = ", ".join(f"{a.runtime} {a.precision}" for a in build.manifest.artifacts) or "none"
        raise UsageError(
            f"{build.folder} has nothing to profile for {', '.join(runtimes or PROFILED)} in "
            f"{', '.join(precisions or ('any precision',))}. It has: {have}."
        )
    return sorted(found, key=lambda e: (PROFILED.index(e.runtime), list(Precision).index(e.precision)))


def profile(
    build: Build | None,
    entries: Sequence[ArtifactEntry],
    options: Options,
    progress: Progress = lambda what, done, total: None,
    files: Sequence[Path] = (),
) -> Profiles:
    """Profile artifacts of a build and other files on this machine.

    Args:
        build: The build; None where only other files are profiled.
        entries: From `chosen`.
        options: How.
        progress: Told what goes on.
        files: `.tflite` files of any converter.

    Raises:
        UsageError: A path of `files` cannot be profiled, or there is nothing to do.
        ManifestError: A file is not the one that the build manifest describes.
        MissingExtraError: A runtime is not installed.
        RunnerError: The process that profiles failed.
        RuntimeLoadError: A runtime refuses a file.
    """
    own = [] if build is None else subjects_of.of_build(build, entries)
    subjects = [*own, *subjects_of.of_files(files, own)]
    if not subjects:
        raise UsageError("There is nothing to profile: expected a build, .tflite files, or both.")
    subjects_of.check_hashes(build, subjects)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    peaks = _peaks(subjects, options, progress) if options.roofline else {}
    profiles = []
    for subject in subjects:
        measured = _measure(subject, options, progress)
        known = _known(build, subject, options, progress)
        told = peaks.get(subject.runtime, "they were not asked for")
        profiles.append(assemble(subject, measured, known, told, options.threads))
    return Profiles(
        model=subjects[0].path.stem if build is None else build.manifest.model.name,
        device=_processor(),
        load=load,
        profiles=tuple(profiles),
        tools=dict(tool_versions()),
    )


def _measure(subject: Subject, options: Options, progress: Progress) -> Measured:
    path = subject.path
    what = subject.name if subject.entry is None else f"{subject.runtime} {subject.entry.precision}"
    if subject.runtime is Runtime.TFLITE:
        from mvtool.profiling import tflite

        progress(what, 0, 1)
        measured = tflite.measure(path, options.calls, options.threads)
        progress(what, 1, 1)
        return measured
    from mvtool.profiling import executorch

    return executorch.measure(path, options.threads, lambda done, total: progress(what, done, total))


def _known(build: Build | None, subject: Subject, options: Options, progress: Progress) -> KnownLayers:
    entry = subject.entry
    if not options.layers or build is None or entry is None:
        return KnownLayers.none()
    what = f"{entry.runtime} {entry.precision}, layers"
    progress(what, 0, 1)
    known = known_layers(build, entry)
    progress(what, 1, 1)
    return known


def _peaks(subjects: Sequence[Subject], options: Options, progress: Progress) -> dict[Runtime, Roofline | str]:
    """Measured peaks of each runtime, or why there are none."""
    from mvtool.android_bench.host import Host
    from mvtool.bench.profiles import Request
    from mvtool.bench.roofline import Rooflines

    measure, device, found = Rooflines(), Host(), {}
    for runtime in dict.fromkeys(subject.runtime for subject in subjects):
        progress(f"peaks, {runtime}", 0, 1)
        try:
            request = Request(threads=options.threads)
            peaks: Roofline | str = measure.of_runtime(device, request, runtime) or "the exporter is not installed"
        except (MissingExtraError, ToolchainError) as error:
            peaks = str(error)
        found[runtime] = peaks
        progress(f"peaks, {runtime}", 1, 1)
    return found


def assemble(subject: Subject, measured: Measured, known: KnownLayers, peaks: Roofline | str, threads: int) -> Profile:
    """The profile of one file.

    Args:
        subject: The file.
        measured: Its operators' times.
        known: Layers of the model.
        peaks: Of the machine, or why there are none.
        threads: Of the runtime.
    """
    rates = peaks.macs_per_second if isinstance(peaks, Roofline) else {}
    named = name_layers(measured.written, known, subject.states)
    precision = subject.precision(measured.written.operators)
    total = sum(timed.ms[1] for timed in measured.timed)
    rows = tuple(_row(index, timed, measured, named, total, rates) for index, timed in enumerate(measured.timed))
    rest = measured.latency.median_ms - total - (measured.call_ms or 0.0)
    agreement = Agreement(
        sum_ms=total,
        call_ms=measured.call_ms,
        rest_ms=rest,
        margin=MARGIN,
        holds=abs(rest) <= MARGIN * measured.latency.median_ms,
    )
    return Profile(
        file=subject.name,
        of_build=subject.entry is not None,
        sha256=subjects_of.sha256(subject),
        delegate_nodes=measured.delegate_nodes,
        runtime=subject.runtime,
        precision=precision,
        method=measured.method,
        resolution_us=measured.resolution_us,
        threads=threads,
        latency=measured.latency,
        agreement=agreement,
        peaks=rates,
        peaks_method=peaks.method if isinstance(peaks, Roofline) else f"not measured: {peaks}",
        operators=rows,
        types=_groups(rows, lambda row: row.type),
        layers=_groups(rows, lambda row: row.layer or UNKNOWN),
        work=work(rows, measured.latency.median_ms),
        steps=next_steps(rows, measured, rates, precision),
        notes=(*measured.notes, *([ABOVE] if any((row.peak_share or 0) > OVER_THE_PEAK for row in rows) else [])),
    )


def _row(
    index: int,
    timed: Timed,
    measured: Measured,
    named: Sequence[Named],
    total: float,
    rates: dict[Precision, float],
) -> OperatorTime:
    low, middle, high = timed.ms
    first = timed.written
    covered = [] if first is None else list(measured.written.operators[first : first + timed.merged])
    macs = sum(operator.macs for operator in covered if operator.macs is not None)
    heavy = [operator for operator in covered if operator.macs]
    arithmetic = max(heavy, key=lambda o: o.macs or 0).arithmetic if heavy else None
    peak = None if arithmetic is None else rates.get(arithmetic)
    layer, source = _layer(named, first, timed.merged)
    # One written operator may be timed in parts; its work is told with the part that multiplies.
    multiplies = bool(heavy) and _multiplies(timed, measured)
    return OperatorTime(
        position=index,
        type=_type(timed, covered),
        executed=timed.executed,
        merged=timed.merged,
        layer=layer,
        layer_from=source,
        shapes=f"{covered[0].shapes.partition(' -> ')[0]} -> {covered[-1].shapes.partition(' -> ')[2]}"
        if covered
        else "",
        ms=middle,
        low_ms=low,
        high_ms=high,
        share=middle / total if total > 0 else 0.0,
        macs=macs if multiplies else None,
        arithmetic=arithmetic if multiplies else None,
        peak_share=macs / (middle * 1e-3) / peak if multiplies and peak and middle > 0 else None,
        delegated=timed.delegated,
        reason=timed.reason,
    )


def _multiplies(timed: Timed, measured: Measured) -> bool:
    """Whether this is the longest of the timed parts of its operator."""
    parts = [other for other in measured.timed if other.written == timed.written]
    return max(parts, key=lambda part: part.ms[1]) is timed


def _type(timed: Timed, covered: Sequence[Written]) -> str:
    """What the operator is called; XNNPACK may have made one table of several elementwise operators on int8."""
    if not covered:
        return timed.executed
    if len(covered) > MOST_NAMED:
        return f"{SEVERAL} ({len(covered)})"
    if len(covered) > 1:
        return " + ".join(operator.label for operator in covered)
    return f"{covered[0].label} (as a table)" if ANY_UNARY in timed.executed else covered[0].label


def _layer(named: Sequence[Named], first: int | None, merged: int) -> Named:
    """The layer of all that was timed together: that of a padding's convolution, else the module that holds them."""
    if first is None:
        return None, "unknown"
    if merged == 1:
        return named[first]
    weighted = [layer for layer, source in named[first : first + merged] if source == "weights"]
    if merged <= MOST_NAMED and len(weighted) == 1:
        return weighted[0], "weights"
    layers = [layer for layer, _ in named[first : first + merged] if layer]
    module = common_module(layers)
    return (module, "between") if module else (None, "unknown")


def _groups(rows: Sequence[OperatorTime], key: Callable[[OperatorTime], str]) -> tuple[Group, ...]:
    members: dict[str, list[OperatorTime]] = {}
    for row in rows:
        members.setdefault(key(row), []).append(row)
    found = [
        Group(
            name=name,
            operators=sum(row.merged for row in inside),
            ms=sum(row.ms for row in inside),
            share=sum(row.share for row in inside),
            macs=sum(row.macs or 0 for row in inside),
        )
        for name, inside in members.items()
    ]
    return tuple(sorted(found, key=lambda group: -group.ms))


def _processor() -> str:
    from mvtool.android_bench.host import Host

    return Host().facts().name or platform.machine()
