"""Activations and gates of streaming video models.

| name | formula | used by |
|---|---|---|
| swish | x sigmoid(x) | base models |
| hard_swish | x relu6(x + 3) / 6 | streams |
| relu | max(x, 0) | inside the squeeze-excite of the other families |
| sigmoid | 1 / (1 + exp(-x)) | gate of base models |
| keras | clip(0.2 x + 0.5, 0, 1) | gate of streams published for TensorFlow Hub (Keras 2 hard_sigmoid) |
| ref | 0.16667 relu6(x + 3) | gate in the present Model Garden source, with this literal |
| relu6 | relu6(x + 3) / 6 | gate for training from scratch, as in MobileNetV3 |

The three hard gates move logits by 1e-5 to 2e-2 of the largest against each other, so an importer has to know
which one the weights were trained with.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional

REF_SLOPE = 0.16667
"""The literal in `official/vision/modeling/layers/nn_layers.py` of the TensorFlow Model Garden."""


class Activation(StrEnum):
    """Non-linearity after a convolution."""

    SWISH = "swish"
    HARD_SWISH = "hard_swish"
    RELU = "relu"

    def __call__(self, x: Tensor) -> Tensor:
        """Apply elementwise to a tensor of any shape."""
        return _ACTIVATIONS[self](x)


class Gate(StrEnum):
    """Squashing function of a squeeze-excite gate; see the module docstring."""

    SIGMOID = "sigmoid"
    KERAS = "keras"
    REF = "ref"
    RELU6 = "relu6"

    def __call__(self, x: Tensor) -> Tensor:
        """Apply elementwise; the result lies in 0..1 (`ref` reaches 1.00002)."""
        return _GATES[self](x)


def _keras(x: Tensor) -> Tensor:
    return torch.clamp(x * 0.2 + 0.5, 0.0, 1.0)


def _ref(x: Tensor) -> Tensor:
    return functional.relu6(x + 3.0) * REF_SLOPE


def _relu6(x: Tensor) -> Tensor:
    return functional.relu6(x + 3.0) * (1.0 / 6.0)


_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    Activation.SWISH: functional.silu,
    Activation.HARD_SWISH: functional.hardswish,
    Activation.RELU: functional.relu,
}
_GATES: dict[Gate, Callable[[Tensor], Tensor]] = {
    Gate.SIGMOID: torch.sigmoid,
    Gate.KERAS: _keras,
    Gate.REF: _ref,
    Gate.RELU6: _relu6,
}
