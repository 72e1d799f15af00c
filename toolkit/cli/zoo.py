"""`mvtool zoo`."""

from __future__ import annotations

import fnmatch
from typing import Any

import click

from mvtool.cli import console
from mvtool.cli.options import json_option
from mvtool.errors import UsageError
from mvtool.zoo.entry import ModelEntry


@click.command("zoo")
@click.argument("pattern", default="*")
@json_option()
def command(pattern: str, as_json: bool) -> None:
    """List the models that can be converted by name.

    PATTERN chooses names, with wildcards: 'movinet_a?_stream'.
    """
    from mvtool.zoo import registry

    found = [entry for entry in registry.entries() if fnmatch.fnmatchcase(entry.name, pattern)]
    if not found:
        raise UsageError(
            f"No model of the zoo is called {pattern!r}. `mvtool zoo` lists all {len(registry.entries())}."
        )
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
