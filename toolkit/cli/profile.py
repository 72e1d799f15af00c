"""`mvtool profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from mvtool.cli import console
from mvtool.cli.options import PRECISIONS, json_option, listed_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from mvtool.profiling.record import Group, OperatorTime, Profile, Profiles

RECORD = "profile.json"
SHOWN = 15


@click.command("profile")
@click.argument("path", metavar="BUILD", type=click.Path(path_type=Path))
@listed_option("--runtime", "runtimes", known=("tflite", "executorch"), help="Only these; both if not given.")
@listed_option("--precision", "precisions", known=PRECISIONS, help="Only these; all that the build has if not given.")
@click.option(
    "--calls", type=int, default=400, show_default=True, help="Calls of a TFLite file, with and without profiling."
)
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of the runtimes.")
@click.option("--no-roofline", is_flag=True, help="Do not measure the peaks of this machine.")
@click.option(
    "--no-layers", is_flag=True, help="Do not name the layers, which needs PyTorch and lowers the model again."
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Record and pictures. Default: BUILD/profile."
)
@json_option()
def command(
    path: Path,
    runtimes: tuple[str, ...] | None,
    precisions: tuple[str, ...] | None,
    calls: int,
    threads: int,
    no_roofline: bool,
    no_layers: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Show where the time of an artifact goes, operator by operator.

    TFLite files are timed by the profiler of their library. ExecuTorch's runtime has none; its programs are cut after ever more operators and the
    cuts are timed, which gives estimates. Each operator gets its layer of the PyTorch module, its multiply-adds, its part of the measured peak of this
    machine, and why it is not delegated where it is not. Up to three next steps follow, with what each would save.
    """
    from mvtool.build import Build
    from mvtool.cli.progress import replay_bar
    from mvtool.files import write_atomic
    from mvtool.plotting import check_target
    from mvtool.profiling.plot import plot
    from mvtool.profiling.profile import Options, chosen, profile

    console.show_warnings(verbose=False)
    build = Build.load(path)
    options = Options(calls, threads, not no_roofline, not no_layers)
    entries = chosen(build, runtimes, precisions)
    folder = out or path / "profile"
    check_target(folder / "profile.png")
    with replay_bar() as bar:
        found = profile(build, entries, options, bar)
    folder.mkdir(parents=True, exist_ok=True)
    text = found.model_dump_json(by_alias=True, indent=2)
    write_atomic(folder / RECORD, f"{text}\n".encode())
    for one in found.profiles:
        plot(one, found.model, folder / f"{Path(one.file).stem}_{one.runtime}.png")
    if as_json:
        click.echo(text)
        return
    _print(found, console.stdout())
    console.stderr().print(f"Record and pictures: {folder}")


def _print(found: Profiles, to: Console) -> None:
    load = "" if found.load is None else f", load average {found.load:.1f}"
    to.print(Text(f"{found.model} on {found.device}{load}", style="bold"))
    for one in found.profiles:
        to.print()
        _print_profile(one, to)


def _print_profile(one: Profile, to: Console) -> None:
    how = "the library's profiler" if one.method == "profiler" else "estimated from prefixes"
    to.print(Text(f"{one.file} ({one.runtime} {one.precision}), {how}, threads: {one.threads}", style="bold"))
    agreement = one.agreement
    verdict = "agree" if agreement.holds else "do not agree; measure again on an idle machine"
    call = "" if agreement.call_ms is None else f", a call without operators {agreement.call_ms:.4g} ms"
    to.print(
        f"without profiling {one.latency.median_ms:.4g} ms (quartiles {one.latency.low_ms:.4g} to {one.latency.high_ms:.4g}), operators together "
        f"{agreement.sum_ms:.4g} ms{call}, rest {agreement.rest_ms:+.4g} ms: within {agreement.margin:.0%} they {verdict}",
        soft_wrap=True,
    )
    for note in one.notes:
        to.print(Text(note, style="dim"), soft_wrap=True)
    to.print(_groups_table("type", one.types))
    to.print(_groups_table("layer", one.layers))
    to.print(_operators_table(one.operators))
    outside = [row for row in one.operators if not row.delegated]
    to.print(f"outside the delegate: {len(outside)} of {len(one.operators)}")
    for row in outside[:SHOWN]:
        to.print(Text(f"  {row.type} in {row.layer or 'an unknown layer'}: {row.reason}"), soft_wrap=True)
    _print_steps(one, to)


def _print_steps(one: Profile, to: Console) -> None:
    if not one.steps:
        to.print("next steps: none that this profile shows to save 1 % or more")
        return
    to.print(Text("next steps", style="bold"))
    for number, step in enumerate(one.steps, 1):
        share = step.gain_ms / one.latency.median_ms
        to.print(
            Text(f"{number}. {step.what} About {step.gain_ms:.3g} ms ({share:.0%}): {step.estimate}."), soft_wrap=True
        )


def _groups_table(title: str, groups: Sequence[Group]) -> object:
    table = console.table(title, "operators", "ms", "share", "MACs", right=("operators", "ms", "share", "MACs"))
    for group in groups[:SHOWN]:
        cells = group.operators, f"{group.ms:.4f}", f"{group.share:.1%}", f"{group.macs:,}"
        console.add_row(table, group.name, *cells)
    if len(groups) > SHOWN:
        rest = groups[SHOWN:]
        times = f"{sum(g.ms for g in rest):.4f}", f"{sum(g.share for g in rest):.1%}"
        numbers = sum(g.operators for g in rest), *times, f"{sum(g.macs for g in rest):,}"
        console.add_row(table, f"{len(rest)} others", *numbers)
    return table


def _operators_table(rows: Sequence[OperatorTime]) -> object:
    right = ("#", "ms", "share", "MACs", "of peak")
    table = console.table(*right[:1], "slowest operators", "layer", "shapes", *right[1:], "delegated", right=right)
    for row in sorted(rows, key=lambda row: -row.ms)[:SHOWN]:
        layer = row.layer or "unknown"
        peak = "-" if row.peak_share is None else f"{row.peak_share:.0%}"
        macs = "-" if row.macs is None else f"{row.macs:,}"
        cells = row.shapes, f"{row.ms:.4f}", f"{row.share:.1%}", macs, peak, "yes" if row.delegated else "no"
        console.add_row(table, row.position, row.type, f"~{layer}" if row.layer_from == "between" else layer, *cells)
    return table
