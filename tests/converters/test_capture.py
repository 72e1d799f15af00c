"""Capture of models that are not ours, and of what modules may do with their buffers."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foreign_models import FOREIGN_MODELS, Background, ConvLSTMExplicit, ForeignModel, GRUExplicit, ShiftNet
from torch import Tensor, nn

from mvtool.converters.capture import capture
from mvtool.converters.inputs import InputSpec
from mvtool.errors import CaptureError
from mvtool.ports import InputPort, StateForm
from mvtool.program import ModelInfo, StreamProgram
from mvtool.streaming.state import StateInfo, declare_state

VECTOR = (InputSpec(None, (1, 4)),)
INFO = ModelInfo("model")
STEPS = 7
NAMED = namedtuple("NAMED", "scores features")


def rollout(program: StreamProgram, frames: list[list[Tensor]]) -> list[list[Tensor]]:
    """Outputs and next states of each step, states fed back."""
    run = program.exported.module()
    states = [torch.from_numpy(state.initial.copy()) for state in program.states]
    results = []
    for inputs in frames:
        outputs = list(run(*inputs, *states))
        states = outputs[len(program.outputs) :]
        results.append(outputs)
    return results


def random_inputs(program: StreamProgram, steps: int = STEPS, seed: int = 3) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    gains = torch.linspace(0.3, 1.7, steps)
    return [[drawn(p, generator, gain) for p in program.inputs] for gain in gains]


def drawn(port: InputPort, generator: torch.Generator, gain: Tensor) -> Tensor:
    values = torch.rand(port.logical_shape, generator=generator)
    return values < 0.25 if port.dtype == "bool" else values * gain - 0.2


def buffers(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_buffers()}


def captured(module: nn.Module, inputs: Any = VECTOR, **options: Any) -> StreamProgram:
    """Capture `module` and check outputs and buffer states against the eager module, exactly."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    program = capture(module, inputs, INFO, **options)
    after = module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    module.eval()
    frames = random_inputs(program)
    for inputs_of_step, got in zip(frames, rollout(program, frames), strict=True):
        with torch.no_grad():
            leaves = torch.utils._pytree.tree_leaves(module(*[x.clone() for x in inputs_of_step]))
        expected = [leaf.clone() for leaf in leaves if isinstance(leaf, Tensor)]
        expected += [module.get_buffer(state.logical.source).clone() for state in program.states]
        named = [state.logical.source for state in program.states]
        assert len(got) >= len(expected), named
        pairs = [*zip(got, expected[: len(got) - len(named)], strict=False)]
        pairs += zip(got[len(got) - len(named) :], expected[len(expected) - len(named) :], strict=True)
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=1e-6, atol=0)
    return program


def eager_rollout(model: ForeignModel, frames: list[list[Tensor]]) -> tuple[list[list[Tensor]], dict[str, Tensor]]:
    """Outputs then states of every step of the plain module, and its initial buffers."""
    module = model.build()
    initial = buffers(module)
    results = []
    explicit = [torch.zeros(spec.shape) for spec in model.inputs if spec.name in dict(model.state_pairs)]
    for inputs in frames:
        with torch.no_grad():
            if isinstance(module, GRUExplicit):
                output, state = module(*inputs, *explicit)
                explicit = [state]
            elif isinstance(module, ConvLSTMExplicit):
                output, (h, c) = module(*inputs, tuple(explicit))
                explicit = [h, c]
            else:
                output = module(*inputs)
        output = output["scores"] if isinstance(output, dict) else output
        names = [name for name in initial if "running" not in name and "tracked" not in name]
        states = explicit or [module.get_buffer(name) for name in names]
        results.append([t.clone() for t in (output, *states)])
    return results, initial


@pytest.mark.parametrize("model", FOREIGN_MODELS, ids=lambda model: model.name)
def test_a_foreign_model_becomes_a_program_with_the_same_rollout(model: ForeignModel) -> None:
    module = model.build()
    module.train()
    program = capture(module, model.inputs, ModelInfo(model.name), state_pairs=model.state_pairs)
    assert module.training
    assert tuple(state.logical.name for state in program.states) == model.states
    assert program.rewrites[0].name == "capture"
    # PyTorch computes its encoder layer by a fused operator that no graph has.
    assert program.rewrites[0].max_difference <= (1e-6 if model.name == "window_transformer" else 0.0)
    frames = random_inputs(program)
    expected, initial = eager_rollout(model, frames)
    for state in program.states:
        value = initial.get(state.logical.source, torch.zeros(state.logical.shape))
        np.testing.assert_array_equal(state.initial, value.numpy())
    for got, want in zip(rollout(program, frames), expected, strict=True):
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_ports_are_in_order_and_named() -> None:
    program = capture(FOREIGN_MODELS[3].build(), FOREIGN_MODELS[3].inputs, INFO)
    assert [p.name for p in program.input_ports] == ["frame", "layers_0_h", "layers_0_c", "layers_1_h", "layers_1_c"]
    assert [p.position for p in program.input_ports] == [0, 1, 2, 3, 4]
    assert [p.name for p in program.output_ports] == ["output", *(f"{s}_next" for s in FOREIGN_MODELS[3].states)]
    assert [p.position for p in program.output_ports] == [0, 1, 2, 3, 4]
    placeholders = [n.name for n in program.exported.graph.nodes if n.op == "placeholder"]
    assert placeholders[-5:] == [p.name for p in program.input_ports]
    signature = program.exported.graph_signature
    assert not signature.buffers_to_mutate
    assert list(signature.user_inputs) == placeholders[-5:]


def test_layers_stay_recognisable_and_unused_tensors_go() -> None:
    program = capture(ShiftNet(), (InputSpec(None, (1, 3, 24, 24)),), INFO)
    called = {str(node.target) for node in program.exported.graph.nodes if node.op == "call_function"}
    assert {"aten.conv2d.default", "aten.hardtanh.default", "aten.max_pool2d.default", "aten.linear.default"} <= called
    assert not any("num_batches_tracked" in name or "shifted" in name for name in program.exported.state_dict)


def test_image_ports_carry_their_layout() -> None:
    image = capture(Background(), (InputSpec(None, (1, 3, 10, 10)),), INFO).inputs[0]
    assert (image.name, image.image, image.logical_layout) == ("frame", True, "NCHW")
    plain = capture(Background(), (InputSpec(None, (1, 3, 10, 10), image=False),), INFO).inputs[0]
    assert (plain.name, plain.image, plain.logical_layout) == ("frame", False, None)


def test_a_clip_has_five_axes_and_a_nominal_shape_of_four() -> None:
    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(3, 2, (3, 1, 1))

        def forward(self, clip: Tensor) -> Tensor:
            return F.hardswish(self.conv(clip)).mean(dim=(2, 3, 4))

    program = capture(Clip(), (InputSpec(None, (1, 3, 5, 6, 6)),), ModelInfo("clip", labels="numbers"))
    port = program.inputs[0]
    assert (port.logical_shape, port.shape, port.logical_layout) == ((1, 3, 5, 6, 6), (3, 5, 6, 6), "NCTHW")
    assert program.info.frames_per_step == 5
    assert not program.is_stream
    assert (program.outputs[0].name, program.outputs[0].meaning) == ("logits", "logits")
    called = {str(node.target) for node in program.exported.graph.nodes}
    assert {"aten.conv3d.default", "aten.hardswish.default"} <= called


class OneBuffer(nn.Module):
    """Base of small modules with the buffer `h`."""

    h: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("h", torch.zeros(shape or (1, 4)))


class SliceWrites(OneBuffer):
    def forward(self, x: Tensor) -> Tensor:
        self.h[:, :-1] = self.h[:, 1:].clone()
        self.h[:, -1] = x
        return self.h.mean(1)


class IndexCopy(OneBuffer):
    slot: Tensor

    def __init__(self) -> None:
        super().__init__(3, 4)
        self.register_buffer("slot", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.h.index_copy_(0, self.slot, x)
        self.slot.copy_((self.slot + 1) % 3)
        return self.h.sum(0, keepdim=True)


class Rolled(OneBuffer):
    def forward(self, x: Tensor) -> Tensor:
        rolled = torch.roll(self.h, -1, 0)
        rolled[-1] = x[0]
        self.h = rolled
        return self.h.sum(0, keepdim=True)


class Swap(nn.Module):
    a: Tensor
    b: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.zeros(1, 4))
        self.register_buffer("b", torch.ones(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.a, self.b = self.b, self.a + x
        return self.a * 2 + self.b


class Queue(OneBuffer):
    def forward(self, x: Tensor) -> Tensor:
        self.h = torch.cat([self.h[:, 1:], x[:, None]], dim=1)
        return self.h.amax(1)


class Delay(nn.Module):
    """Two assigned frames of memory: an input moves into one buffer, that buffer into another."""

    last: Tensor
    older: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(1, 4))
        self.register_buffer("older", torch.zeros(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        change = x - 2 * self.last + self.older
        self.older = self.last
        self.last = x
        return change


class Mean(nn.Module):
    n: Tensor
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("n", torch.tensor(0.0))
        self.register_buffer("mean", torch.zeros(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        self.mean += (x - self.mean) / self.n
        return self.mean * 1.5


class RecurrentLayer(nn.Module):
    h: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 6, num_layers=2, dropout=0.3, batch_first=True)
        self.register_buffer("h", torch.zeros(2, 1, 6))

    def forward(self, x: Tensor) -> Tensor:
        y, h = self.rnn(x[:, None], self.h)
        self.h.copy_(h)
        return y[:, 0]


class AttentionCache(nn.Module):
    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 24)
        self.register_buffer("keys", torch.zeros(1, 2, 3, 4))
        self.register_buffer("values", torch.zeros(1, 2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(1, 3, 2, 1, 4).unbind(1)
        self.keys = torch.cat([self.keys[:, :, 1:], k], dim=2)
        self.values = torch.cat([self.values[:, :, 1:], v], dim=2)
        return F.scaled_dot_product_attention(q, self.keys, self.values).reshape(1, 8)


class Nested(nn.Module):
    """Assignments two levels down, in a ModuleList and a Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([Swap(), nn.Sequential(nn.Linear(4, 4), Delay())])

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


class ViewWrite(OneBuffer):
    def forward(self, x: Tensor) -> Tensor:
        flat = self.h.view(4)
        flat[1:3] = x[0, :2] + flat[:2]
        return self.h.clone()


class TwoNames(nn.Module):
    """One submodule under two names, stepped twice per call."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Mean()])
        self.first = self.layers[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.first(self.layers[0](x))


@pytest.mark.parametrize(
    ("module", "states"),
    [
        (SliceWrites(1, 5, 4), ["h"]),
        (IndexCopy(), ["h", "slot"]),
        (Rolled(3, 4), ["h"]),
        (Swap(), ["a", "b"]),
        (Queue(1, 3, 4), ["h"]),
        (Delay(), ["last", "older"]),
        (Mean(), ["n", "mean"]),
        (RecurrentLayer(), ["h"]),
        (AttentionCache(), ["keys", "values"]),
        (Nested(), ["parts_0_a", "parts_0_b", "parts_1_1_last", "parts_1_1_older"]),
        (ViewWrite(), ["h"]),
        (TwoNames(), ["layers_0_n", "layers_0_mean"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_ways_to_write_a_buffer(module: nn.Module, states: list[str]) -> None:
    assert [state.logical.name for state in captured(module).states] == states


def test_queues_and_counters_are_recognised() -> None:
    state = captured(Queue(1, 3, 4)).states[0]
    assert (state.form, state.logical.frames_held) == (StateForm.FIFO, 3)
    tcn = capture(FOREIGN_MODELS[2].build(), FOREIGN_MODELS[2].inputs, INFO).states
    assert [(s.form, s.logical.frames_held) for s in tcn] == [(StateForm.FIFO, n) for n in (2, 4, 8)]
    counter, mean = captured(Mean()).states
    assert (counter.form, mean.form) == (StateForm.COUNTER, StateForm.MEAN)


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_queue_must_drop_its_oldest_end(newest_first: bool) -> None:
    class OtherEnd(OneBuffer):
        def forward(self, x: Tensor) -> Tensor:
            joined = [x[:, None], self.h] if newest_first else [self.h, x[:, None]]
            self.h = torch.cat(joined, dim=1)[:, :3]
            return self.h.sum(1)

    assert captured(OtherEnd(1, 3, 4)).states[0].form is StateForm.OPAQUE


def test_declared_states_keep_their_description_and_start_at_their_declared_value() -> None:
    class Declared(nn.Module):
        decayed: Tensor

        def __init__(self) -> None:
            super().__init__()
            info = StateInfo("What a decay leaves of all frames.", StateForm.MEAN, None, 0.5)
            declare_state(self, "decayed", (1, 4), info)

        def forward(self, x: Tensor) -> Tensor:
            self.decayed.mul_(0.5).add_(x)
            return self.decayed * 2

    module = Declared()
    module(torch.ones(1, 4))
    stepped = module.decayed.clone()
    state = capture(module, VECTOR, INFO).states[0]
    assert (state.form, state.logical.meaning) == (StateForm.MEAN, "What a decay leaves of all frames.")
    np.testing.assert_array_equal(state.initial, np.full((1, 4), 0.5, np.float32))
    assert torch.equal(module.decayed, stepped)


def test_integer_state_keeps_its_type_with_a_remark() -> None:
    program = captured(IndexCopy())
    assert program.states[1].logical.dtype == "int64"
    assert any("slot" in line and "float32" in line for line in program.rewrites[0].left_alone)


def test_a_buffer_that_is_never_read_leaves_as_an_output() -> None:
    class WriteOnly(OneBuffer):
        def forward(self, x: Tensor) -> Tensor:
            self.h.copy_(x * 2)
            return x + 1

    program = capture(WriteOnly(), VECTOR, INFO)
    assert not program.is_stream
    assert [port.name for port in program.outputs] == ["output", "h"]
    assert any("never read" in line for line in program.rewrites[0].left_alone)


def test_a_buffer_that_is_written_back_is_a_constant() -> None:
    class Unchanged(OneBuffer):
        def forward(self, x: Tensor) -> Tensor:
            self.h.copy_(self.h)
            return x + self.h

    program = capture(Unchanged(), VECTOR, INFO)
    assert not program.is_stream
    assert "h" in program.exported.state_dict
    assert any("unchanged" in line for line in program.rewrites[0].left_alone)


def test_outputs_that_are_inputs_or_repeated_or_old_states_get_nodes_of_their_own() -> None:
    class PassThrough(OneBuffer):
        def forward(self, x: Tensor) -> dict[str, Any]:
            old, y = self.h, x + self.h
            self.h = x
            return {"x": x, "y": y, "z": y, "nothing": None, "number": 3, "h": old}

    program = captured(PassThrough())
    assert [p.name for p in program.input_ports] == ["x", "h_state"]
    assert [p.name for p in program.output_ports] == ["x_2", "y", "z", "h", "h_state_next"]
    results = program.exported.graph.output_node().args[0]
    assert len(set(results)) == 5
    assert all(node.op == "call_function" for node in results)


def test_names_come_from_fields_and_positions() -> None:
    class Named(OneBuffer):
        def forward(self, x: Tensor) -> Any:
            self.h.add_(x)
            return NAMED(self.h * 2, [x + 1, (x + 2,)])

    program = captured(Named())
    assert [port.name for port in program.outputs] == ["scores", "features_0", "features_1_0"]
    program = capture(Named(), VECTOR, INFO, output_names=("a", "b", "c"))
    assert [port.name for port in program.outputs] == ["a", "b", "c"]
    with pytest.raises(CaptureError, match="1 output names"):
        capture(Named(), VECTOR, INFO, output_names=("a",))


def test_keyword_arguments_and_constants() -> None:
    class Options(nn.Module):
        def forward(self, x: Tensor, mask: Tensor | None = None, *, gain: Tensor, times: int, note: str = "") -> Tensor:
            assert mask is None
            return x * gain * times

    inputs = (InputSpec("x", (1, 4)), InputSpec("gain", (1,)))
    program = capture(Options(), inputs, INFO, constants={"times": 3})
    assert [port.name for port in program.inputs] == ["x", "gain"]
    x, gain = torch.ones(1, 4), torch.tensor([2.0])
    assert torch.equal(program.exported.module()(x, gain)[0], torch.full((1, 4), 6.0))


def test_an_input_that_is_never_read_has_no_port() -> None:
    class Unread(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return x * 2

    program = capture(Unread(), (*VECTOR, *VECTOR), INFO)
    assert [port.name for port in program.inputs] == ["x"]
    assert any("mask" in line for line in program.rewrites[0].left_alone)


def test_paired_states_start_where_they_are_told() -> None:
    model = FOREIGN_MODELS[1]
    start = np.linspace(-1, 1, 16, dtype=np.float32)[None]
    program = capture(model.build(), model.inputs, INFO, state_pairs=model.state_pairs, initial={"h": start})
    np.testing.assert_array_equal(program.states[0].initial, start)
    assert program.states[0].logical.source == "h=output_1"
    x = torch.ones(1, 12)
    with torch.no_grad():
        expected = model.build()(x, torch.from_numpy(start))
    for got, want in zip(rollout(program, [[x]])[0], expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


def test_a_cache_built_by_the_first_call_is_frozen_with_a_remark() -> None:
    class Lazy(OneBuffer):
        def __init__(self) -> None:
            super().__init__()
            self.positions: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.positions is None:
                self.positions = torch.arange(4.0)
            self.h = self.h * 0.5 + x + self.positions
            return self.h + 0

    module = Lazy()
    program = capture(module, VECTOR, INFO)
    assert module.positions is None
    assert any("positions" in line for line in program.rewrites[0].left_alone)
    captured(module)


def test_the_module_is_left_as_it_was() -> None:
    class Flags(OneBuffer):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.still = nn.Dropout(), nn.Dropout()
            self.still.eval()

        def forward(self, x: Tensor) -> Tensor:
            self.h = self.drop(self.still(self.h + x))
            return self.h + 1

    module = Flags()
    buffer = module.h
    capture(module, VECTOR, INFO)
    assert module.h is buffer
    assert not module.h.any()
    assert (module.training, module.drop.training, module.still.training) == (True, True, False)
    assert not module._forward_hooks
    assert not module._forward_pre_hooks
