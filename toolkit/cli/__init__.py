"""The command `mvtool`: parse, call one function, print.

Each command is one module here, imported when it is used, so that `mvtool --help` needs neither NumPy nor
any framework. Errors of mvtool are printed without a traceback and end with the exit code of
their class (`mvtool.errors`), and so are files that the system refuses; Ctrl-C ends with 130, SIGTERM with 143
and SIGHUP with 129, after cleaning up; anything else is a defect of mvtool and keeps its traceback.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from mvtool.cli.group import COMMANDS, LazyGroup, version_text
from mvtool.cli.signals import Ended, ending
from mvtool.errors import MvtoolError, StorageError

INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""
DEFECT = 1


@click.group(cls=LazyGroup, commands_table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(message=version_text(), version="")
def cli() -> None:
    """Convert, quantize, verify and run PyTorch video models for phones."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status.

    Args:
        arguments: Words after `mvtool`; those of the process if not given.
    """
    sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    try:
        with ending():
            result = cli.main(arguments, prog_name="mvtool", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        # click makes an Abort of every KeyboardInterrupt.
        signalled = error.__cause__ if isinstance(error, click.Abort) else error
        click.echo("Interrupted.", err=True)
        return signalled.status if isinstance(signalled, Ended) else INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place that can tell the user what to do with it
        return _explain(error)
    return result if isinstance(result, int) else 0


def _explain(error: Exception) -> int:
    """Tell what went wrong; the exit status for it."""
    known = StorageError.of(error) if isinstance(error, OSError) else error
    if isinstance(known, MvtoolError):
        click.echo(f"Error: {known}", err=True)
        return known.exit_code
    traceback.print_exception(error)
    click.echo(
        "\nThis is a defect of mvtool, not of your input. Please report it with the command, the lines above "
        "and what `mvtool --version` prints.",
        err=True,
    )
    return DEFECT
