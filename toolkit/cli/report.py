"""`mvtool report`."""

from __future__ import annotations

from pathlib import Path

import click

from mvtool.bench import report as reports
from mvtool.cli import console
from mvtool.cli.options import comparison_options, json_option
from mvtool.errors import UsageError
from mvtool.files import write_atomic

DEFAULT_PAGE = Path("report.html")


@click.command("report")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE|FOLDER]...")
@click.option("-o", "--out", type=click.Path(path_type=Path), help=f"File to write; {DEFAULT_PAGE} if not given.")
@click.option(
    "--base", multiple=True, type=click.Path(path_type=Path), help="Baseline record or folder; may be given again."
)
@comparison_options
@click.option("--markdown", is_flag=True, help="Markdown for a pull-request comment; to the terminal without -o.")
@json_option("Print the derived figures as JSON; no page is made without -o.")
def command(
    files: tuple[Path, ...],
    out: Path | None,
    base: tuple[Path, ...],
    thresholds: dict[str, float],
    allow: tuple[str, ...],
    markdown: bool,
    as_json: bool,
) -> None:
    """Show benchmark records as one page or as markdown.

    Each FILE is a record that `mvtool bench` wrote, each FOLDER holds some. With --base they are compared with their like among the
    baselines, as `mvtool compare` does; without it, artifacts whose launches took turns with each other. The page needs no network:
    it holds its plots, styles and figures.
    """
    _check_target(out, (*files, *base))
    report = reports.load(files, base, thresholds, allow)
    if markdown and out is None and not as_json:
        from mvtool.bench import report_markdown

        click.echo(report_markdown.page(report), nl=False)
    elif out is not None or not as_json:
        _write(report, out or DEFAULT_PAGE, markdown, quiet=as_json)
    if as_json:
        from mvtool.bench.report_document import document

        console.print_json(document(report))


def _check_target(out: Path | None, records: tuple[Path, ...]) -> None:
    """Refuse to write a report over a record.

    Raises:
        UsageError: `out` is one of the records, or has the suffix of one.
    """
    if out is not None and (out.suffix.lower() == ".json" or out.resolve() in {path.resolve() for path in records}):
        raise UsageError(
            f"The report would be written to {out}, which is or could be a record, and records are never overwritten. Name "
            "the page with -o, for example -o report.html; figures as JSON come with --json."
        )


def _write(report: reports.Report, target: Path, markdown: bool, quiet: bool) -> None:
    if markdown:
        from mvtool.bench import report_markdown

        text = report_markdown.page(report)
    else:
        from mvtool.bench import report_html

        text = report_html.page(report)
    data = text.encode()
    write_atomic(target, data)
    if not quiet:
        count = len(report.entries)
        records = "1 record" if count == 1 else f"{count} records"
        console.stdout().print(f"wrote {target} ({records}, {console.size(len(data))})", markup=False)
