"""A click group that imports a command's module when the command is used."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

import mvtool


@dataclass(frozen=True)
class LazyCommand:
    """Where a command lives.

    Attributes:
        module: Module that defines `command`.
        summary: Line in `mvtool --help`; a test holds it to the first line of the command's docstring.
    """

    module: str
    summary: str


COMMANDS: Mapping[str, LazyCommand] = {
    "convert": LazyCommand("mvtool.cli.convert", "Convert a model for phones: TFLite, Core ML, ExecuTorch."),
    "verify": LazyCommand("mvtool.cli.verify", "Execute every artifact of a build and compare it with the model."),
    "run": LazyCommand("mvtool.cli.run", "Label a video with a converted model."),
    "bench": LazyCommand("mvtool.cli.bench", "Measure latency and memory on this machine or on phones."),
    "profile": LazyCommand("mvtool.cli.profile", "Show where the time of an artifact goes, operator by operator."),
    "compare": LazyCommand("mvtool.cli.compare", "Say whether a benchmark got faster or slower."),
    "report": LazyCommand("mvtool.cli.report", "Show benchmark records as one page or as markdown."),
    "evaluate": LazyCommand("mvtool.cli.evaluate", "Measure the accuracy of artifacts on labelled videos."),
    "quantize": LazyCommand("mvtool.cli.quantize", "Show what int8 was calibrated on and where it costs most."),
    "train": LazyCommand("mvtool.cli.train", "Train a streaming model of the zoo on labelled videos."),
    "qat": LazyCommand("mvtool.cli.qat", "Tune a trained streaming model for int8 (quantization-aware)."),
    "inspect": LazyCommand("mvtool.cli.inspect", "Show the ports and states of an artifact or a build."),
    "zoo": LazyCommand("mvtool.cli.zoo", "List the models that can be converted by name."),
    "demo": LazyCommand("mvtool.cli.demo", "Convert, verify and run a small model on a video."),
}


class LazyGroup(click.Group):
    """A group whose commands are named in a table and imported one at a time."""

    def __init__(self, *args: Any, commands_table: Mapping[str, LazyCommand], **kwargs: Any) -> None:
        """Keep the table; nothing is imported."""
        super().__init__(*args, **kwargs)
        self._table = commands_table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table: that of a first use."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of `cmd_name`."""
        if cmd_name not in self._table:
            return None
        command = importlib.import_module(self._table[cmd_name].module).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in self._table.items()])


def version_text() -> str:
    """Versions of mvtool, Python and the system, for reports."""
    return f"mvtool {mvtool.__version__} (Python {platform.python_version()}, {platform.system()} {platform.machine()})"
