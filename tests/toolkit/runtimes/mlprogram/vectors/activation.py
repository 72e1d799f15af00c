"""Activation functions: expectations by Python's `math` from the documented formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

X = [-3.0, -0.5, 0.0, 0.5, 1.0, 8.0]


def activation(kind: str, function: Callable[[float], float], **parameters: Any) -> Any:
    expected = np.array([function(value) for value in X])
    return kind, [np.array(X, np.float32)], lambda mb, x: getattr(mb, kind)(x=x, **parameters), expected


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


CHANNELS = np.array([[[-1.0, 2.0], [-4.0, 3.0]]], np.float32)  # (1, 2, 2)
IMAGE = CHANNELS.reshape(1, 2, 2, 1)
SLOPES = np.array([0.5, 0.25], np.float32)

CASES: list[Any] = [
    activation("sigmoid", sigmoid),
    activation("silu", lambda x: x * sigmoid(x)),
    activation("softplus", lambda x: math.log(1 + math.exp(x))),
    activation("softsign", lambda x: x / (1 + abs(x))),
    activation("relu", lambda x: max(x, 0.0)),
    activation("relu6", lambda x: min(max(x, 0.0), 6.0)),
    activation("elu", lambda x: x if x > 0 else 1.5 * (math.exp(x) - 1), alpha=1.5),
    activation("leaky_relu", lambda x: x if x >= 0 else 0.1 * x, alpha=0.1),
    activation("thresholded_relu", lambda x: x if x >= 0.5 else 0.0, alpha=0.5),
    activation("thresholded_relu", lambda x: x if x >= -1 else 0.0, alpha=-1.0),
    activation("clamped_relu", lambda x: min(6.0, x) if x >= 0 else min(6.0, -2.5 * x), alpha=-2.5, beta=6.0),
    activation("linear_activation", lambda x: 2 * x - 1, alpha=2.0, beta=-1.0),
    activation("scaled_tanh", lambda x: 1.5 * math.tanh(0.5 * x), alpha=1.5, beta=0.5),
    activation("sigmoid_hard", lambda x: min(max(0.2 * x + 0.5, 0), 1), alpha=0.2, beta=0.5),
    activation("gelu", lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))), mode="EXACT"),
    activation(
        "gelu",
        lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        mode="TANH_APPROXIMATION",
    ),
    activation("gelu", lambda x: x * sigmoid(1.702 * x), mode="SIGMOID_APPROXIMATION"),
    (
        "softmax",
        [np.log(np.array([[1.0, 3.0], [2.0, 2.0]], np.float32))],
        lambda mb, x: (mb.softmax(x=x, axis=1), mb.softmax(x=x, axis=0)),
        [np.array([[0.25, 0.75], [0.5, 0.5]]), np.array([[1 / 3, 3 / 5], [2 / 3, 2 / 5]])],
    ),
    (
        "prelu",
        [IMAGE],
        lambda mb, x: mb.prelu(x=x, alpha=SLOPES),
        np.array([-0.5, 2.0, -1.0, 3.0]).reshape(1, 2, 2, 1),
    ),
    (
        "softplus_parametric",
        [IMAGE],
        lambda mb, x: mb.softplus_parametric(x=x, alpha=SLOPES, beta=np.array([1.0, 2.0], np.float32)),
        np.array(
            [
                0.5 * math.log(1 + math.exp(-1)),
                0.5 * math.log(1 + math.exp(2)),
                0.25 * math.log(1 + math.exp(-8)),
                0.25 * math.log(1 + math.exp(6)),
            ]
        ).reshape(1, 2, 2, 1),
    ),
]
