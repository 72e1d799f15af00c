"""`mvtool demo`."""

from __future__ import annotations

from pathlib import Path

import click

from mvtool.cli import console, progress
from mvtool.cli.build_view import artifacts_table, print_verification, title
from mvtool.cli.options import PRECISIONS, RUNTIMES, listed_option
from mvtool.errors import VerificationError

MODEL = "movinet_a0_stream"


@click.command("demo")
@click.option("--model", default=MODEL, show_default=True, help="A name of `mvtool zoo`.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("mvtool-demo"), show_default=True)
@listed_option("--target", "targets", known=RUNTIMES, default=",".join(RUNTIMES), show_default=True)
@listed_option("--precision", "precisions", known=PRECISIONS, default="fp32,int8", show_default=True)
@click.option("--video", help="Instead of the bundled clip.")
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
    """Convert, verify and run a small model on the bundled video.

    The weights are a deterministic fill, so the labels mean nothing; what it shows is that every runtime computes the
    same. Leaves a build folder with one plot per artifact.
    """
    from mvtool import demo_clip
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
    source = video or str(demo_clip.path())
    for entry in build.manifest.artifacts:
        picture = out / f"{Path(entry.file).stem}_{entry.runtime}.png"
        _run(out, source, str(entry.runtime), str(entry.precision), picture)
        to.print(f"Picture: {picture}\n", markup=False)
    if not passed:
        context.exit(VerificationError.exit_code)


def _run(build: Path, source: str, runtime: str, precision: str, picture: Path) -> None:
    from mvtool import plotting, running, runtimes
    from mvtool.cli.run import show

    session = runtimes.open_artifact(build, runtime, precision)
    result = running.run(session, source)
    timeline = plotting.Timeline()
    show(result, timeline, every_s=2.0)
    plotting.plot(result.header, timeline, picture)
