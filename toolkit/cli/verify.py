"""`mvtool verify`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mvtool.cli import console
from mvtool.cli.build_view import print_verification
from mvtool.cli.options import json_option
from mvtool.cli.progress import replay_bar
from mvtool.errors import VerificationError


@click.command("verify")
@click.argument("path", type=click.Path(path_type=Path))
@json_option()
@click.pass_context
def command(context: click.Context, path: Path, as_json: bool) -> None:
    """Execute every artifact of a build and compare it with the model.

    PATH is the folder that `mvtool convert` wrote. Ends with 0 only if every artifact was executed and holds.
    """
    from mvtool.verification.verify import verify

    console.show_warnings(verbose=False)
    with replay_bar() as progress:
        verification = verify(path, progress=progress)
    if as_json:
        console.print_json(json.loads(verification.model_dump_json()))
    else:
        print_verification(verification, console.stdout())
    if not verification.passed:
        context.exit(VerificationError.exit_code)
