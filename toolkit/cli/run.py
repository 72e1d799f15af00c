"""`mvtool run`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from mvtool import plotting, runtimes
from mvtool import running as running_video
from mvtool.cli import console
from mvtool.cli.options import artifact_options
from mvtool.plotting import Timeline
from mvtool.run_log import RunLog, to_file, to_stream
from mvtool.running import UNTRAINED, Run, RunHeader, Step


@click.command("run")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("video")
@artifact_options
@click.option("--labels", metavar="NAME|FILE", help="kinetics600, kinetics400, or a file with one label per line.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(min=1), help="Labels per step.")
@click.option("--every", default=1.0, show_default=True, type=click.FloatRange(min=0), help="Seconds between lines.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many steps.")
@click.option("--frame-rate", type=click.FloatRange(min=0, min_open=True), help="Instead of the model's frame rate.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Threads of the runtime.")
@click.option("--jsonl", metavar="FILE", help="Write one JSON record per step; - for standard output.")
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw probabilities over time, .png or .svg."
)
def command(
    path: Path,
    video: str,
    runtime: str | None,
    precision: str | None,
    labels: str | None,
    top: int,
    every: float,
    limit: int | None,
    frame_rate: float | None,
    threads: int,
    jsonl: str | None,
    plot: Path | None,
) -> None:
    """Label a video with a converted model.

    PATH is a build folder or one artifact; VIDEO a file, a folder of images, a .npy file or a camera number.
    Without --runtime and --precision a build's fp32 TFLite artifact runs, if it has one.
    """
    console.show_warnings(verbose=False)
    if plot is not None:
        plotting.check_target(plot)
    session = runtimes.open_artifact(path, runtime, precision, threads)
    result = running_video.run(session, video, labels=labels, top_k=top, frame_rate=frame_rate, limit=limit)
    timeline = Timeline()
    try:
        show(result, timeline, every_s=every, jsonl=jsonl)
    finally:
        # A camera is stopped with Ctrl-C, and a broken file has whole frames before the break.
        if plot is not None and timeline.times_s:
            plotting.plot(result.header, timeline, plot, classes=top)
            console.stderr().print(f"Plot: {plot}")


def show(result: Run, timeline: Timeline, *, every_s: float, jsonl: str | None = None) -> None:
    """Print, log and collect the steps of a run.

    Args:
        result: The run; its steps are used up.
        timeline: Gets every step.
        every_s: Seconds of video between printed lines.
        jsonl: File for the JSON records; `-` writes them to stdout instead of lines for people.
    """
    bar = _bar()
    printer = None if jsonl == "-" else _printer(bar)
    with ExitStack() as stack:
        log = _log(stack, jsonl, result.header)
        stack.enter_context(bar)
        unit = "frames" if result.header.frames_per_step == 1 else "clips"
        task = bar.add_task(unit, total=result.header.expected_steps)
        if printer is not None:
            printer.print(Text(result.header.title, style="bold"))
        due_s = 0.0
        for step in result.steps:
            timeline.add(step)
            if log is not None:
                log.add(step)
            if printer is not None and step.time_s >= due_s:
                printer.print(Text(_line(step)))
                due_s = step.time_s + every_s - 1e-6
            bar.advance(task)
    if printer is not None and timeline.times_s:
        _summary(result, timeline)


def _bar() -> Progress:
    to = console.stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=to, transient=True, disable=not to.is_terminal)


def _printer(bar: Progress) -> Console:
    """Where lines go: above the bar on a terminal, else to stdout."""
    out = console.stdout()
    return bar.console if out.is_terminal and bar.console.is_terminal else out


def _log(stack: ExitStack, jsonl: str | None, header: RunHeader) -> RunLog | None:
    if jsonl is None:
        return None
    return stack.enter_context(to_stream(sys.stdout, header) if jsonl == "-" else to_file(Path(jsonl), header))


def _line(step: Step) -> str:
    labels = " · ".join(f"{score.label} {score.probability:.1%}" for score in step.top)
    return f"{step.time_s:7.2f} s  {labels}" + (f"  [{UNTRAINED}]" if step.untrained else "")


def _summary(result: Run, timeline: Timeline) -> None:
    """Labels of the whole video by their highest and mean probability, and the time that a step took."""
    title = f"{len(timeline.times_s)} steps, {timeline.median_latency_ms:.2f} ms per step (median)"
    title += f" · {UNTRAINED}" if result.header.untrained else ""
    console.stdout().print(Text(title, style="bold"))
    listing = console.table("label", "highest", "mean", right=("highest", "mean"))
    for score in timeline.leaders(5):
        console.add_row(listing, score.label, f"{score.probability:.1%}", f"{timeline.mean(score.class_index):.1%}")
    console.stdout().print(listing)
