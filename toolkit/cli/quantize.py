"""`mvtool quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from mvtool.cli import console
from mvtool.cli.options import json_option
from mvtool.errors import UsageError

if TYPE_CHECKING:
    from mvtool.build import Build

RANGES_PLOT, SENSITIVITY_PLOT = "state_ranges.png", "sensitivity.png"
SHOWN = 15


@click.command("quantize")
@click.argument("path", metavar="BUILD", type=click.Path(path_type=Path))
@click.option("--ranges", is_flag=True, help="Ranges of the states after every step of the calibration.")
@click.option("--sensitivity", is_flag=True, help="What each layer alone costs in int8.")
@click.option(
    "--calibration",
    metavar="PATH|SPEC",
    help="Clips for --sensitivity, if the build was given some. Default: as its own.",
)
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Default: BUILD/<what was asked for>.png."
)
@json_option()
def command(
    path: Path, ranges: bool, sensitivity: bool, calibration: str | None, plot: Path | None, as_json: bool
) -> None:
    """Show what int8 was calibrated on and where it costs most.

    With --ranges: how far the values of each state reached after every step. A state whose range still grows at the end of the
    calibration clips will leave it in a longer stream; calibrate on longer clips then.

    With --sensitivity: the noise at the model's outputs with one layer in int8 and all others in float. `mvtool convert --max-drop` returns
    layers to float in this order.
    """
    from mvtool.build import Build

    if ranges == sensitivity:
        raise UsageError("Ask for one thing: --ranges or --sensitivity.")
    if calibration is not None and ranges:
        raise UsageError("--ranges shows what the build was calibrated on; --calibration is for --sensitivity.")
    build = Build.load(path)
    if ranges:
        _ranges(build, plot or path / RANGES_PLOT, as_json)
    else:
        _sensitivity(build, calibration, plot or path / SENSITIVITY_PLOT, as_json)


def _ranges(build: Build, target: Path, as_json: bool) -> None:
    from mvtool.build import STATE_RANGES_FILE
    from mvtool.plotting import check_target
    from mvtool.quantization import state_ranges

    check_target(target)
    recorded = None if build.manifest.calibration is None else build.manifest.calibration.state_ranges
    if recorded is None:
        raise UsageError(
            f"{build.folder} holds no {STATE_RANGES_FILE}: it has no int8 artifact, or its model keeps no state."
        )
    build.check_hash(recorded)
    found = state_ranges.read(build.path(recorded))
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


def _sensitivity(build: Build, calibration: str | None, target: Path, as_json: bool) -> None:
    from mvtool.cli.progress import replay_bar
    from mvtool.converters.program_io import load_program
    from mvtool.datasets.spec import is_generator
    from mvtool.extras import require
    from mvtool.plotting import check_target
    from mvtool.quantization import sensitivity
    from mvtool.quantization.sources import load_calibration
    from mvtool.threads import single_threaded_torch

    require("torch", "to execute the model with layers in int8")
    check_target(target)
    build.check_hash(build.manifest.program)
    program = load_program(build.path(build.manifest.program))
    given = calibration or build.manifest.options.get("calibration")
    if calibration is None and given is not None and not is_generator(str(given)):
        raise UsageError(f"{build.folder} was calibrated on {given}; say where that is with --calibration.")
    clips = load_calibration(
        None if given is None else Path(str(given)), program.info, program.inputs, stream=program.is_stream
    )
    with replay_bar() as bar, single_threaded_torch():
        found = sensitivity.measure(
            program, sensitivity.lowered_for_it(program), clips, lambda done, total: bar("layers", done, total)
        )
    sensitivity.plot(found, target)
    if as_json:
        click.echo(found.model_dump_json(by_alias=True))
        return
    to = console.stdout()
    title = (
        f"{found.model}: {len(found.layers)} layers, one at a time in int8, over {found.steps} steps of {found.origin}"
    )
    to.print(Text(title, style="bold"))
    table = console.table("layer", "activations", "weights", "SNR (dB)", right=("weights", "SNR (dB)"))
    for layer in found.layers[:SHOWN]:
        console.add_row(table, layer.name, layer.activations, f"{layer.weights:,}", f"{layer.snr_db:.1f}")
    to.print(table)
    if len(found.layers) > SHOWN:
        to.print(Text(f"and {len(found.layers) - SHOWN} that cost less; all with --json", style="dim"))
    to.print(f"everything in int8: {found.snr_db:.1f} dB; inputs, states and sums alone: {found.rest_snr_db:.1f} dB")
    console.stderr().print(f"Picture: {target}")
