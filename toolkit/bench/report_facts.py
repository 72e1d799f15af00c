"""Figures of a record in words, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mvtool.bench import cross_check
from mvtool.bench.cross_check import CrossCheck
from mvtool.bench.record import EngineFacts, Reading, Record
from mvtool.bench.report import RUNTIME_NAMES, Entry
from mvtool.bench.report_document import heat_figures
from mvtool.bench.report_words import mib, ms, percent

HASH_DIGITS: Final = 12
THERMAL_STATUS: Final = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Words of Android's PowerManager (https://developer.android.com/reference/android/os/PowerManager)."""


def deadline_words(entry: Entry) -> str:
    """Missed deadlines in a few words."""
    deadline = entry.summary.deadline
    if deadline is None:
        return "not paced"
    return f"{deadline.missed} of {entry.summary.invokes} ({percent(deadline.share)}) at {deadline.fps:g} fps"


def facts(entry: Entry) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titled groups of names and values that describe how a record came about."""
    record = entry.record
    groups = [
        ("Artifact", _artifact(entry)),
        ("Device", _device(record)),
        ("Engine", _engine(record.engine)),
        ("Run", _run(record)),
        ("Outputs", _outputs(record)),
        (cross_check.LABEL, [row for one in record.cross_checks for row in _cross_check(one)]),
        ("Heat and clocks", heat_words(record.readings)),
        ("Tools", list(record.tools.items())),
        ("Tags", [(name, str(value)) for name, value in record.extra.items()]),
    ]
    return [(title, rows) for title, rows in groups if rows]


def _artifact(entry: Entry) -> list[tuple[str, str]]:
    record, artifact = entry.record, entry.record.artifact
    macs = record.model.macs
    rows = [
        ("file", artifact.file),
        *([("build", artifact.build)] if artifact.build else []),
        ("runtime", f"{RUNTIME_NAMES[artifact.runtime]}, {artifact.precision}"),
        ("size", f"{mib(artifact.bytes)} MiB"),
        ("states", f"{mib(artifact.state_bytes)} MiB on one side of the loop" if artifact.state_bytes else "none"),
        ("frames per call", str(record.model.frames_per_call)),
        ("multiply-adds", "not counted" if macs is None else f"{macs / 1e6:.1f} million per call"),
        ("sha256", artifact.sha256[:HASH_DIGITS] + "…"),
    ]
    if entry.macs_per_second is not None:
        rows.append(("speed", f"{entry.macs_per_second / 1e9:.2f} × 10⁹ multiply-adds per second"))
    return rows


def _device(record: Record) -> list[tuple[str, str]]:
    device = record.device
    rows = [
        ("name", device.name),
        ("model", device.model),
        ("system on chip", device.soc or ""),
        ("processors", f"{device.cores}, {device.abi}"),
        ("memory", f"{device.memory_bytes / 2**30:.1f} GiB"),
        ("system", f"{device.os} {device.os_version}"),
        ("build", device.build),
        ("serial", device.serial),
    ]
    return [(name, value) for name, value in rows if value]


def _engine(engine: EngineFacts) -> list[tuple[str, str]]:
    whole = {True: ", all operators", False: ", some operators", None: ""}[engine.fully_accelerated]
    rows = [
        ("library", f"{engine.library} {engine.library_version or '(version not told)'}"),
        ("interface", engine.api),
        ("delegate", f"{engine.delegate}{whole}"),
        ("threads", f"{engine.threads}" + (f", pinned to {engine.affinity}" if engine.affinity else ", not pinned")),
        ("state loop", engine.state_loop),
        ("runner", f"version {engine.runner_version}, {engine.runner_sha256[:HASH_DIGITS]}…"),
    ]
    if engine.memory_includes:
        rows.append(("memory includes", ", ".join(engine.memory_includes)))
    return rows


def _run(record: Record) -> list[tuple[str, str]]:
    options = record.options
    gate = options.max_temperature_c
    return [
        ("begun", record.created),
        ("profile", options.profile + (", launches took turns with others" if record.interleaved else "")),
        ("launches", str(len(record.launches))),
        ("timed", f"at least {options.min_invokes} calls and {options.min_seconds:g} s per launch"),
        ("warm-up", f"at least {options.warmup_invokes} calls and {options.warmup_seconds:g} s"),
        *([("packed weights", "in a file, mapped from the second launch on")] if options.weight_cache else []),
        ("pace", "flat out" if options.fps is None else f"{options.fps:g} frames/s"),
        ("cool-down", "no limit" if gate is None else f"each launch began at {gate:g} °C or below"),
        ("video", f"{options.video}, {options.frames} different frames or clips"),
        ("record", record.id[:HASH_DIGITS] + "…"),
    ]


def _outputs(record: Record) -> list[tuple[str, str]]:
    gate = record.correctness
    worst = max(gate.ports, key=lambda port: port.error / port.tolerance, default=None)
    rows = [
        ("compared", f"{gate.steps} steps with {gate.reference}"),
        ("ports", f"{len(gate.ports)}, all within tolerance"),
    ]
    if worst is not None:
        rows.append(("nearest to its limit", f"{worst.port}: error {worst.error:.2g}, allowed {worst.tolerance:.2g}"))
    return rows


def _cross_check(check: CrossCheck) -> list[tuple[str, str]]:
    """What another tool measured; only what it told."""
    timings = check.inference
    threads = {None: "", 1: ", 1 thread"}.get(check.threads, f", {check.threads} threads")
    told = [("mean", timings.avg_ms), ("median", timings.median_ms), ("p95", timings.p95_ms)]
    told += [("fastest", timings.min_ms), ("slowest", timings.max_ms)]
    runs = "" if timings.runs is None else f" of {timings.runs} runs"
    rows = [
        (check.tool, f"{check.format}{threads}"),
        ("inference", ", ".join(f"{name} {ms(value)}" for name, value in told if value is not None) + f" ms{runs}"),
    ]
    rows += [
        (name, f"{ms(value)} ms")
        for name, value in (("first", check.first_ms), ("init", check.init_ms))
        if value is not None
    ]
    rows += [(str(counter), f"{mib(size_bytes)} MiB") for counter, size_bytes in check.memory_bytes.items()]
    if check.unconsumed_flags:
        rows.append(("flags it does not know", " ".join(check.unconsumed_flags)))
    return rows


def heat_words(readings: Sequence[Reading]) -> list[tuple[str, str]]:
    """Battery, temperatures, throttling and clocks; nothing for what the device does not tell."""
    figures = heat_figures(readings)
    rows = []
    for name, told in figures["temperatures_c"].items():
        rows.append((name, f"{told['first']:.1f} °C at first, {told['lowest']:.1f} to {told['highest']:.1f} °C"))
    if (charge := figures["battery_percent"]) is not None:
        charging = ", charging" if figures["charging"] else ""
        rows.append(("charge", f"{charge['first']:.0f} % to {charge['last']:.0f} %{charging}"))
    if figures["thermal_status"] is not None:
        status = figures["thermal_status"]
        rows.append(("throttling", f"{THERMAL_STATUS[min(status, 6)]} ({status}) at worst"))
    if figures["governors"]:
        rows.append(("governor", ", ".join(figures["governors"])))
    if figures["load_average"] is not None:
        rows.append(("load average", f"{figures['load_average']:.2f} at most"))
    return rows
