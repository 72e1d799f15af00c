"""Tables about a build: its artifacts, the rewrites that shaped them, the last verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mvtool.build import ArtifactEntry, Build, BuildManifest, RewriteEntry, Trial
from mvtool.cli import console
from mvtool.running import UNTRAINED
from mvtool.verification.report import Verification

SHOWN_S = 0.05
"""Stages that took less are not listed."""


def title(build: Build) -> Text:
    """Name of the model, and whether its weights are untrained."""
    model = build.manifest.model
    return Text(f"{model.name} · {UNTRAINED}" if model.untrained else model.name, style="bold")


def artifacts_table(build: Build) -> Table:
    """One row per artifact."""
    listing = console.table("file", "runtime", "precision", "size", "delegation", "seconds", right=("size", "seconds"))
    for entry in build.manifest.artifacts:
        seconds = f"{sum(entry.seconds.values()):.1f}"
        sizes = (entry.runtime, entry.precision, console.size(entry.bytes))
        console.add_row(listing, entry.file, *sizes, delegation(entry), seconds)
    return listing


def delegation(entry: ArtifactEntry) -> str:
    """`key value` pairs as the emitter measured them; `-` where it measured nothing."""
    return ", ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in entry.delegation.items()) or "-"


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{count} x {name}" for name, count in value.items()) or "none"
    return str(value)


def print_rewrites(manifest: BuildManifest, to: Console) -> None:
    """Each rewrite once, with the artifacts that it shaped."""
    files: dict[RewriteEntry, list[str]] = {}
    for entry in manifest.artifacts:
        for rewrite in entry.rewrites:
            files.setdefault(rewrite, []).append(entry.file)
    for rewrite, where in files.items():
        head = Text(rewrite.name, style="bold")
        head.append(f"  {rewrite.changed} changed, largest difference {rewrite.max_difference:.1e}", style="not bold")
        head.append(f"  ({len(where)} of {len(manifest.artifacts)} artifacts)", style="not bold dim")
        to.print(head)
        for line in rewrite.details:
            to.print(Text(f"    {line}"))
        for line in rewrite.left_alone:
            to.print(Text(f"    left alone: {line}", style="yellow"))


def print_trials(manifest: BuildManifest, to: Console) -> None:
    """What `--autotune` timed: one row per distinct operator, and the whole artifact where a form was chosen."""
    for entry in manifest.artifacts:
        if not entry.trials:
            continue
        listing = console.table("operator", "sizes", "forms, microseconds", "chosen", right=())
        for trials in _together(entry.trials):
            first = trials[0]
            named = next((layer for layer in first.layers if layer), "") or next(
                iter(first.operators), "whole artifact"
            )
            more = f" and {len(first.operators) - 1} more" if len(first.operators) > 1 else ""
            label = "pixels " if first.kind == "pixels" else ""
            times = ", ".join(f"{label}{t.form} {t.us:.1f} ({t.low_us:.1f} to {t.high_us:.1f})" for t in trials)
            chosen = next((f"{label}{t.form}" for t in trials if t.chosen), "-")
            console.add_row(listing, f"{named}{more}", first.what or "-", times, chosen)
        to.print(Text(f"\n{entry.file}, forms that were timed", style="bold"))
        to.print(listing)


def _together(trials: Sequence[Trial]) -> list[list[Trial]]:
    """The forms of one operator beside each other."""
    found: dict[tuple[str, tuple[str, ...]], list[Trial]] = {}
    for trial in trials:
        found.setdefault((trial.kind, trial.operators), []).append(trial)
    return list(found.values())


def print_times(manifest: BuildManifest, to: Console) -> None:
    """What each stage cost, of the conversion and of each artifact, and what was used several times."""
    if manifest.times is None:
        return
    listing = console.table("made", "stages, in seconds", "wall", "CPU", right=("wall", "CPU"))
    shared = manifest.times.stages
    wall = {name: time.seconds for name, time in shared.items()}
    _add_times(listing, "for all artifacts", wall, {name: time.cpu_seconds for name, time in shared.items()})
    for entry in manifest.artifacts:
        _add_times(listing, entry.file, entry.seconds, entry.cpu_seconds)
    to.print(listing)
    for line in manifest.times.reused:
        to.print(Text(f"reused: {line}", style="dim"), soft_wrap=True)


def _add_times(listing: Table, what: str, wall: Mapping[str, float], cpu: Mapping[str, float]) -> None:
    named = " · ".join(f"{name} {seconds:.1f}" for name, seconds in wall.items() if seconds >= SHOWN_S)
    console.add_row(listing, what, named, f"{sum(wall.values()):.1f}", f"{sum(cpu.values()):.1f}" if cpu else "-")


def print_control(manifest: BuildManifest, to: Console) -> None:
    """What an int8 artifact lost, and which layers stayed float so that it lost no more."""
    for entry in manifest.artifacts:
        control = entry.control
        if control is None:
            continue
        last = next((t for t in reversed(control.trials) if t.float_layers == len(control.layers)), None)
        lost = (
            ""
            if last is None
            else f"loses {100 * last.drop:.2f} points ({100 * last.low:.2f} to {100 * last.high:.2f})"
        )
        said = lost or f"takes the layers of {control.as_in}"
        where = f" on {control.clips} clips of {control.dataset} beside {control.base}" if lost else ""
        layers = ", ".join(layer.name for layer in control.layers) or "none"
        to.print(Text(f"{entry.file} {said}{where}; layers in float: {layers}"), soft_wrap=True)


def print_verification(verification: Verification, to: Console) -> None:
    """One row per artifact, the signal-to-noise ratios, and every failure in full."""
    step, steps = verification.step, f"{verification.step}s"
    listing = console.table("file", "verdict", "engine", steps, "worst error", "CPU s", right=(steps, "CPU s"))
    for report in verification.artifacts:
        verdict = Text("verified", style="green") if report.passed else Text("FAILED", style="bold red")
        measured = [check for check in report.checks if check.worst is not None and check.limit]
        worst = max(measured, key=lambda check: (check.worst or 0.0) / (check.limit or 1.0), default=None)
        where = "" if worst is None else f"{worst.worst:.2g} of {worst.limit:.2g} ({worst.check.value}"
        if worst is not None:
            where += f", {worst.tensor} at {step} {worst.frame})" if worst.tensor else ")"
        console.add_row(
            listing, report.file, verdict, report.engine or "-", report.frames, where or "-", f"{report.seconds:.1f}"
        )
    to.print(listing)
    for report in verification.artifacts:
        if report.snr:
            ratios = " · ".join(f"{step} {s.frame} {s.outputs_db:.1f} dB" for s in report.snr)
            to.print(Text(f"{report.file} against fp32 PyTorch: {ratios}", style="dim"), soft_wrap=True)
    stages = " · ".join(f"{name} {seconds:.1f}" for name, seconds in verification.stages.items())
    spent = f"{verification.seconds:.1f} s" + (f": {stages}" if stages else "")
    spent += f"; processor time of the artifacts {sum(report.seconds for report in verification.artifacts):.1f} s"
    to.print(Text(spent, style="dim"), soft_wrap=True)
    for line in verification.failures:
        to.print(Text(line, style="red"), soft_wrap=True)
    to.print(Text(verification.summary(), style="bold"), soft_wrap=True)
