"""The simulations of int8 artifacts against the runtimes, element by element, and the arithmetic behind them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stream_nets import first, last, port
from torch import Tensor, nn
from torch.nn import functional as F

import mvtool
from mvtool.build import Build
from mvtool.converters import executorch
from mvtool.ports import InputPort, OutputPort, Precision, Runtime
from mvtool.program import ModelInfo, StreamProgram
from mvtool.quantization.calibration import CalibrationSet
from mvtool.quantization.pt2e import QuantizedProgram, quantize
from mvtool.runtimes.borders import Borders
from mvtool.runtimes.pytorch import open_program
from mvtool.verification.frames import FrameSource
from mvtool.verification.integers import (
    convolution,
    dense,
    integer_arithmetic,
    offset,
    product,
    steps_of,
    store,
    total,
)
from mvtool.verification.replay import logical_states
from mvtool.verification.simulation import computed_tables, find_simulation, round_at_borders

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

STEPS = 12


def simulation_folder(build: Build, runtime: Runtime) -> Path | None:
    return None if runtime is Runtime.TFLITE else build.folder / "reference" / f"{runtime.value}_int8"


@pytest.mark.parametrize("runtime", list(Runtime))
def test_int8_states_equal_the_simulation_bit_for_bit(tiny_build: Build, runtime: Runtime) -> None:
    path = tiny_build.path(tiny_build.artifact(runtime, Precision.INT8))
    artifact = mvtool.open(path)
    folder = simulation_folder(tiny_build, runtime)
    simulated = find_simulation(runtime, Precision.INT8, path, folder).quantized(Borders())
    ports = {binding.state: binding.input for binding in simulated.manifest.states}
    compared = 0
    for inputs in FrameSource(artifact.manifest.inputs, artifact.manifest.preprocessing).steps(STEPS):
        before = logical_states(artifact.manifest, artifact.state())
        simulated.set_state({name: ports[name].encode(array) for name, array in before.items()})
        artifact.step(*inputs)
        simulated.step(*inputs)
        found = logical_states(artifact.manifest, artifact.state())
        expected = logical_states(simulated.manifest, simulated.state())
        for binding in artifact.manifest.states:
            if binding.output.step:
                one, other = (np.rint(side[binding.state] / binding.output.step) for side in (found, expected))
                np.testing.assert_array_equal(one, other, err_msg=binding.state)
                compared += 1
    assert compared >= 2 * STEPS


CHANNELS = 8
PICTURE = (1, 8, 8, CHANNELS)


class Operators(nn.Module):
    """One operator, on channels-last pictures, with the layers that it may need."""

    def __init__(self, compute: Callable[..., Tensor]) -> None:
        super().__init__()
        self.compute = compute
        self.point = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.square = nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS, bias=False)
        self.dense = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, *values: Tensor) -> Tensor:
        return self.compute(self, *values)


ONE: dict[str, Callable[..., Tensor]] = {
    "pointwise": lambda m, a: last(m.point(first(a))),
    "strided": lambda m, a: last(m.square(first(a))),
    "depthwise": lambda m, a: last(m.deep(first(a))),
    "padded": lambda m, a: last(F.conv2d(F.pad(first(a), (0, 1, 2, 0)), m.square.weight, m.square.bias)),
    "dense": lambda m, a: m.dense(a),
    "convolution and ReLU": lambda m, a: last(F.relu(m.point(first(a)))),
    "convolution and ReLU6 after the layout": lambda m, a: F.relu6(last(m.point(first(a)))),
    "ReLU": lambda m, a: F.relu(a),
    "hard-swish": lambda m, a: F.hardswish(a),
    "sigmoid": lambda m, a: torch.sigmoid(a),
    "leaky ReLU": lambda m, a: F.leaky_relu(a, 0.1),
    "average pool": lambda m, a: last(F.avg_pool2d(first(a), 2)),
    "largest of a window": lambda m, a: last(F.max_pool2d(first(a), 2, 2)),
}
TWO: dict[str, Callable[..., Tensor]] = {
    "sum": lambda m, a, b: a + b,
    "difference": lambda m, a, b: a - b,
    "product": lambda m, a, b: a * b,
    "sum and ReLU": lambda m, a, b: F.relu(a + b),
    "concatenation": lambda m, a, b: torch.cat([a, b], 1),
    "residual of a chain": lambda m, a, b: a + F.hardswish(last(m.deep(F.relu(m.point(first(b)))))),
}


def example(count: int, generator: np.random.Generator) -> tuple[NDArray[np.float32], ...]:
    return tuple(generator.standard_normal(PICTURE).astype(np.float32) * (1.3 - 0.4 * n) for n in range(count))


def quantized_operator(name: str, compute: Callable[..., Tensor], count: int) -> QuantizedProgram:
    torch.manual_seed(1)
    generator = np.random.default_rng(0)
    module = Operators(compute).eval()
    inputs = example(count, generator)
    with torch.no_grad():
        exported = torch.export.export(module, tuple(torch.from_numpy(array) for array in inputs))
        shape = tuple(module(*map(torch.from_numpy, inputs)).shape)
    program = StreamProgram(
        exported=exported,
        info=ModelInfo(name=name),
        inputs=tuple(port(InputPort, f"x{n}", n, PICTURE) for n in range(count)),
        outputs=(port(OutputPort, "y", 0, shape),),
        states=(),
    )
    clip = tuple(example(count, generator) for _ in range(6))
    return quantize(executorch.prepare(program), CalibrationSet(clips=(clip,)))


@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_int8_operators_of_executorch_agree_bit_for_bit(name: str, tmp_path: Path) -> None:
    count = 2 if name in TWO else 1
    quantized = quantized_operator(name, {**ONE, **TWO}[name], count)
    assert quantized.ports.keys() == {f"x{n}" for n in range(count)} | {"y"}
    executorch.emit(quantized, tmp_path / "one.pte")
    artifact = mvtool.open(tmp_path / "one.pte")
    simulated = open_program(quantized.program, edit=integer_arithmetic)
    generator = np.random.default_rng(7)
    for _ in range(6):
        given = [
            p.decode(p.encode(a)) for p, a in zip(artifact.manifest.inputs, example(count, generator), strict=True)
        ]
        found, expected = artifact.step(*given)["y"], simulated.step(*given)["y"]
        scale = quantized.ports["y"].scale
        np.testing.assert_array_equal(np.rint(found / scale), np.rint(expected / scale))


def test_sums_round_halves_up() -> None:
    first, second = torch.tensor([1.0, 3.0, -1.0, -3.0]), torch.tensor([0.0, 0.0, 0.0, 0.0])
    assert total(first, second, 0.5, 0.5).tolist() == [1.0, 2.0, 0.0, -1.0]
    assert total(first, torch.ones(4), 0.5, -0.5).tolist() == [0.0, 1.0, -1.0, -2.0]


TABLES: dict[str, Callable[..., Tensor]] = {
    "hard-swish": ONE["hard-swish"],
    "hard-swish of a convolution": lambda m, a: F.hardswish(last(m.point(first(a)))),
    "sigmoid": ONE["sigmoid"],
    "a value times its sigmoid": lambda m, a: a * torch.sigmoid(a),
}
NO_TABLES = [
    "pointwise",
    "convolution and ReLU",
    "average pool",
    "largest of a window",
    "sum",
    "product",
    "concatenation",
]


def tables_of(module: torch.fx.GraphModule, borders: Borders) -> list[torch.fx.Node]:
    """The tables of a quantized graph, which from now on round at `borders`."""
    tables = computed_tables(module)
    integer_arithmetic(module)
    round_at_borders(module, tables, borders, steps_of, table=True)
    return tables


@pytest.mark.parametrize("name", TABLES)
def test_a_function_of_one_int8_value_goes_either_way_for_all_elements_that_have_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvtool.runtimes.borders.TABLE_BORDER_STEPS", 0.05)
    quantized = quantized_operator(name, TABLES[name], 1)
    found: list[torch.fx.Node] = []
    borders = Borders()
    simulated = open_program(quantized.program, edit=lambda module: found.extend(tables_of(module, borders)))
    assert len(found) == 1
    (given,) = example(1, np.random.default_rng(7))
    borders.begin()
    before = simulated.step(given)["y"]
    moved = 0
    for border in borders.met():
        borders.begin(frozenset({border}))
        steps = np.rint((simulated.step(given)["y"] - before) / quantized.ports["y"].scale)
        # At an end of the grid both ways lead to the same integer.
        if steps.any():
            assert len(set(steps[steps != 0])) == len(set(before[steps != 0])) == 1
            moved += 1
    assert moved


@pytest.mark.parametrize("name", NO_TABLES)
def test_what_integers_decide_is_no_table(name: str) -> None:
    quantized = quantized_operator(name, {**ONE, **TWO}[name], 2 if name in TWO else 1)
    found: list[torch.fx.Node] = []
    open_program(quantized.program, edit=lambda module: found.extend(computed_tables(module)))
    assert not found


def test_products_and_weighted_sums_round_halves_to_even() -> None:
    assert product(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]), 0.5).tolist() == [0.0, 2.0]
    value, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0], [3.0, 1.0]])
    factors = torch.tensor([0.5, 0.5])
    assert dense(value, weight, None, factors).tolist() == [[2.0, 2.0]]
    assert dense(value, weight, torch.tensor([2.0, 2.0]), factors).tolist() == [[2.0, 4.0]]
    picture = convolution(value.reshape(1, 2, 1, 1), weight.reshape(2, 2, 1, 1), None, factors)
    assert picture.flatten().tolist() == [2.0, 2.0]


def test_values_are_stored_within_their_limits() -> None:
    stored = torch.tensor([-128, 0, 127], dtype=torch.int8)
    assert offset(stored, 3).tolist() == [-131.0, -3.0, 124.0]
    assert store(torch.tensor([-300.0, 2.0, 300.0]), -131.0, 124.0, 3).tolist() == [-128, 5, 127]
    assert store(torch.tensor([-300.0, 2.0, 300.0]), 0.0, 10.0, 3).tolist() == [3, 5, 13]
