"""`mvtool profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from mvtool.cli import console
from mvtool.cli.options import PRECISIONS, json_option, listed_option
from mvtool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from mvtool.build import ArtifactEntry, Build
    from mvtool.profiling.record import Group, OperatorTime, Profile, Profiles, WorkTime

RECORD, ALL = "profile.json", "profiles.png"
SHOWN, NAMED = 15, 3


@click.command("profile")
@click.argument(
    "paths", metavar="BUILD|FILE.tflite [FILE.tflite ...]", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@listed_option(
    "--runtime", "runtimes", known=("tflite", "executorch"), help="Of a build only these; both if not given."
)
@listed_option(
    "--precision", "precisions", known=PRECISIONS, help="Of a build only these; all that it has if not given."
)
@click.option(
    "--calls", type=int, default=400, show_default=True, help="Calls of a TFLite file, with and without profiling."
)
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of the runtimes.")
@click.option("--no-roofline", is_flag=True, help="Do not measure the peaks of this machine.")
@click.option(
    "--no-layers", is_flag=True, help="Do not name the layers, which needs PyTorch and lowers the model again."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Record and pictures. Default: BUILD/profile, or the folder profile beside the first FILE.",
)
@json_option()
def command(
    paths: tuple[Path, ...],
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

    Give a build, `.tflite` files of any converter, or a build and such files: all are profiled in the same way and compared by kind of work.

    TFLite files are timed by the profiler of their library. ExecuTorch's runtime has none; its programs are cut after ever more operators and the
    cuts are timed, which gives estimates. Each operator gets its layer of the PyTorch module, its multiply-adds, its part of the measured peak of this
    machine, and why it is not delegated where it is not. Up to three next steps follow, with what each would save.
    """
    from mvtool.cli.progress import replay_bar
    from mvtool.files import write_atomic
    from mvtool.plotting import check_target
    from mvtool.profiling.plot import plot
    from mvtool.profiling.profile import Options, profile
    from mvtool.profiling.work_plot import compared, plot_work

    console.show_warnings(verbose=False)
    options = Options(calls, threads, not no_roofline, not no_layers)
    build, entries, files = _asked(paths, runtimes, precisions)
    folder = out or (paths[0].parent if build is None else paths[0]) / "profile"
    check_target(folder / ALL)
    with replay_bar() as bar:
        found = profile(build, entries, options, bar, files)
    folder.mkdir(parents=True, exist_ok=True)
    text = found.model_dump_json(by_alias=True, indent=2)
    write_atomic(folder / RECORD, f"{text}\n".encode())
    for one in found.profiles:
        stem = one.file.removesuffix(Path(one.file).suffix).replace("/", "_")
        plot(one, found.model, folder / f"{stem}_{one.runtime}.png")
    if compared(found):
        plot_work(found, folder / ALL)
    if as_json:
        click.echo(text)
        return
    _print(found, console.stdout())
    console.stderr().print(f"Record and pictures: {folder}")


def _asked(
    paths: Sequence[Path], runtimes: Sequence[str] | None, precisions: Sequence[str] | None
) -> tuple[Build | None, list[ArtifactEntry], list[Path]]:
    """The build with its artifacts, if one was given, and the other files; all are looked at before anything is measured."""
    from mvtool.build import SUFFIX_OF_RUNTIME, Build
    from mvtool.profiling.profile import chosen
    from mvtool.profiling.subjects import check

    first, *others = paths
    is_file = first.is_file() or first.suffix.lower() in SUFFIX_OF_RUNTIME.values()
    files = list(paths) if is_file else others
    if is_file and (runtimes or precisions):
        raise UsageError(f"--runtime and --precision choose artifacts of a build; {first} is a file.")
    build = None if is_file else Build.load(first)
    entries = [] if build is None else chosen(build, runtimes, precisions)
    for file in files:
        check(file)
    return build, entries, files


def _print(found: Profiles, to: Console) -> None:
    from mvtool.profiling.work_plot import compared

    load = "" if found.load is None else f", load average {found.load:.1f}"
    to.print(Text(f"{found.model} on {found.device}{load}", style="bold"))
    for one in found.profiles:
        to.print()
        _print_profile(one, to)
    for group in compared(found).values():
        to.print()
        _print_work(group, to)


def _print_work(group: Sequence[Profile], to: Console) -> None:
    """Time per kind of work, a column per file."""
    from mvtool.profiling.kinds import KINDS

    to.print(Text(f"time by kind of work, {group[0].runtime}, ms per call", style="bold"))
    for number, one in enumerate(group, 1):
        to.print(Text(f"  {number}: {one.file} ({one.precision})"))
    numbers = [str(number) for number in range(1, len(group) + 1)]
    table = console.table("kind", *numbers, right=tuple(numbers))
    for kind in KINDS:
        parts = [next((part for part in one.work if part.kind == kind), None) for one in group]
        if any(parts):
            console.add_row(table, kind, *(_part(part) for part in parts))
    console.add_row(table, "a call without profiling", *(f"{one.latency.median_ms:.3f}" for one in group))
    quartiles = [f"{one.latency.low_ms:.3f} to {one.latency.high_ms:.3f}" for one in group]
    console.add_row(table, "its quartiles", *quartiles)
    console.add_row(table, "operators", *(len(one.operators) for one in group))
    console.add_row(table, "outside the delegate", *(sum(not row.delegated for row in one.operators) for one in group))
    nodes = ["-" if one.delegate_nodes is None else one.delegate_nodes for one in group]
    console.add_row(table, "delegate nodes", *nodes)
    to.print(table)


def _part(part: WorkTime | None) -> str:
    if part is None:
        return "-"
    outside = f" ({part.outside_ms:.3f} outside)" if part.outside_operators else ""
    return f"{part.ms:.3f}{outside}"


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
    _print_outside(outside, to)
    _print_steps(one, to)


def _print_outside(rows: Sequence[OperatorTime], to: Console) -> None:
    """What no delegate takes, by type and reason, longest first."""
    groups: dict[tuple[str, str | None], list[OperatorTime]] = {}
    for row in rows:
        groups.setdefault((row.type, row.reason), []).append(row)
    for (kind, reason), members in sorted(groups.items(), key=lambda group: -sum(row.ms for row in group[1]))[:SHOWN]:
        layers = list(dict.fromkeys(row.layer for row in members if row.layer))
        more = f" and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
        where = f" in {', '.join(layers[:NAMED])}{more}" if layers else ""
        ms = sum(row.ms for row in members)
        to.print(Text(f"  {len(members)} x {kind}{where}, {ms:.4f} ms: {reason}"), soft_wrap=True)


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
