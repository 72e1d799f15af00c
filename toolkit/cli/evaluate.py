"""`mvtool evaluate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from mvtool.cli import console
from mvtool.cli.options import PRECISIONS, RUNTIMES, json_option, listed_option
from mvtool.errors import UsageError

if TYPE_CHECKING:
    from mvtool.build import Build
    from mvtool.evaluation.result import Evaluation, Share
    from mvtool.ports import Precision, Runtime

PLOT = "evaluation.png"


@click.command("evaluate")
@click.argument("path", metavar="BUILD", type=click.Path(path_type=Path))
@click.option("--dataset", required=True, metavar="SPEC", help="Folder of classes, list.csv, or motion:NAME=VALUE,...")
@listed_option("--runtime", known=RUNTIMES, help="Artifacts of these runtimes; all but coreml if not given.")
@listed_option("--precision", known=PRECISIONS, help="Artifacts of these precisions; all if not given.")
@click.option("--reference", is_flag=True, help="Evaluate the captured PyTorch program too.")
@click.option("--clips", type=click.IntRange(min=1), help="Only the first so many clips.")
@click.option("--frames", type=click.IntRange(min=1), help="Play at most so many frames of each clip.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes; one per processor if not given.")
@click.option("--ray", "address", metavar="ADDRESS", help="Play on a Ray cluster; `auto` for the one of this machine.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for answers and results. Default: BUILD/evaluation."
)
@json_option()
def command(
    path: Path,
    dataset: str,
    runtime: tuple[str, ...] | None,
    precision: tuple[str, ...] | None,
    reference: bool,
    clips: int | None,
    frames: int | None,
    jobs: int | None,
    address: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure the accuracy of artifacts on labelled videos.

    Every artifact plays the same clips, so that fp32 and int8 are compared clip by clip. The answers are kept in the folder --out: a run
    that was interrupted goes on where it was. Beside evaluation.json a picture shows the accuracy after every frame.

    Core ML artifacts are executed by the reference evaluator where this is no Mac, which is slow: ask for them with --runtime coreml
    and few --clips.
    """
    from mvtool.build import Build
    from mvtool.cli.progress import replay_bar
    from mvtool.evaluation import workers
    from mvtool.evaluation.evaluate import evaluate
    from mvtool.evaluation.plot import plot
    from mvtool.plotting import check_target

    if address is not None and jobs is not None:
        raise UsageError("--jobs is for this machine and --ray for a cluster; give one of them.")
    build = Build.load(path)
    place = out or path / "evaluation"
    check_target(place / PLOT)
    with replay_bar() as bar:
        found = evaluate(
            build,
            _artifacts(build, runtime, precision),
            dataset,
            place,
            reference=reference,
            clips=clips,
            frames=frames,
            workers=workers.local(jobs or os.cpu_count() or 1) if address is None else workers.on_ray(address),
            progress=lambda done, total: bar("clips", done, total),
        )
    plot(found, place / PLOT)
    if as_json:
        click.echo(found.model_dump_json(by_alias=True, indent=1))
        return
    _show(found)
    console.stderr().print(f"Picture: {place / PLOT}")


def _artifacts(
    build: Build, runtimes: tuple[str, ...] | None, precisions: tuple[str, ...] | None
) -> list[tuple[Runtime, Precision]]:
    wanted = runtimes or tuple(name for name in RUNTIMES if name != "coreml")
    found = [
        (entry.runtime, entry.precision)
        for entry in build.manifest.artifacts
        if entry.runtime in wanted and (precisions is None or entry.precision in precisions)
    ]
    if not found:
        have = ", ".join(f"{entry.runtime} {entry.precision}" for entry in build.manifest.artifacts)
        raise UsageError(f"{build.folder} has no such artifact; it has {have}. Choose with --runtime and --precision.")
    return found


def _show(found: Evaluation) -> None:
    title = f"{found.model}: {found.clips} clips of {found.dataset}; shares in %, 95 % intervals"
    console.stdout().print(Text(title, style="bold"))
    table = console.table("artifact", "top-1", "interval", "top-5", "interval ", right=("top-1", "top-5"))
    for subject in found.subjects:
        one, five = subject.final.top1, subject.final.top5
        console.add_row(table, subject.name, _percent(one.value), _range(one), _percent(five.value), _range(five))
    console.stdout().print(table)
    if not found.comparisons:
        return
    table = console.table(
        "artifact", "beside", "drop (points)", "interval", "largest after", "drop", right=("drop (points)", "drop")
    )
    for pair in found.comparisons:
        worst = max(range(len(pair.steps)), key=lambda step: pair.steps[step].drop.high)
        at = pair.steps[worst].drop
        drops = (
            f"{100 * pair.final.drop.value:+.2f}",
            _range(pair.final.drop),
            f"step {worst + 1}",
            f"{100 * at.value:+.2f}",
        )
        console.add_row(table, pair.new, pair.base, *drops)
    console.stdout().print(table)


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _range(share: Share) -> str:
    return f"{100 * share.low:.2f} to {100 * share.high:.2f}"
