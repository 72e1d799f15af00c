"""Recipes: which form each rewrite gives to a graph, per target and precision.

The fastest form of an operation differs between runtimes and between fp32 and int8
(`docs/decisions/004-recipes.md`), so the choice is data and not spread over the passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mvtool.errors import UsageError
from mvtool.ports import Precision, Runtime


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
    """

    target: Runtime
    precision: Precision
    channels_last_ports: bool
    temporal: TemporalForm
    hard_swish: HardSwishForm
    unit_clamp_as_relu6: bool = False
    most_axes: int = 6


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
