from __future__ import annotations

import pytest
import torch

from mvtool.streaming import Activation, Gate

X = torch.tensor([-4.0, -1.0, 0.0, 1.0, 4.0])


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        (Gate.KERAS, [0.0, 0.3, 0.5, 0.7, 1.0]),
        (Gate.REF, [0.0, 0.33334, 0.50001, 0.66668, 1.00002]),
        (Gate.RELU6, [0.0, 1 / 3, 0.5, 2 / 3, 1.0]),
        (Gate.SIGMOID, [0.01798621, 0.26894142, 0.5, 0.73105858, 0.98201379]),
    ],
)
def test_gates(gate: Gate, expected: list[float]) -> None:
    assert gate(X).tolist() == pytest.approx(expected, abs=1e-6)


def test_activations() -> None:
    """hard_swish(-1) = -1 * 2 / 6; swish(1) = sigmoid(1)."""
    assert Activation.HARD_SWISH(X).tolist() == pytest.approx([0.0, -1 / 3, 0.0, 2 / 3, 4.0])
    assert float(Activation.SWISH(X)[3]) == pytest.approx(0.73105858)
    assert Activation.RELU(X).tolist() == [0.0, 0.0, 0.0, 1.0, 4.0]
