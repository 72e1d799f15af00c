"""What `mvtool train` and `mvtool qat` share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvtool.cli import console
from mvtool.cli.options import Decorated
from mvtool.errors import UsageError

if TYPE_CHECKING:
    from mvtool.training.trainer import Look, Trainer

AT_LEAST_ONE, COUNT = click.IntRange(min=1), click.IntRange(min=0)
RUN = ("out", "half", "every", "workers")
"""Options that decide nothing that is computed."""


def training_options(*, batch: int, learning_rate: float, every: int) -> Callable[[Decorated], Decorated]:
    """Options of a training run; the arguments are their defaults."""
    options = (
        click.option(
            "--dataset", required=True, metavar="SPEC", help="Clips to train on: a folder, list.csv or motion:..."
        ),
        click.option(
            "--validation", required=True, metavar="SPEC", help="Clips to look at now and then; never trained on."
        ),
        click.option(
            "--out", required=True, type=click.Path(path_type=Path), help="Folder; an interrupted run there goes on."
        ),
        click.option("--resolution", required=True, type=click.IntRange(min=8), help="Height and width in pixels."),
        click.option("--frames", type=AT_LEAST_ONE, help="First frames of each clip; all if not given."),
        click.option("--batch", default=batch, show_default=True, type=AT_LEAST_ONE, help="Clips per step."),
        click.option("--subclips", default=2, show_default=True, type=AT_LEAST_ONE, help="Parts of a clip."),
        click.option("--learning-rate", default=learning_rate, show_default=True, type=float),
        click.option("--seed", default=0, show_default=True, type=COUNT),
        click.option(
            "--kwargs",
            "arguments",
            default="{}",
            metavar="JSON",
            callback=_arguments,
            help='Of the model, for example {"rezero": 1.0}.',
        ),
        click.option("--half", is_flag=True, help="Write the weights in half precision."),
        click.option("--every", default=every, show_default=True, type=AT_LEAST_ONE, help="Steps between validations."),
        click.option("--workers", default=1, show_default=True, type=COUNT, help="Processes that prepare clips."),
    )

    def decorate(function: Decorated) -> Decorated:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def train(trainer: Trainer) -> None:
    """Train to the end with a progress bar and one line per validation."""
    from mvtool.cli.progress import replay_bar

    to = console.stdout()
    with replay_bar() as bar:

        def show(look: Look) -> None:
            bar(f"loss {look.loss:.3f}", look.step, look.steps)
            if look.validation_accuracy is not None:
                to.print(
                    f"step {look.step}: loss {look.loss:.3f}, training {look.training_accuracy:.1%}, "
                    f"validation {look.validation_accuracy:.1%}"
                )

        weights = trainer.run(show)
    to.print(f"Weights: {weights}")


def _arguments(context: click.Context, parameter: click.Parameter, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--kwargs got {text!r}, which is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise UsageError(f"--kwargs got {text!r}; expected a JSON object of argument names and values.")
    return found
