"""`mvtool convert`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvtool.cli import console, progress
from mvtool.cli.build_view import artifacts_table, print_control, print_rewrites, print_times, print_trials, title
from mvtool.cli.options import PRECISIONS, RUNTIMES, json_option, listed_option
from mvtool.errors import UsageError

if TYPE_CHECKING:
    from mvtool.converters.inputs import InputSpec
    from mvtool.ports import Preprocessing

STAGE_TIMEOUT_S = 600.0
GATES = ("sigmoid", "keras", "ref", "relu6")
"""Values of `mvtool.streaming.activations.Gate`, which would import PyTorch; a test holds them equal."""
STATE_LAYOUTS = ("shift", "ring")
"""Values of `mvtool.ports.StateLayout`; a test holds them equal."""


@click.command("convert")
@click.argument("model")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Checkpoint; one per member for an ensemble. Without it the weights are untrained.",
)
@click.option("--int8", is_flag=True, help="fp32 and int8; short for --precision fp32,int8.")
@listed_option("--target", "targets", known=RUNTIMES, default=",".join(RUNTIMES), show_default=True)
@listed_option(
    "--precision", "precisions", known=PRECISIONS, help="Default: fp32. Those with int8- need no calibration."
)
@click.option("--out", type=click.Path(path_type=Path), help="Build folder; default: build/<model>.")
@click.option(
    "--calibration",
    metavar="PATH|SPEC",
    help="For int8: a folder of videos, of image folders, a .npy file, or motion:... Default: the bundled clip.",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="[NAME=]1x3x172x172[:DTYPE][@tensor]",
    help="Of an own model; repeat. 1x3xHxW and 1x3xTxHxW are pictures unless @tensor follows.",
)
@click.option("--kwargs", metavar="JSON", help="Keyword arguments of the model's factory.")
@click.option("--state", "states", multiple=True, metavar="IN=OUT", help="State that is passed in and out; repeat.")
@click.option(
    "--initial", multiple=True, metavar="IN=0.5|FILE.npy", help="First value of such a state, else 0; repeat."
)
@click.option("--forward-kwargs", metavar="JSON", help="Arguments of forward that are not tensors.")
@click.option("--gate", type=click.Choice(GATES), help="Squeeze-excite gate of imported streams.")
@click.option("--num-classes", type=click.IntRange(min=1), help="Number of classes, if not the published one.")
@click.option("--resolution", metavar="PIXELS|HxW", help="Picture size of a zoo model, if not the published one.")
@click.option("--frames", type=click.IntRange(min=1), help="Frames per call of a zoo model, if not the published ones.")
@click.option("--labels", metavar="NAME|FILE", help="kinetics600, kinetics400, or a file with one label per line.")
@click.option(
    "--rewrite", metavar="2plus1d[:RANK]", help="Factor 3D kernels: `full`, a number of pairs, or an energy as 0.95."
)
@click.option(
    "--max-drop",
    type=float,
    metavar="SHARE",
    help="Top-1 that int8 may lose, as 0.01: layers return to float until it holds.",
)
@click.option("--evaluation", metavar="SPEC", help="Labelled videos for --max-drop, as --dataset of `mvtool evaluate`.")
@click.option("--mean", metavar="R,G,B", help="Of an own model's RGB input in 0..1; with --std.")
@click.option("--std", metavar="R,G,B", help="Of an own model's RGB input in 0..1; with --mean.")
@click.option(
    "--state-layout",
    type=click.Choice(STATE_LAYOUTS),
    default=STATE_LAYOUTS[0],
    show_default=True,
    help="Queues of past frames: shifted in the graph, or a port per frame and the app moves pointers.",
)
@click.option(
    "--autotune", is_flag=True, help="Time the forms that operators may have on this machine, keep the fastest."
)
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    metavar="BUILD",
    help="Use the forms of operators that --autotune found for that build of the same model.",
)
@click.option(
    "--stage-timeout",
    default=STAGE_TIMEOUT_S,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Seconds per stage.",
)
@click.option(
    "-v", "--verbose", is_flag=True, help="List every rewrite with what it changed, and what each stage cost."
)
@json_option("Print the build manifest.")
def command(
    model: str,
    weights: tuple[Path, ...],
    int8: bool,
    targets: tuple[str, ...],
    precisions: tuple[str, ...] | None,
    out: Path | None,
    calibration: str | None,
    inputs: tuple[str, ...],
    kwargs: str | None,
    states: tuple[str, ...],
    initial: tuple[str, ...],
    forward_kwargs: str | None,
    gate: str | None,
    num_classes: int | None,
    resolution: str | None,
    frames: int | None,
    labels: str | None,
    rewrite: str | None,
    max_drop: float | None,
    evaluation: str | None,
    mean: str | None,
    std: str | None,
    state_layout: str,
    autotune: bool,
    recipe: Path | None,
    stage_timeout: float,
    verbose: bool,
    as_json: bool,
) -> None:
    """Convert a model for phones: TFLite, Core ML, ExecuTorch.

    MODEL is a name of `mvtool zoo`, an own `package.module:factory`, or a saved program `model.pt2`. The build folder
    gets one file per target and precision, a manifest, and a golden file; `mvtool verify` executes them.
    """
    from mvtool.converters.inputs import parse_initial, parse_input, parse_state
    from mvtool.converters.pipeline import convert

    console.show_warnings(verbose)
    specs = tuple(parse_input(text) for text in inputs)
    pairs = tuple(parse_state(text) for text in states)
    if (mean or std) and not specs:
        raise UsageError("--mean and --std belong to a model with --input; a model of the zoo says its own.")
    started = time.monotonic()
    with progress.view(quiet=as_json) as listener:
        build = convert(
            model,
            weights=weights[0] if len(weights) == 1 else weights or None,
            targets=targets,
            precisions=chosen_precisions(precisions, int8),
            out=out,
            calibration=calibration,
            inputs=specs,
            kwargs=parse_kwargs(kwargs),
            states=pairs,
            initial=dict(parse_initial(text) for text in initial),
            forward_kwargs=parse_kwargs(forward_kwargs, "--forward-kwargs"),
            gate=gate,
            num_classes=num_classes,
            resolution=parse_resolution(resolution),
            frames=frames,
            labels=labels,
            rewrite=rewrite,
            max_drop=max_drop,
            evaluation=evaluation,
            preprocessing=parse_preprocessing(mean, std, specs, [before for before, _ in pairs]),
            state_layout=state_layout,
            autotune=autotune,
            recipe=recipe,
            stage_timeout_s=stage_timeout,
            listener=listener,
        )
    if as_json:
        console.print_json(json.loads(build.manifest.to_json()))
        return
    to = console.stdout()
    if verbose:
        print_rewrites(build.manifest, to)
        print_times(build.manifest, to)
    to.print(title(build))
    to.print(artifacts_table(build))
    print_trials(build.manifest, to)
    print_control(build.manifest, to)
    to.print(
        f"\n{build.folder} in {time.monotonic() - started:.0f} s. Next: mvtool verify {build.folder}", markup=False
    )


def chosen_precisions(named: tuple[str, ...] | None, int8: bool) -> tuple[str, ...]:
    """The precisions to convert to.

    Example:
        >>> chosen_precisions(None, int8=True)
        ('fp32', 'int8')
        >>> chosen_precisions(("fp16",), int8=True)
        ('fp16', 'int8')
    """
    chosen = named or ("fp32",)
    return (*chosen, "int8") if int8 and "int8" not in chosen else chosen


def parse_preprocessing(
    mean: str | None, std: str | None, specs: Sequence[InputSpec], states: Collection[str] = ()
) -> Preprocessing | None:
    """The preprocessing of an own model, from `--mean`, `--std` and the size of its picture input.

    Args:
        mean: Three numbers, separated by commas.
        std: The same; all above 0.
        specs: All inputs.
        states: Names of those that hold state.

    Raises:
        UsageError: Only one of both is given, or not three such numbers, or no input holds pictures.
    """
    from mvtool.converters.inputs import picture_of
    from mvtool.preprocessing import plain

    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise UsageError(
            "--mean and --std belong together; give both, for example --mean 0.45,0.45,0.45 --std 0.225,0.225,0.225."
        )
    picture = picture_of(specs, states)
    if picture is None:
        shapes = ", ".join("x".join(map(str, spec.shape)) or "scalar" for spec in specs)
        raise UsageError(
            f"--mean and --std belong to a picture input such as 1x3x172x172; the inputs are {shapes}. Leave them out."
        )
    found = {"mean": _three("--mean", mean), "std": _three("--std", std)}
    if min(found["std"]) <= 0:
        raise UsageError(f"--std got {std!r}; expected three numbers above 0, by which the colours are divided.")
    return plain(*picture.shape[-2:]).model_copy(update=found)


def _three(option: str, text: str) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{option} got {text!r}; expected three numbers such as 0.45,0.45,0.45.") from error
    if not all(map(math.isfinite, (red, green, blue))):
        raise UsageError(f"{option} got {text!r}; expected three finite numbers such as 0.45,0.45,0.45.")
    return red, green, blue


def parse_resolution(text: str | None) -> int | tuple[int, int] | None:
    """Pixels, or height and width.

    Raises:
        UsageError: It is neither.

    Example:
        >>> parse_resolution("192x256")
        (192, 256)
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise UsageError(
            f"--resolution got {text!r}; expected pixels such as 224, or height and width such as 192x256."
        )
    numbers = [int(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def parse_kwargs(text: str | None, option: str = "--kwargs") -> dict[str, Any] | None:
    """Keyword arguments written as a JSON object.

    Raises:
        UsageError: It is no JSON object.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{option} {text!r} is not JSON: {error}. Expected, for example, '{{\"width\": 64}}'."
        ) from error
    if not isinstance(value, dict):
        raise UsageError(f"{option} is a JSON {type(value).__name__}; expected an object such as '{{\"width\": 64}}'.")
    return value
