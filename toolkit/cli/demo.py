"""`mvtool demo`."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from mvtool.cli import console, progress
from mvtool.cli.build_view import artifacts_table, print_verification, title
from mvtool.cli.options import PRECISIONS, RUNTIMES, listed_option
from mvtool.errors import VerificationError

MODEL = "movinet_nano_motion"
CLIP = "motion:split=test,frames=24,clips=9"
"""Its last clip is what the demo labels, where no video is given: an object that moves right, then down."""
CLIP_RATE, CLIP_SCALE = 25, 4


@click.command("demo")
@click.option("--model", default=MODEL, show_default=True, help="A name of `mvtool zoo`.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("mvtool-demo"), show_default=True)
@listed_option("--target", "targets", known=RUNTIMES, default=",".join(RUNTIMES), show_default=True)
@listed_option("--precision", "precisions", known=PRECISIONS, default="fp32,int8", show_default=True)
@click.option("--video", help="Instead of the demo's own.")
@click.option("--skip-verify", is_flag=True, help="Convert and run only.")
@click.pass_context
def command(
    context: click.Context,
    model: str,
    out: Path,
    targets: tuple[str, ...],
    precisions: tuple[str, ...],
    video: str | None,
    skip_verify: bool,
) -> None:
    """Convert, verify and run a small model on a video.

    The model was trained to say what an object does in generated clips; it labels one that it has not seen, where it moves right, then
    down. Another model without weights labels the bundled clip, with labels that mean nothing. Leaves a build folder with one plot per
    artifact.
    """
    from mvtool.converters.pipeline import convert
    from mvtool.verification.verify import verify

    console.show_warnings(verbose=False)
    to = console.stdout()
    with progress.view() as listener:
        build = convert(model, targets=targets, precisions=precisions, out=out, listener=listener)
    to.print(title(build))
    to.print(artifacts_table(build))
    passed = True
    if not skip_verify:
        with progress.replay_bar() as replayed:
            verification = verify(out, progress=replayed)
        print_verification(verification, to)
        passed = verification.passed
    source = video or _video(model, out)
    for entry in build.manifest.artifacts:
        picture = out / f"{Path(entry.file).stem}_{entry.runtime}.png"
        _run(out, source, str(entry.runtime), str(entry.precision), picture)
        to.print(f"Picture: {picture}\n", markup=False)
    if not passed:
        context.exit(VerificationError.exit_code)


def _video(model: str, folder: Path) -> str:
    """A clip of the kind that the model knows, or the bundled one."""
    from mvtool import demo_clip, video_writing
    from mvtool.datasets.spec import parse

    if model != MODEL:
        return str(demo_clip.path())
    videos = parse(CLIP)
    target = folder / "clip.mp4"
    enlarged = (
        frame.repeat(CLIP_SCALE, 0).repeat(CLIP_SCALE, 1)
        for frame in map(np.asarray, videos.frames_of(len(videos) - 1))
    )
    video_writing.write(target, enlarged, rate=CLIP_RATE, quality=18)
    return str(target)


def _run(build: Path, source: str, runtime: str, precision: str, picture: Path) -> None:
    from mvtool import plotting, running, runtimes
    from mvtool.cli.run import show

    session = runtimes.open_artifact(build, runtime, precision)
    result = running.run(session, source)
    timeline = plotting.Timeline()
    show(result, timeline, every_s=(result.header.expected_steps or 1) / (result.header.frame_rate or CLIP_RATE) / 5)
    plotting.plot(result.header, timeline, picture)
