"""Which operators are on tokens, and stay float: attention and layer norms over rows, and nothing that merely looks alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from foreign_models import TokenMemory
from torch import Tensor, nn

from mvtool.converters.capture import capture
from mvtool.converters.inputs import parse_input
from mvtool.converters.lowering import lower
from mvtool.converters.recipe import recipe_for
from mvtool.converters.tflite_export import export_float
from mvtool.converters.tflite_repairs import repair
from mvtool.ports import Precision, Runtime
from mvtool.program import ModelInfo, StreamProgram
from mvtool.quantization.plan import _token_nodes, operator_of
from mvtool.quantization.pt2e_open import open_graph
from mvtool.quantization.tflite_domains import _token_operators

pytestmark = pytest.mark.filterwarnings("ignore")


class FrameScores(nn.Module):
    """1D convolutions that end in a softmax over the classes of every frame."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(6, 8, 3, padding=1), nn.Conv1d(8, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(torch.relu(self.first(x))).softmax(1)
        return scores


class ChannelAttention(nn.Module):
    """A softmax over pooled channels scales a picture, and a group norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y * y.mean((2, 3), keepdim=True).softmax(1)


class Apart(nn.Module):
    """A product of tokens beside convolutions that have nothing to do with it, each with an output of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(6, 8, 3, padding=1), nn.Conv1d(8, 6, 3, padding=1)
        self.key = nn.Linear(12, 12)

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.last(torch.relu(self.first(x))), tokens @ self.key(tokens).transpose(1, 2)


class Heads(nn.Module):
    """Attention whose heads stand on a fourth axis, with a mask there, and PyTorch's own layer with the rows first."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.packed = nn.Conv2d(3, 16, 4, stride=4), nn.Linear(16, 48)
        self.layer = nn.MultiheadAttention(16, 2)
        self.register_buffer("mask", torch.ones(16, 16).tril().bool())

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.relu(self.stem(x)).flatten(2).transpose(1, 2)
        query, key, value = self.packed(rows).reshape(1, 16, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (0.5 * (query @ key.transpose(-2, -1))).masked_fill(~self.mask, -torch.inf)
        rows = (scores.softmax(-1) @ value).transpose(1, 2).reshape(16, 1, 16)
        seen: Tensor = self.layer(rows, rows, rows, need_weights=False)[0]
        return seen


def lowered(module: nn.Module, shapes: list[str], target: Runtime) -> StreamProgram:
    program = capture(module.eval(), [parse_input(f"{shape}@tensor") for shape in shapes], ModelInfo("tokens"))
    return lower(program, recipe_for(target, Precision.INT8))


def of_executorch(module: nn.Module, shapes: list[str]) -> list[str]:
    graph = open_graph(lowered(module, shapes, Runtime.EXECUTORCH)).graph
    return sorted(operator_of(node) for node in _token_nodes(graph))


def of_tflite(module: nn.Module, shapes: list[str]) -> list[str]:
    graph = export_float(lowered(module, shapes, Runtime.TFLITE))
    repair(graph)
    found = _token_operators(graph)
    return sorted(graph.kind(operator) for operator in graph.operators if id(operator) in found)


@pytest.mark.parametrize("tokens", [of_executorch, of_tflite])
@pytest.mark.parametrize(
    ("module", "shape"), [(FrameScores(), "1x6x16"), (ChannelAttention(), "1x3x8x8")], ids=["frame scores", "channels"]
)
def test_a_softmax_or_a_norm_of_groups_makes_no_tokens(
    tokens: Callable[[nn.Module, list[str]], list[str]], module: nn.Module, shape: str
) -> None:
    assert tokens(module, [shape]) == []


@pytest.mark.parametrize(
    ("tokens", "product", "others"),
    [(of_executorch, "bmm", {"conv2d", "relu"}), (of_tflite, "BATCH_MATMUL", {"CONV_2D", "RELU"})],
)
def test_what_stands_apart_stays_int8(
    tokens: Callable[[nn.Module, list[str]], list[str]], product: str, others: set[str]
) -> None:
    found = tokens(Apart(), ["1x6x16", "1x4x12"])
    assert product in found
    assert not others & set(found)


@pytest.mark.parametrize(
    ("tokens", "wanted"),
    [
        (of_executorch, {"bmm": 2, "softmax": 1, "rsqrt": 1, "conv2d": 0}),
        # litert-torch writes the norms with two axes: vectors, which are float in any case.
        (of_tflite, {"BATCH_MATMUL": 2, "SOFTMAX": 1, "RSQRT": 0, "CONV_2D": 0}),
    ],
)
def test_attention_and_the_norms_of_its_rows_are_on_tokens(
    tokens: Callable[[nn.Module, list[str]], list[str]], wanted: dict[str, int]
) -> None:
    found = tokens(TokenMemory(), ["1x3x16x16"])
    assert {kind: found.count(kind) for kind in wanted} == wanted


@pytest.mark.parametrize(
    ("tokens", "wanted"),
    [
        (of_executorch, {"bmm": 4, "linear": 3, "mul": 2, "add": 1, "conv2d": 0, "relu": 0}),
        (of_tflite, {"BATCH_MATMUL": 4, "FULLY_CONNECTED": 3, "MUL": 2, "ADD": 1, "CONV_2D": 0, "RELU": 0}),
    ],
)
def test_heads_on_a_fourth_axis_and_rows_on_the_first_are_tokens(
    tokens: Callable[[nn.Module, list[str]], list[str]], wanted: dict[str, int]
) -> None:
    found = tokens(Heads(), ["1x3x16x16"])
    assert {kind: found.count(kind) for kind in wanted} == wanted
