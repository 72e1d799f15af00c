"""`mvtool train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mvtool.cli.training import AT_LEAST_ONE, COUNT, train, training_options


@click.command("train")
@click.argument("model")
@click.option("--steps", required=True, type=AT_LEAST_ONE, help="Optimizer steps.")
@click.option("--whole-clips", default=0, show_default=True, type=COUNT, help="First steps without parts.")
@click.option("--in-order", default=0, show_default=True, type=COUNT, help="First steps without a shuffle.")
@training_options(batch=32, learning_rate=3e-3, every=250)
def command(out: Path, half: bool, every: int, workers: int, **recipe: Any) -> None:
    """Train a streaming model of the zoo on labelled videos.

    A clip goes through the stream in parts; the state is carried from part to part without a gradient. The averaged weights are written to
    OUT/weights.safetensors, for `mvtool convert --weights`, and the names of the classes to OUT/labels.txt, for --labels.
    """
    from mvtool.extras import require

    require("torch", "to train a model")
    from mvtool.training.recipe import Recipe
    from mvtool.training.trainer import Trainer

    train(Trainer(Recipe(**recipe), out, every=every, workers=workers, half=half))
