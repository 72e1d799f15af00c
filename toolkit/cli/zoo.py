"""`mvtool zoo`."""

from __future__ import annotations

import fnmatch
import logging
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvtool.cli import console
from mvtool.cli.options import json_option
from mvtool.errors import ConversionError, MvtoolError, UsageError
from mvtool.zoo.entry import ModelEntry

if TYPE_CHECKING:
    from mvtool.survey import Survey


@click.command("zoo")
@click.argument("pattern", default="*")
@json_option()
@click.option("--markdown", is_flag=True, help="Convert and verify every model that has no record; then write a page.")
@click.option(
    "--records", type=click.Path(path_type=Path), help="With --markdown: folder of the records. Default: docs/zoo."
)
@click.option("--out", type=click.Path(path_type=Path), help="With --markdown: the page. Default: RECORDS.md.")
@click.option("--builds", type=click.Path(path_type=Path), help="With --markdown: keep the builds in this folder.")
@click.option("--recorded", is_flag=True, help="With --markdown: write the page from the records alone.")
def command(
    pattern: str,
    as_json: bool,
    markdown: bool,
    records: Path | None,
    out: Path | None,
    builds: Path | None,
    recorded: bool,
) -> None:
    """List the models that can be converted by name.

    PATTERN chooses names, with wildcards: 'movinet_a?_stream'.

    With --markdown every model of PATTERN is converted to all targets in fp32 and int8 and verified, which takes minutes for each;
    a model that has a record already is left out, so an interrupted run goes on where it was. With --json, the records are printed.
    """
    from mvtool.zoo import registry

    found = [entry for entry in registry.entries() if fnmatch.fnmatchcase(entry.name, pattern)]
    if not found:
        raise UsageError(
            f"No model of the zoo is called {pattern!r}. `mvtool zoo` lists all {len(registry.entries())}."
        )
    if not markdown and (records or out or builds or recorded):
        raise UsageError("--records, --out, --builds and --recorded belong to --markdown; add it.")
    if markdown:
        _survey([] if recorded else found, records or Path("docs/zoo"), out, builds, as_json)
        return
    if as_json:
        console.print_json([_record(entry) for entry in found])
        return
    listing = console.table(
        "model", "parameters", "pixels", "frames/s", "input", "description", right=("parameters", "pixels", "frames/s")
    )
    for entry in found:
        pixels = f"{entry.resolution}x{entry.resolution}"
        console.add_row(
            listing,
            entry.name,
            f"{entry.parameters:,}",
            pixels,
            f"{entry.frame_rate:g}",
            _input(entry),
            entry.description,
        )
    console.stdout().print(listing)


def _survey(chosen: Sequence[ModelEntry], folder: Path, out: Path | None, builds: Path | None, as_json: bool) -> None:
    """Survey the chosen models, and write the page of all of them."""
    from mvtool.files import write_atomic
    from mvtool.survey import Survey, macs_of
    from mvtool.survey_markdown import page
    from mvtool.zoo import registry

    with ExitStack() as stack:
        scratch = builds or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mvtool-zoo-")))
        survey = Survey(folder, scratch, keep=builds is not None)
        broken = [e.name for n, e in enumerate(chosen, start=1) if not _surveyed(survey, n, e, len(chosen))]
    entries = registry.entries()
    loaded = {entry.name: survey.load(entry) for entry in entries}
    known = {name: record for name, record in loaded.items() if record is not None}
    macs = {entry.name: known[entry.name].macs if entry.name in known else macs_of(entry) for entry in entries}
    text = page(entries, known, macs, folder.name)
    target = out or folder.with_suffix(".md")
    write_atomic(target, text.encode())
    if as_json:
        console.print_json([record.model_dump(mode="json") for record in known.values()])
    else:
        console.stdout().print(f"{target}: {len(known)} of {len(entries)} models have a record.")
    if broken:
        raise ConversionError(
            f"{', '.join(broken)} ended with an unexpected error and got no record; the others did. Run the same command "
            "again, and report the model if it ends so again."
        )


def _surveyed(survey: Survey, number: int, entry: ModelEntry, count: int) -> bool:
    """Survey one model; False after an error that nobody foresaw, so that the others still get their turn."""
    from mvtool.cli import progress

    console.stderr().print(f"{entry.name} ({number} of {count})", markup=False)
    try:
        with progress.view() as listener, progress.replay_bar() as bar:
            survey.run([entry], listener, bar)
    except MvtoolError:
        raise
    except Exception:
        logging.getLogger(__name__).exception("%s", entry.name)
        return False
    return True


def _input(entry: ModelEntry) -> str:
    if not entry.stream:
        return f"clip of {entry.frames}"
    return "stream" if entry.frames_per_step == 1 else f"stream, {entry.frames_per_step} frames a step"


def _record(entry: ModelEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "family": entry.family,
        "description": entry.description,
        "stream": entry.stream,
        "parameters": entry.parameters,
        "resolution": entry.resolution,
        "resize_short_side": entry.resize_short_side,
        "frame_rate": entry.frame_rate,
        "frames": entry.frames,
        "frames_per_step": entry.frames_per_step,
        "num_classes": entry.num_classes,
        "labels": entry.labels,
    }
