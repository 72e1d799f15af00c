"""Printing: results to stdout, progress and warnings to stderr, JSON without decoration."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from typing import Any, TextIO

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 160
"""Columns where output is no terminal, so that tables in log files are not cut at 80."""


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


def table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """A plain table; the columns named in `right` are aligned to the right."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return made


def add_row(target: Table, *cells: object) -> None:
    """Add a row of plain text: a label such as `[x]` is no markup."""
    target.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in cells))


def mebibytes(size_bytes: int) -> str:
    """A size for people, in MiB (2**20 bytes)."""
    return f"{size_bytes / 2**20:.2f} MiB"


def show_warnings(verbose: bool) -> None:
    """Send warnings and log records to stderr, one line each; third-party notices to their developers are dropped."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr)
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(f"Warning: {message}", err=True)
