"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

RUNTIMES = ("tflite", "coreml", "executorch")
PRECISIONS = ("fp32", "fp16", "int8")


def listed_option(*names: str, known: Sequence[str], **settings: Any) -> Callable[[Decorated], Decorated]:
    """An option that takes a list of known words, separated by commas: `--target tflite,coreml`.

    Args:
        names: Names of the option.
        known: Words that may stand in the list.
        settings: Passed to `click.option`.
    """

    def split(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
        if value is None:
            return None
        words = [word.strip() for word in value.split(",") if word.strip()]
        unknown = ", ".join(repr(word) for word in words if word not in known)
        if unknown or not words:
            got = unknown or "nothing"
            raise click.BadParameter(f"got {got}; expected a list of {', '.join(known)}, separated by commas")
        return tuple(dict.fromkeys(words))

    return click.option(*names, callback=split, metavar=",".join(known), **settings)


def json_option(help_text: str = "Print JSON instead of tables.") -> Callable[[Decorated], Decorated]:
    """`--json`."""
    return click.option("as_json", "--json", is_flag=True, help=help_text)


def artifact_options(function: Decorated) -> Decorated:
    """`--runtime` and `--precision`, which choose an artifact of a build."""
    for option in (
        click.option("--precision", type=click.Choice(PRECISIONS), help="Artifact of a build; fp32 if it has one."),
        click.option("--runtime", type=click.Choice(RUNTIMES), help="Artifact of a build; tflite if it has one."),
    ):
        function = option(function)
    return function
