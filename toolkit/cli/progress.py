"""What a conversion is doing: a live table on a terminal, one line per event elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

import click
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from mvtool.cli import console
from mvtool.converters.progress import StageEvent

SHARED = "all targets"
MARKS = {"start": "…", "done": "✓", "failed": "✗"}
STYLES = {"start": "cyan", "done": "green", "failed": "bold red"}


class StageView(AbstractContextManager["StageView"], Protocol):
    """A context manager that is called with each event, from any thread."""

    def __call__(self, event: StageEvent) -> None:
        """Show `event`."""
        ...


def view(quiet: bool = False) -> StageView:
    """The view that fits stderr; a quiet one tells failures only."""
    to = console.stderr()
    if quiet:
        return PlainView(failures_only=True)
    return LiveView(to) if to.is_terminal else PlainView()


def row_name(event: StageEvent) -> str:
    """`tflite int8`, `tflite`, `int8` or `all targets`."""
    return " ".join(part for part in (event.target, event.precision) if part) or SHARED


@contextmanager
def replay_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for work of known length; silent where stderr is no terminal.

    Yields:
        A function of what goes on, how many parts of it are done, and how many there are.
    """
    to = console.stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=to, transient=True, disable=not to.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


class PlainView:
    """One line per event on stderr, with the seconds since the start."""

    def __init__(self, *, failures_only: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock."""
        self._failures_only = failures_only
        self._clock = clock
        self._started = clock()

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing to restore."""

    def __call__(self, event: StageEvent) -> None:
        """Print `event`; starts are worth a line only for whoever waits for a stage that takes long."""
        if self._failures_only and event.status != "failed":
            return
        took = "" if event.seconds is None else f" {event.seconds:.1f} s"
        message = f": {event.message}" if event.message else ""
        elapsed = self._clock() - self._started
        click.echo(f"[{elapsed:6.1f} s] {row_name(event)} · {event.stage} {event.status}{took}{message}", err=True)


@dataclass
class _Row:
    """Stages of one artifact: name to (status, seconds, since when)."""

    stages: dict[str, tuple[str, float | None, float]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        states = {status for status, _, _ in self.stages.values()}
        return next((status for status in ("failed", "start") if status in states), "done")


class LiveView:
    """A table with one row per artifact that is redrawn in place."""

    def __init__(self, to: Console) -> None:
        """Draw on `to`, which must be a terminal."""
        self._rows: dict[str, _Row] = {}
        self._lock = threading.Lock()
        self._live = Live(get_renderable=self._draw, console=to, refresh_per_second=8)

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave the last state of the table on the screen."""
        self._live.stop()

    def __call__(self, event: StageEvent) -> None:
        """Take `event` into the table."""
        with self._lock:
            row = self._rows.setdefault(row_name(event), _Row())
            row.stages[event.stage] = (event.status, event.seconds, time.monotonic())
            if event.message:
                row.messages.append(f"{event.stage}: {event.message}")

    def _draw(self) -> RenderableType:
        listing = console.table("", "artifact", "stages", "seconds", right=("seconds",))
        with self._lock:
            for name, row in self._rows.items():
                total = sum(seconds or 0.0 for _, seconds, _ in row.stages.values())
                mark = Text(MARKS[row.status], style=STYLES[row.status])
                console.add_row(listing, mark, name, _stages(row), f"{total:.1f}")
                for message in row.messages[-1:]:
                    console.add_row(listing, "", "", Text(message, style="dim"), "")
        return listing


def _stages(row: _Row) -> Text:
    """The stages that took time, and what is going on."""
    text = Text()
    for stage, (status, seconds, since) in row.stages.items():
        shown = time.monotonic() - since if status == "start" else seconds or 0.0
        if status == "done" and shown < 0.05:
            continue
        text.append(" · " if text else "", style="dim")
        text.append(f"{stage} {shown:.1f}", style=STYLES[status] if status != "done" else "")
    return text
