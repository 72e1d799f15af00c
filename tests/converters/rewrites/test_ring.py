"""Queues in slots give the same values bit for bit, and the graph moves no frame that it need not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import ring_stream
import torch
from lowered import captured, operators
from rewrite_models import randomise
from torch import Tensor, nn

from mvtool.converters.lowering import lower
from mvtool.converters.recipe import RECIPES, Recipe, TemporalForm, recipe_for
from mvtool.ports import AnyArray, Precision, Runtime, StateForm, StateLayout
from mvtool.program import StreamProgram
from mvtool.runtimes.base import PortSession
from mvtool.runtimes.pytorch import open_program
from mvtool.streaming.conv import StreamConv3d

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

TFLITE = recipe_for(Runtime.TFLITE, Precision.FP32)
COREML = recipe_for(Runtime.COREML, Precision.FP32)
STEPS = 9


class Stack(nn.Module):
    """Temporal convolutions of every spelling, one after another, with a stride in time where there are two frames."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.full = StreamConv3d(3, 8, (3, 3, 3), stride=2, causal=True, input_shape=(1, 12, 12))
        self.time = StreamConv3d(8, 8, (5, 1, 1), groups=8, causal=True, input_shape=(1, 6, 6))
        self.depthwise = StreamConv3d(8, 8, (5, 3, 3), groups=8, time_stride=frames, causal=True, input_shape=(1, 6, 6))
        self.pointwise = StreamConv3d(8, 4, (4, 1, 1), causal=True, input_shape=(1, 6, 6))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.time(self.full(x).relu()))
        return self.head(self.pointwise(self.depthwise(x)).mean((2, 3, 4)))


def both(program: StreamProgram, recipe: Recipe) -> tuple[StreamProgram, StreamProgram]:
    return lower(program, recipe), lower(program, recipe, StateLayout.RING)


def logical(session: PortSession) -> dict[str, AnyArray]:
    stored = session.state()
    return {b.state: b.input.decode(stored[b.state]) for b in session.manifest.states}


def assert_equal(shift: StreamProgram, ring: StreamProgram) -> None:
    sessions = [open_program(program) for program in (shift, ring)]
    generator = np.random.default_rng(3)
    for _ in range(STEPS):
        step = [generator.standard_normal(port.logical_shape).astype(port.dtype) for port in shift.inputs]
        one, other = (session.step(*step) for session in sessions)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    one, other = map(logical, sessions)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def report(program: StreamProgram) -> tuple[int, tuple[str, ...]]:
    (found,) = (r for r in program.rewrites if r.name == "take states apart into slots")
    assert found.max_difference == 0.0
    return found.changed, found.left_alone


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("key", RECIPES, ids=lambda key: "-".join(key))
def test_all_spellings_give_the_same_bits(key: tuple[Runtime, Precision], frames: int) -> None:
    program = captured(randomise(Stack(frames)), f"1x3x{frames}x12x12")
    shift, ring = both(program, RECIPES[key])
    assert_equal(shift, ring)
    assert {s.form for s in ring.states if s.slots} == {StateForm.RING}
    assert all(len(port.shape) <= 4 for port in (*ring.input_ports, *ring.output_ports))
    assert [port.position for port in ring.input_ports] == list(range(len(ring.input_ports)))


@pytest.mark.parametrize("recipe", [TFLITE, COREML], ids=lambda r: r.target.value)
def test_a_stream_with_several_readers_of_its_queues_gives_the_same_bits(recipe: Recipe) -> None:
    shift, ring = both(ring_stream.captured(), recipe)
    assert_equal(shift, ring)
    assert [(len(s.inputs), len(s.outputs)) for s in ring.states] == [(2, 1), (4, 1)]
    names = [port.name for port in (*ring.states[1].inputs, *ring.states[1].outputs)]
    assert names == ["maps_slot0", "maps_slot1", "maps_slot2", "maps_slot3", "maps_next"]
    assert report(ring) == (2, ())


@pytest.mark.parametrize("form", [TemporalForm.TAPS, TemporalForm.DEPTHWISE])
def test_taps_read_slots_without_a_join(form: TemporalForm) -> None:
    class Taps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time = StreamConv3d(4, 4, (4, 1, 1), groups=4, causal=True, input_shape=(1, 6, 6))
            self.depthwise = StreamConv3d(4, 4, (3, 3, 3), groups=4, causal=True, input_shape=(1, 6, 6))

        def forward(self, x: Tensor) -> Tensor:
            return self.depthwise(self.time(x))

    program = captured(randomise(Taps()), "1x4x1x6x6")
    shift, ring = both(program, replace(TFLITE, temporal=form))
    assert_equal(shift, ring)
    joins = [Counter(operators(p))["aten.cat.default"] for p in (shift, ring)]
    cuts = [Counter(operators(p))["aten.slice.Tensor"] for p in (shift, ring)]
    assert joins == [2, 0 if form is TemporalForm.TAPS else 1]
    assert cuts[1] == 0 < cuts[0]


class Queue(nn.Module):
    """A queue along `axis`, written by `write(queue, x)`, and the mean of what it held."""

    past: Tensor

    def __init__(self, shape: tuple[int, ...], axis: int, write: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.axis, self.write = axis, write
        self.register_buffer("past", torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        found = torch.cat([self.past, x], self.axis) * 2.0
        self.past.copy_(self.write(self.past, x))
        return found.mean(self.axis)


def end(size: int, axis: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda past, x: torch.cat([past, x], axis).narrow(axis, x.shape[axis], size)


@pytest.mark.parametrize(
    ("model", "shape", "ports"),
    [
        (Queue((1, 6, 4), 2, end(4, 2)), "1x6x1@tensor", (4, 1)),
        (Queue((1, 6, 4), 2, end(4, 2)), "1x6x3@tensor", (4, 3)),
        (Queue((4, 6), 0, end(4, 0)), "1x6@tensor", (4, 1)),
        (Queue((1, 3, 5, 4, 4), 2, lambda past, x: torch.cat([past[:, :, 1:], x], 2)), "1x3x1x4x4", (5, 1)),
    ],
    ids=["sequence", "three at a time", "rows", "cut before"],
)
def test_queues_of_other_shapes(model: nn.Module, shape: str, ports: tuple[int, int]) -> None:
    for recipe in (TFLITE, COREML):
        shift, ring = both(captured(model, shape), recipe)
        assert_equal(shift, ring)
        assert (len(ring.states[0].inputs), len(ring.states[0].outputs)) == ports


@pytest.mark.parametrize(
    ("model", "shape", "reason"),
    [
        (Queue((1, 6, 2), 2, end(2, 2)), "1x6x2@tensor", "a step replaces all 2 entries"),
        (Queue((1, 6, 1), 2, end(1, 2)), "1x6x1@tensor", "a step replaces all 1 entries"),
        (Queue((1, 6, 17), 2, end(17, 2)), "1x6x1@tensor", "17 entries, more than 16"),
        (Queue((1, 6, 4), 2, lambda past, x: torch.cat([x, past[:, :, :3]], 2)), "1x6x1@tensor", "not write it as"),
    ],
)
def test_what_stays_one_port_says_why(model: nn.Module, shape: str, reason: str) -> None:
    shift, ring = both(captured(model, shape), TFLITE)
    changed, left = report(ring)
    assert changed == 0
    assert left[0].startswith("past: ")
    assert reason in left[0]
    assert [s.slots for s in ring.states] == [None]
    assert ring.manifest(Runtime.TFLITE, Precision.FP32) == shift.manifest(Runtime.TFLITE, Precision.FP32)


class Shared(nn.Module):
    """Two queues of the same values, and a name that a slot would have."""

    left: Tensor
    right: Tensor
    left_slot0: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, size in (("left", 2), ("right", 3)):
            self.register_buffer(name, torch.zeros(1, 4, size, 6, 6))
        self.register_buffer("left_slot0", torch.zeros(1, 4, 1, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        left, right = torch.cat([self.left, x], 2), torch.cat([self.right, x], 2)
        self.left.copy_(left[:, :, 1:])
        self.right.copy_(right[:, :, 1:])
        result = left[:, :, 0] - right[:, :, 1] + self.left_slot0[:, :, 0]
        self.left_slot0.copy_(x * 0.5)
        return result


@pytest.mark.parametrize("recipe", [TFLITE, COREML], ids=lambda r: r.target.value)
def test_queues_that_share_values_keep_ports_of_their_own(recipe: Recipe) -> None:
    shift, ring = both(captured(Shared(), "1x4x1x6x6"), recipe)
    assert_equal(shift, ring)
    names = [port.name for port in (*ring.input_ports, *ring.output_ports)]
    assert len(names) == len(set(names)) == 1 + 2 + 3 + 1 + 1 + 3
