"""`mvtool quantize`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from mvtool.cli import console
from mvtool.cli.options import json_option
from mvtool.errors import UsageError

RANGES_PLOT = "state_ranges.png"


@click.command("quantize")
@click.argument("path", metavar="BUILD", type=click.Path(path_type=Path))
@click.option("--ranges", is_flag=True, help="Ranges of the states after every step of the calibration.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Default: BUILD/state_ranges.png.")
@json_option()
def command(path: Path, ranges: bool, plot: Path | None, as_json: bool) -> None:
    """Show what int8 of a build was calibrated on.

    With --ranges: how far the values of each state reached after every step. A state whose range still grows at the end of the
    calibration clips will leave it in a longer stream; calibrate on longer clips then.
    """
    from mvtool.build import STATE_RANGES_FILE, Build
    from mvtool.plotting import check_target
    from mvtool.quantization import state_ranges

    if not ranges:
        raise UsageError("Nothing was asked for; add --ranges.")
    target = plot or path / RANGES_PLOT
    check_target(target)
    build = Build.load(path)
    if build.manifest.calibration is None or build.manifest.calibration.state_ranges is None:
        raise UsageError(f"{path} holds no {STATE_RANGES_FILE}: it has no int8 artifact, or its model keeps no state.")
    build.check_hash(build.manifest.calibration.state_ranges)
    found = state_ranges.read(build.path(build.manifest.calibration.state_ranges))
    state_ranges.plot(found, target)
    if as_json:
        click.echo(found.model_dump_json(by_alias=True))
        return
    to = console.stdout()
    growing = [state for state in found.states if not state.settled]
    title = f"{found.model}: {len(found.states)} states over {found.clips} clips of {found.origin}, {len(growing)} still growing"
    to.print(Text(title, style="bold"))
    table = console.table("state", "form", "low", "high", "settled", right=("low", "high"))
    for state in found.states:
        ends = f"{min(state.low):.4g}", f"{max(state.high):.4g}"
        console.add_row(table, state.state, state.form, *ends, "yes" if state.settled else "no")
    to.print(table)
    console.stderr().print(f"Picture: {target}")
