"""`mvtool compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.text import Text

from mvtool.cli import console
from mvtool.cli.options import comparison_options, json_option
from mvtool.errors import UsageError

if TYPE_CHECKING:
    from mvtool.bench.pairing import Outcome

WORSE: Final = 16
"""Exit status where a gated metric got slower or larger."""
INCONCLUSIVE: Final = 17
"""Exit status with `--fail-on inconclusive`, where nothing got worse for sure but a gated metric cannot be told."""
_STYLES: Final = {"worse": "red", "better": "green", "same": "", "inconclusive": "yellow"}


@click.command("compare")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[BASE NEW]")
@click.option("--base", multiple=True, type=click.Path(path_type=Path), help="Record or folder; may be given again.")
@click.option("--new", multiple=True, type=click.Path(path_type=Path), help="Record or folder; may be given again.")
@comparison_options
@click.option(
    "--fail-on",
    type=click.Choice(("worse", "inconclusive")),
    default="worse",
    show_default=True,
    help="With `inconclusive`, exit with 17 where a gated metric cannot be told.",
)
@click.option("--markdown", is_flag=True, help="Print markdown for a pull-request comment.")
@json_option()
@click.pass_context
def command(
    context: click.Context,
    files: tuple[Path, ...],
    base: tuple[Path, ...],
    new: tuple[Path, ...],
    thresholds: dict[str, float],
    allow: tuple[str, ...],
    fail_on: str,
    markdown: bool,
    as_json: bool,
) -> None:
    """Say whether a benchmark got faster or slower.

    BASE and NEW are records that `mvtool bench` wrote, or folders of them, in which each model, runtime, precision and device is
    compared with its like.

    Exit status: 0 if nothing that is gated got worse, 16 if something did. Gated are the median and the 90th percentile of latency and
    peak memory, and what --threshold names.
    """
    from mvtool.bench import pairing

    if markdown and as_json:
        raise UsageError("--markdown and --json contradict each other; give one of them.")
    before, after = _sides(files, base, new)
    found = pairing.compare_all(pairing.load(before), pairing.load(after), thresholds, allow)
    _print(found, markdown, as_json)
    if found.worse:
        context.exit(WORSE)
    if found.inconclusive and fail_on == "inconclusive":
        context.exit(INCONCLUSIVE)


def _sides(
    files: tuple[Path, ...], base: tuple[Path, ...], new: tuple[Path, ...]
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    if len(files) == 2 and not base and not new:
        return files[:1], files[1:]
    if not files and base and new:
        return base, new
    raise UsageError(
        f"Got {len(files)} path(s), --base {len(base)} times and --new {len(new)} times. Expected two paths, "
        "`mvtool compare BASE NEW`, or --base and --new, each at least once."
    )


def _print(found: Outcome, markdown: bool, as_json: bool) -> None:
    from mvtool.bench import comparison_text

    if as_json:
        console.print_json(comparison_text.document(found))
    elif markdown:
        click.echo(comparison_text.markdown(found), nl=False)
    else:
        _print_tables(found)


def _print_tables(found: Outcome) -> None:
    from mvtool.bench import comparison_text as text

    to = console.stdout()
    for comparison in found.comparisons:
        to.print(Text(text.title(comparison), style="bold"))
        to.print(Text(text.sides(comparison), style="dim"))
        table = console.table(*text.HEADS, right=text.NUMERIC)
        for one in comparison.metrics:
            *cells, verdict = text.cells(one)
            console.add_row(table, *cells, Text(verdict, style=_STYLES[text.standing(one.verdict)]))
        to.print(table)
        for note in (*text.reasons(comparison), *comparison.notes):
            to.print(Text(note, style="yellow"))
        to.print()
    for note in found.notes:
        to.print(Text(note, style="yellow"))
