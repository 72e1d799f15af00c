"""A verification as `rich` tables."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mvtool.verification.report import ArtifactReport, Check, CheckResult, Status, Verification

_STYLE = {Status.PASSED: "green", Status.FAILED: "bold red", Status.NOT_RUN: "yellow"}
_ERROR_CHECKS = (
    Check.REPLAY_OUTPUTS,
    Check.REPLAY_STATES,
    Check.SIMULATION_OUTPUTS,
    Check.SIMULATION_STATES,
)


def tables(verification: Verification, verbose: bool = False) -> RenderableType:
    """The verdict, one row per artifact, and every failure.

    Args:
        verification: What to show.
        verbose: List the checks that passed, too.
    """
    parts: list[RenderableType] = [_overview(verification)]
    snr = _snr(verification)
    if snr is not None:
        parts.append(snr)
    parts += _details("the build", verification.checks, verbose)
    for artifact in verification.artifacts:
        parts += _details(artifact.file, artifact.checks, verbose)
    style = "bold green" if verification.passed else "bold red"
    parts.append(Text(f"{verification.summary()} ({verification.seconds:.0f} s)", style=style))
    return Group(*parts)


def _overview(verification: Verification) -> Table:
    table = Table(title=f"{verification.model}: {verification.frames} steps, {verification.distinct_inputs} different")
    for name in ("artifact", "executed by", "checks", "worst output", "worst state", "verdict"):
        table.add_column(name, overflow="fold")
    for artifact in verification.artifacts:
        good = sum(result.status is Status.PASSED for result in artifact.checks)
        verdict = "[green]holds[/]" if artifact.passed else "[bold red]FAILS[/]"
        outputs, states = (_worst(artifact, ending) for ending in ("outputs", "states"))
        count = f"{good}/{len(artifact.checks)}"
        table.add_row(escape(artifact.file), artifact.engine or "-", count, outputs, states, verdict)
    return table


def _worst(artifact: ArtifactReport, ending: str) -> str:
    """For example `3.1e-06 of 0.0001: block0_conv, frame 17`."""
    for result in artifact.checks:
        if result.check in _ERROR_CHECKS and result.check.value.endswith(ending) and result.worst is not None:
            return f"{result.worst:.2g} of {result.limit:.2g}: {escape(str(result.tensor))}, frame {result.frame}"
    return "-"


def _snr(verification: Verification) -> Table | None:
    rows = [(artifact, snr) for artifact in verification.artifacts for snr in artifact.snr]
    if not rows:
        return None
    table = Table(title="free-running int8 stream against fp32, signal to noise")
    for name in ("artifact", "frame", "outputs dB", "worst state dB", "state"):
        table.add_column(name, overflow="fold")
    for artifact, snr in rows:
        states = "-" if snr.states_db is None else f"{snr.states_db:.1f}"
        table.add_row(
            escape(artifact.file), str(snr.frame), f"{snr.outputs_db:.1f}", states, escape(snr.worst_state or "-")
        )
    return table


def _details(title: str, checks: tuple[CheckResult, ...], verbose: bool) -> list[RenderableType]:
    shown = [result for result in checks if verbose or result.status is not Status.PASSED]
    if not shown:
        return []
    table = Table(title=escape(title), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for result in shown:
        table.add_row(
            result.check.value, Text(result.status.value, style=_STYLE[result.status]), escape(result.message)
        )
    return [table]
