"""`mvtool train`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from mvtool.cli.training import AT_LEAST_ONE, COUNT, train, training_options
from mvtool.errors import UsageError


@click.command("train")
@click.argument("model")
@click.option("--steps", required=True, type=AT_LEAST_ONE, help="Optimizer steps.")
@click.option("--whole-clips", default=0, show_default=True, type=COUNT, help="First steps without parts.")
@click.option("--in-order", default=0, show_default=True, type=COUNT, help="First steps without a shuffle.")
@click.option(
    "--weights", type=click.Path(path_type=Path), help="Trained weights to go on from, with frozen batch norms."
)
@click.option(
    "--rewrite",
    metavar="2plus1d:RANK",
    help="Factor 3D kernels of --weights first, and learn back what that took away.",
)
@training_options(batch=32, learning_rate=3e-3, every=250)
def command(
    weights: Path | None, rewrite: str | None, out: Path, half: bool, every: int, workers: int, **recipe: Any
) -> None:
    """Train a streaming model of the zoo on labelled videos.

    A clip goes through the stream in parts; the state is carried from part to part without a gradient. The averaged weights are written to
    OUT/weights.safetensors, for `mvtool convert --weights`, and the names of the classes to OUT/labels.txt, for --labels.

    With --weights training goes on from them; batch norms keep their statistics then, and the last weights are written.
    """
    from mvtool.extras import require

    require("torch", "to train a model")
    from mvtool.files import sha256_of
    from mvtool.training.fine_tuning import trained_weights
    from mvtool.training.float_tuning import FloatTuning, FloatTuningLearner
    from mvtool.training.recipe import Recipe
    from mvtool.training.trainer import Trainer

    if weights is None and rewrite is not None:
        raise UsageError("--rewrite factors trained kernels; give them with --weights.")
    if weights is None:
        train(Trainer(Recipe(**recipe), out, every=every, workers=workers, half=half))
        return
    found = trained_weights(recipe["model"], weights)
    tuning = FloatTuning(weights_sha256=sha256_of(found), rewrite=rewrite or "", **recipe)
    learner = partial(FloatTuningLearner, weights=found)
    train(Trainer(tuning, out, every=every, workers=workers, half=half, learner=learner))
