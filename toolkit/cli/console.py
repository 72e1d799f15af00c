"""Printing: results to stdout, progress and warnings to stderr, JSON without decoration."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from typing import Any, TextIO

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 200
"""Columns where output is no terminal, so that tables in log files are not cut at 80."""
QUIET_TENSORFLOW = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
"""coremltools imports TensorFlow if it is there. It greets with a notice about oneDNN unless that is off; nothing in
mvtool computes with TensorFlow."""


def stdout() -> Console:
    """Console for results."""
    return _console(sys.stdout)


def stderr() -> Console:
    """Console for progress and warnings."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def print_json(document: Any) -> None:
    """Write one JSON document to stdout."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A plain table; the columns named in `right` are aligned to the right."""
    made = Table(header_style="bold", box=None, pad_edge=False)
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return made


def add_row(target: Table, *cells: object) -> None:
    """Add a row of plain text: a label such as `[x]` is no markup."""
    target.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in cells))


def size(size_bytes: int) -> str:
    """A size for people, in KiB (2**10 bytes) or MiB (2**20 bytes).

    Example:
        >>> size(2048), size(3 * 2**20)
        ('2.0 KiB', '3.00 MiB')
    """
    return f"{size_bytes / 2**20:.2f} MiB" if size_bytes >= 2**20 else f"{size_bytes / 2**10:.1f} KiB"


def show_warnings(verbose: bool) -> None:
    """Send mvtool's own log records to stderr, one line each; the notices of frameworks only if `verbose`.

    Frameworks tell every start of theirs which versions they were tested with and which processor features they
    use; that is for their developers, and would bury what mvtool has to say.
    """
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    if verbose:
        return
    for handler in logging.getLogger().handlers:
        handler.addFilter(logging.Filter("mvtool"))
    # The levels of `torch` itself are reset when it is imported; this logger's is not.
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    for name, value in QUIET_TENSORFLOW.items():
        os.environ.setdefault(name, value)
