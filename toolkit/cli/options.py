"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from mvtool.errors import UsageError

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

RUNTIMES = ("tflite", "coreml", "executorch")
PRECISIONS = ("fp32", "fp16", "int8", "int8-dynamic", "int8-weights")


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


def comparison_options(function: Decorated) -> Decorated:
    """`--threshold` as a mapping of metrics to percents, and `--allow` as words, for comparisons of benchmarks."""
    for option in (
        click.option(
            "--allow",
            default="",
            metavar="WORD,...",
            callback=_words,
            help="What may differ: device, serial, build, library, runtime, ...",
        ),
        click.option(
            "--threshold",
            "thresholds",
            multiple=True,
            metavar="METRIC=PERCENT",
            callback=_thresholds,
            help="Bound of a metric; gates it.",
        ),
    ):
        function = option(function)
    return function


def _words(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in value.split(",") if word.strip())


def _thresholds(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for word in words:
        name, _, percent = word.partition("=")
        try:
            found[name.strip()] = float(percent.strip().removesuffix("%"))
        except ValueError as error:
            raise UsageError(
                f"--threshold got {word!r}; expected a metric and a percentage, for example latency_p50=3."
            ) from error
    return found
