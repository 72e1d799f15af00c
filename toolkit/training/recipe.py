"""Everything that decides what a training run computes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from mvtool.errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; with the model and the data it decides every weight.

    Attributes:
        model: Name in the zoo.
        dataset: Specification of the clips that are trained on, see `mvtool.datasets.spec`.
        validation: Specification of the clips that are looked at now and then; never trained on.
        resolution: Height and width of the model's picture, pixels.
        steps: Optimizer steps.
        frames: Frames of each clip that are trained on, its first; None for all, where all clips are equally long.
        batch: Clips per step.
        subclips: Equal parts of a clip that go through the stream one after the other.
        whole_clips: So many steps at the start take each clip as one part: gradients then reach over all of its frames, from which a
            network without any weights learns what motion is much sooner.
        in_order: So many steps at the start take the clips in the order of the data set, see `mvtool.training.batches.Order`.
        learning_rate: Highest, reached after the warm-up; falls to zero along half a cosine.
        warmup: Steps in which the learning rate rises from zero.
        weight_decay: Of AdamW, for weights of two and more dimensions.
        label_smoothing: Of the cross entropy.
        average: Decay of the moving average of the weights, which is what is kept.
        clip_norm: Largest norm of the gradient.
        seed: Of the first weights, the order of the clips, and dropout.
        arguments: Further keyword arguments of the model.
    """

    model: str
    dataset: str
    validation: str
    resolution: int
    steps: int
    frames: int | None = None
    batch: int = 32
    subclips: int = 2
    whole_clips: int = 0
    in_order: int = 0
    learning_rate: float = 3e-3
    warmup: int = 200
    weight_decay: float = 0.02
    label_smoothing: float = 0.05
    average: float = 0.998
    clip_norm: float = 2.0
    seed: int = 0
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be trained with.

        Raises:
            UsageError: A number out of its range.
        """
        for name, low, high in (
            ("resolution", 8, 4096),
            ("steps", 1, 10**9),
            ("frames", 1, 10**6),
            ("batch", 1, 10**6),
            ("subclips", 1, 10**4),
            ("whole_clips", 0, 10**9),
            ("in_order", 0, 10**9),
            ("learning_rate", 1e-9, 1e3),
            ("warmup", 0, 10**9),
            ("weight_decay", 0.0, 10.0),
            ("label_smoothing", 0.0, 0.9),
            ("average", 0.0, 0.999999),
            ("clip_norm", 1e-6, 1e9),
            ("seed", 0, 2**32 - 1),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UsageError(f"The recipe's {name} is {value}; expected {low:g} to {high:g}.")

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)
