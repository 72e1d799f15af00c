"""`mvtool qat`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from mvtool.cli import console
from mvtool.cli.training import AT_LEAST_ONE, train, training_options


@click.command("qat")
@click.argument("model")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Trained weights; those that come with the model if not given.",
)
@click.option("--steps", default=300, show_default=True, type=AT_LEAST_ONE, help="Optimizer steps.")
@training_options(batch=16, learning_rate=1e-4, every=50)
def command(weights: Path | None, out: Path, half: bool, every: int, workers: int, **recipe: Any) -> None:
    """Tune a trained streaming model for int8 (quantization-aware).

    Training goes on for some hundred steps with the rounding of int8 in the forward pass. The weights are written to OUT/weights.safetensors
    in the form they came in, for `mvtool convert --weights --int8`; validation is with rounding. Worth it where `mvtool evaluate`
    shows that int8 costs too much.
    """
    from mvtool.extras import require

    console.show_warnings(verbose=False)
    require("torch", "to train a model")
    from mvtool.files import sha256_of
    from mvtool.training.fine_tuning import FakeQuantizedLearner, FineTuning, trained_weights
    from mvtool.training.trainer import Trainer

    found = trained_weights(recipe["model"], weights)
    tuning = FineTuning(weights_sha256=sha256_of(found), **recipe)
    learner = partial(FakeQuantizedLearner, weights=found)
    train(Trainer(tuning, out, every=every, workers=workers, half=half, learner=learner))
