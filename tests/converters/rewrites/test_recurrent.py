"""Recurrent cells and layers become dense layers and gates."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mvtool.converters.capture import capture
from mvtool.converters.inputs import InputSpec
from mvtool.converters.lowering import lower
from mvtool.converters.recipe import recipe_for
from mvtool.converters.rewrites import recurrent
from mvtool.ports import Precision, Runtime
from mvtool.program import ModelInfo, RewriteReport

FEATURES, HIDDEN, LENGTH = 6, 5, 3

pytestmark = pytest.mark.filterwarnings("ignore")


class Cell(nn.Module):
    """A cell whose state is buffers."""

    h: Tensor
    c: Tensor

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell
        self.register_buffer("h", torch.zeros(1, HIDDEN))
        if isinstance(cell, nn.LSTMCell):
            self.register_buffer("c", torch.zeros(1, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.cell, nn.LSTMCell):
            self.h, self.c = self.cell(x, (self.h, self.c))
        else:
            self.h = self.cell(x, self.h)
        return self.h * 2.0


class Layers(nn.Module):
    """Recurrent layers over a few steps per call, which carry their state to the next call."""

    h: Tensor
    c: Tensor

    def __init__(self, layers: nn.RNNBase) -> None:
        super().__init__()
        self.layers = layers
        count = layers.num_layers * (2 if layers.bidirectional else 1)
        self.register_buffer("h", torch.zeros(count, 1, HIDDEN))
        if isinstance(layers, nn.LSTM):
            self.register_buffer("c", torch.zeros(count, 1, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.layers, nn.LSTM):
            y, (self.h, self.c) = self.layers(x, (self.h, self.c))
        else:
            y, self.h = self.layers(x, self.h)
        result: Tensor = y.mean(1) + y[:, -1]
        return result


CELLS: dict[str, Callable[[], nn.Module]] = {
    "gru": lambda: nn.GRUCell(FEATURES, HIDDEN),
    "gru without bias": lambda: nn.GRUCell(FEATURES, HIDDEN, bias=False),
    "lstm": lambda: nn.LSTMCell(FEATURES, HIDDEN),
    "tanh": lambda: nn.RNNCell(FEATURES, HIDDEN),
    "relu": lambda: nn.RNNCell(FEATURES, HIDDEN, nonlinearity="relu"),
}
LAYERS: dict[str, Callable[[], nn.RNNBase]] = {
    "gru": lambda: nn.GRU(FEATURES, HIDDEN, batch_first=True),
    "two gru both ways": lambda: nn.GRU(FEATURES, HIDDEN, 2, batch_first=True, bidirectional=True),
    "lstm without bias": lambda: nn.LSTM(FEATURES, HIDDEN, 2, batch_first=True, bias=False),
    "tanh": lambda: nn.RNN(FEATURES, HIDDEN, batch_first=True),
}


def lowered(model: nn.Module, shape: tuple[int, ...]) -> tuple[RewriteReport, list[str]]:
    """Report of the rewrite, which holds the largest difference over rolled steps, and the operators that are left."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.8, 0.8)
    program = capture(model.eval(), [InputSpec("x", shape)], ModelInfo("recurrent"))
    found = lower(program, recipe_for(Runtime.EXECUTORCH, Precision.FP32))
    (report,) = (report for report in found.rewrites if report.name == recurrent.NAME)
    names = [str(node.target) for node in found.exported.graph.nodes if node.op == "call_function"]
    return report, names


@pytest.mark.parametrize("name", CELLS)
def test_cells(name: str) -> None:
    report, names = lowered(Cell(CELLS[name]()), (1, FEATURES))
    assert (report.changed, report.left_alone) == (1, ())
    assert report.max_difference < 1e-5
    assert names.count("aten.linear.default") == 2
    assert not any("cell" in name for name in names)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_step_by_step(name: str) -> None:
    layers = LAYERS[name]()
    report, names = lowered(Layers(layers), (1, LENGTH, FEATURES))
    assert (report.changed, report.left_alone) == (1, ())
    assert report.max_difference < 1e-5
    passes = layers.num_layers * (2 if layers.bidirectional else 1)
    assert names.count("aten.linear.default") == 2 * LENGTH * passes


def test_a_projected_state_is_left_with_its_reason() -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.LSTM(FEATURES, HIDDEN, batch_first=True, proj_size=2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.layers(x)[0]
            return result

    report, _ = lowered(Projected(), (1, LENGTH, FEATURES))
    assert report.changed == 0
    assert "projected" in report.left_alone[0]
