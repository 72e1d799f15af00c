"""`mvtool train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mvtool.cli import console
from mvtool.errors import UsageError


@click.command("train")
@click.argument("model")
@click.option("--dataset", required=True, metavar="SPEC", help="Clips to train on: a folder, list.csv or motion:...")
@click.option("--validation", required=True, metavar="SPEC", help="Clips to look at now and then; never trained on.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder; an interrupted run there goes on.")
@click.option("--resolution", required=True, type=click.IntRange(min=8), help="Height and width in pixels.")
@click.option("--steps", required=True, type=click.IntRange(min=1), help="Optimizer steps.")
@click.option("--frames", type=click.IntRange(min=1), help="First frames of each clip; all if not given.")
@click.option("--batch", default=32, show_default=True, type=click.IntRange(min=1), help="Clips per step.")
@click.option("--subclips", default=2, show_default=True, type=click.IntRange(min=1), help="Parts of a clip.")
@click.option(
    "--whole-clips", default=0, show_default=True, type=click.IntRange(min=0), help="First steps without parts."
)
@click.option(
    "--in-order", default=0, show_default=True, type=click.IntRange(min=0), help="First steps without a shuffle."
)
@click.option("--learning-rate", default=3e-3, show_default=True, type=float)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--kwargs", default="{}", metavar="JSON", help='Of the model, for example {"rezero": 1.0}.')
@click.option("--half", is_flag=True, help="Write the weights in half precision.")
@click.option("--every", default=250, show_default=True, type=click.IntRange(min=1), help="Steps between validations.")
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(min=0), help="Processes that prepare clips."
)
def command(
    model: str,
    dataset: str,
    validation: str,
    out: Path,
    resolution: int,
    steps: int,
    frames: int | None,
    batch: int,
    subclips: int,
    whole_clips: int,
    in_order: int,
    learning_rate: float,
    seed: int,
    kwargs: str,
    half: bool,
    every: int,
    workers: int,
) -> None:
    """Train a streaming model of the zoo on labelled videos.

    A clip goes through the stream in parts; the state is carried from part to part without a gradient. The averaged weights are written to
    OUT/weights.safetensors, for `mvtool convert --weights`, and the names of the classes to OUT/labels.txt, for --labels.
    """
    from mvtool.cli.progress import replay_bar
    from mvtool.extras import require

    require("torch", "to train a model")
    from mvtool.training.recipe import Recipe
    from mvtool.training.trainer import Look, Trainer

    recipe = Recipe(
        model=model,
        dataset=dataset,
        validation=validation,
        resolution=resolution,
        steps=steps,
        frames=frames,
        batch=batch,
        subclips=subclips,
        whole_clips=whole_clips,
        in_order=in_order,
        learning_rate=learning_rate,
        seed=seed,
        arguments=_arguments(kwargs),
    )
    trainer = Trainer(recipe, out, every=every, workers=workers, half=half)
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


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--kwargs got {text!r}, which is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise UsageError(f"--kwargs got {text!r}; expected a JSON object of argument names and values.")
    return found
