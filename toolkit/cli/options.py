"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

RUNTIMES = ("tflite", "coreml", "executorch")
PRECISIONS = ("fp32", "fp16", "int8")


class Listed(click.ParamType):
    """A list of known words, separated by commas: `tflite,coreml`.

    Args:
        known: Words that may stand in the list.
    """

    name = "list"

    def __init__(self, known: Iterable[str]) -> None:  # noqa: D107 - documented on the class
        self.known = tuple(known)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Shown in the help."""
        return ",".join(self.known)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split and check."""
        words = (
            value if isinstance(value, tuple) else tuple(word.strip() for word in str(value).split(",") if word.strip())
        )
        unknown = [word for word in words if word not in self.known]
        if unknown or not words:
            named = ", ".join(repr(word) for word in unknown) or "nothing"
            self.fail(f"got {named}; expected a list of {', '.join(self.known)}, separated by commas", param, ctx)
        return tuple(dict.fromkeys(words))


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
