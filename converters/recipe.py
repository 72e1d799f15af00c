"""Recipes: which form each rewrite gives to a graph, per target and precision.

The fastest form of an operation differs between runtimes and between fp32 and int8
(`docs/decisions/004-recipes.md`), so the choice is data and not spread over the passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from pydantic import Field, JsonValue, ValidationError

from mvtool.errors import ManifestError, UsageError
from mvtool.ports import Document, Precision, Runtime


class TemporalForm(StrEnum):
    """How a depthwise convolution over time is written.

    DEPTHWISE: one 2D depthwise convolution over the picture (time, height * width).
    TAPS: one multiplication per frame and a sum.
    STACKED: one 2D convolution over the frames stacked as channels, for any one-frame convolution.
    """

    DEPTHWISE = "depthwise"
    TAPS = "taps"
    STACKED = "stacked"


class HardSwishForm(StrEnum):
    """How `x * relu6(x + 3) / 6` is written.

    KEEP: the framework's own operator.
    FACTORED: `x * relu6(x + 3)`, with the sixth moved into the weights of what follows.
    """

    KEEP = "keep"
    FACTORED = "factored"


class Forms(Document):
    """Forms of single operators, by their names in the captured program, where they differ from the recipe's.

    Attributes:
        temporal: Of depthwise convolutions over time.
        pixels: Output pixels of a row that a convolution computes as one, see `rewrites.pack_pixels`.
    """

    temporal: dict[str, TemporalForm] = Field(default_factory=dict)
    pixels: dict[str, int] = Field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether any operator has a form of its own."""
        return bool(self.temporal or self.pixels)


NO_FORMS = Forms()


@dataclass(frozen=True)
class Recipe:
    """Choices for one target and precision.

    Attributes:
        target: Runtime that the graph is for.
        precision: Arithmetic of the artifact.
        channels_last_ports: Pictures and states enter and leave as (T, H, W, C); else pictures as
            (T, C, H, W) and states as (C, T, H, W).
        temporal: Form of depthwise temporal convolutions.
        hard_swish: Form of hard-swish.
        unit_clamp_as_relu6: Write `clamp(x, 0, 1)` as `relu6(6 x) / 6`.
        most_axes: Axes of a tensor that has no form with four. XNNPACK defines none with more than 6
            (`XNN_MAX_TENSOR_DIMS`), and TFLite's own arithmetic stops there too.
        forms: Of single operators.
    """

    target: Runtime
    precision: Precision
    channels_last_ports: bool
    temporal: TemporalForm
    hard_swish: HardSwishForm
    unit_clamp_as_relu6: bool = False
    most_axes: int = 6
    forms: Forms = NO_FORMS

    def temporal_of(self, operator: str) -> TemporalForm:
        """Form of one depthwise convolution over time."""
        return self.forms.temporal.get(operator, self.temporal)

    def described(self) -> dict[str, JsonValue]:
        """As the manifest of a build has it."""
        plain: dict[str, JsonValue] = {
            name: str(value) if isinstance(value, str) else value
            for name, value in vars(self).items()
            if not isinstance(value, Forms)
        }
        return {**plain, "forms": self.forms.model_dump(mode="json")}


RECIPES = {
    (recipe.target, recipe.precision): recipe
    for recipe in (
        Recipe(Runtime.TFLITE, Precision.FP32, True, TemporalForm.DEPTHWISE, HardSwishForm.KEEP, True),
        Recipe(Runtime.TFLITE, Precision.INT8, True, TemporalForm.DEPTHWISE, HardSwishForm.FACTORED, True),
        Recipe(Runtime.TFLITE, Precision.INT8_DYNAMIC, True, TemporalForm.DEPTHWISE, HardSwishForm.KEEP, True),
        Recipe(Runtime.TFLITE, Precision.INT8_WEIGHTS, True, TemporalForm.DEPTHWISE, HardSwishForm.KEEP, True),
        Recipe(Runtime.EXECUTORCH, Precision.FP32, True, TemporalForm.DEPTHWISE, HardSwishForm.KEEP),
        Recipe(Runtime.EXECUTORCH, Precision.INT8, True, TemporalForm.DEPTHWISE, HardSwishForm.KEEP),
        Recipe(Runtime.EXECUTORCH, Precision.INT8_DYNAMIC, True, TemporalForm.DEPTHWISE, HardSwishForm.KEEP),
        Recipe(Runtime.EXECUTORCH, Precision.INT8_WEIGHTS, True, TemporalForm.DEPTHWISE, HardSwishForm.KEEP),
        Recipe(Runtime.COREML, Precision.FP32, False, TemporalForm.STACKED, HardSwishForm.KEEP, most_axes=4),
        Recipe(Runtime.COREML, Precision.FP16, False, TemporalForm.STACKED, HardSwishForm.KEEP, most_axes=4),
        Recipe(Runtime.COREML, Precision.INT8, False, TemporalForm.STACKED, HardSwishForm.KEEP, most_axes=4),
        Recipe(Runtime.COREML, Precision.INT8_WEIGHTS, False, TemporalForm.STACKED, HardSwishForm.KEEP, most_axes=4),
    )
}


def recipe_for(target: Runtime, precision: Precision) -> Recipe:
    """The recipe of a target and precision.

    Raises:
        UsageError: The target has no such precision.
    """
    recipe = RECIPES.get((target, precision))
    if recipe is None:
        known = ", ".join(p.value for t, p in RECIPES if t is target)
        raise UsageError(f"Target {target.value!r} has no precision {precision.value!r}; it has: {known}.")
    return recipe


def recorded_recipe(target: Runtime, precision: Precision, described: Mapping[str, JsonValue]) -> Recipe:
    """The recipe that a manifest describes: today's of the target, with the recorded forms of single operators.

    Raises:
        ManifestError: The forms are malformed.
    """
    try:
        forms = Forms.model_validate(described.get("forms") or {})
    except ValidationError as error:
        raise ManifestError(f"The recipe of {target} {precision} is malformed: {error}. Convert again.") from error
    return replace(recipe_for(target, precision), forms=forms)
