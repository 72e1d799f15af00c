from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from mvtool.errors import UsageError
from mvtool.ports import StateForm
from mvtool.streaming import Gate, reset, stream_state
from mvtool.zoo import registry
from mvtool.zoo.movinet import MoViNet, movinet
from mvtool.zoo.movinet_config import (
    BASE,
    STREAM,
    STREAM_3D,
    Architecture,
    Block,
    Layer,
    MoViNetConfig,
    Variant,
)
from mvtool.zoo.untrained import deterministic_weights
from mvtool.zoo.widths import make_divisible

TINY = Architecture(
    name="tiny",
    stem=8,
    head=24,
    dense=32,
    blocks=(
        Block(8, 2, (Layer(1, 5, 16),)),
        Block(16, 2, (Layer(5, 3, 24), Layer(3, 3, 24))),
        Block(24, 1, (Layer(3, 3, 40), Layer(1, 5, 32))),
    ),
)
POSITIONAL = replace(STREAM, positional=True)
STREAMS = [STREAM, POSITIONAL, STREAM_3D]
STREAM_IDS = ["stream", "positional", "stream_3d"]


def tiny(variant: Variant, batch_size: int = 1) -> MoViNet:
    model = movinet(MoViNetConfig(TINY, variant, num_classes=10, resolution=(26, 37), batch_size=batch_size))
    deterministic_weights(model)
    return model


def video(frames: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, frames, 26, 37, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
@pytest.mark.parametrize("variant", STREAMS, ids=STREAM_IDS)
@pytest.mark.parametrize("parts", [[1] * 13, [8, 5], [2, 1, 3, 1, 6]], ids=["single", "chunks", "uneven"])
def test_any_chunking_equals_the_whole_clip(variant: Variant, parts: list[int]) -> None:
    """Logits and every state; chunks of 1 to 3 frames are shorter than the kernel of 5."""
    model, clip = tiny(variant, batch_size=2), video(13, batch=2)
    whole = model(clip)
    states = {name: model.get_buffer(name).clone() for name in stream_state(model)}
    reset(model)
    logits = [model(part) for part in torch.split(clip, parts, dim=2)]
    torch.testing.assert_close(logits[-1], whole, rtol=0, atol=1e-5 * float(whole.abs().max()))
    for name, wanted in states.items():
        torch.testing.assert_close(model.get_buffer(name), wanted, rtol=1e-5, atol=1e-5, msg=name)


@torch.no_grad()
@pytest.mark.parametrize("variant", STREAMS, ids=STREAM_IDS)
def test_intermediate_logits_are_those_of_the_prefix(variant: Variant) -> None:
    """After frame t the stream says what a clip of t frames says: nothing looks ahead, nothing is forgotten."""
    model, clip = tiny(variant), video(7)
    stream = [model(frame) for frame in torch.split(clip, 1, dim=2)]
    for t in (1, 4, 7):
        reset(model)
        torch.testing.assert_close(stream[t - 1], model(clip[:, :, :t]), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("variant", STREAMS, ids=STREAM_IDS)
def test_every_state_matters(variant: Variant) -> None:
    """Clearing any one buffer changes the next logits; a test with ReZero at 0 would not notice."""
    model, clip = tiny(variant), video(6)
    for name in stream_state(model):
        reset(model)
        model(clip[:, :, :5])
        saved = {n: model.get_buffer(n).clone() for n in stream_state(model)}
        wanted = model(clip[:, :, 5:])
        for n, value in saved.items():
            model.get_buffer(n).copy_(value)
        model.get_buffer(name).zero_()
        assert (model(clip[:, :, 5:]) - wanted).abs().max() > 1e-5 * wanted.abs().max(), name


@torch.no_grad()
def test_base_looks_at_the_whole_clip() -> None:
    """A base model keeps no state, and its first frame sees the second."""
    model = tiny(BASE)
    assert stream_state(model) == {}
    first = model(video(4))
    assert torch.equal(model(video(4)), first)
    assert first.shape == (1, 10)


LAYERS_WITH_TIME = {"a0": 11, "a1": 17, "a2": 19, "a3": 23, "a4": 35, "a5": 43, "t0": 8}
POOLS = {"a0": 16, "a1": 25, "a2": 27, "a3": 34, "a4": 48, "a5": 60, "t0": 15}
ELEMENTS = {"a0": 674_192, "a1": 1_220_560, "a2": 2_707_088, "a3": 4_568_880, "a4": 12_350_080, "a5": 18_773_392}


@pytest.mark.parametrize("name", POOLS)
def test_states_of_published_streams(name: str) -> None:
    """Numbers of buffers and of float elements equal those of the official models, with one counter."""
    model = registry.get(f"movinet_{name}_stream").build()
    states = stream_state(model)
    forms = [info.form for info in states.values()]
    assert forms.count(StateForm.FIFO) == LAYERS_WITH_TIME[name]
    assert forms.count(StateForm.MEAN) == POOLS[name]
    assert forms.count(StateForm.COUNTER) == 1
    assert len(forms) == LAYERS_WITH_TIME[name] + POOLS[name] + 1
    if name in ELEMENTS:
        assert sum(model.get_buffer(n).numel() for n in states) == ELEMENTS[name] + 1


def test_state_shapes_of_a0() -> None:
    """Names and shapes as in the published A0 stream, channels first."""
    model = registry.get("movinet_a0_stream").build()
    assert model.get_buffer("block1_layer0.temporal.conv.stream.buffer").shape == (1, 80, 2, 22, 22)
    assert model.get_buffer("block4_layer0.temporal.conv.stream.buffer").shape == (1, 384, 4, 6, 6)
    assert model.get_buffer("head.pool.buffer").shape == (1, 480, 1, 1, 1)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.parametrize("name", ["movinet_a0_stream", "tiny positional", "tiny 3d"])
def test_export_mutates_exactly_the_states(name: str) -> None:
    """One-frame graph: every state is written, nothing else, and its rollout equals the module."""
    if name == "movinet_a0_stream":
        model: nn.Module = deterministic_weights(registry.get(name).build(resolution=48))
        clip = torch.rand(1, 3, 3, 48, 48)
    else:
        model, clip = tiny(POSITIONAL if "positional" in name else STREAM_3D), video(3)
    # The exported program shares the module's buffers, so the module is rolled as a copy.
    eager = copy.deepcopy(model)
    exported = torch.export.export(model, (clip[:, :, :1],), strict=False).run_decompositions({})
    assert sorted(exported.graph_signature.buffers_to_mutate.values()) == sorted(stream_state(model))
    targets = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    banned = ("cumsum", "arange", "sin", "cos", "_to_copy", "detach", "clone", "gather", "index")
    assert not [t for t in targets if any(word in t.split(".")[1:2] for word in banned)], targets
    step = exported.module()
    for frame in torch.split(clip, 1, dim=2):
        with torch.no_grad():
            torch.testing.assert_close(step(frame), eager(frame), rtol=1e-5, atol=1e-6)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"got a video of shape \(1, 3, 1, 26, 36\), expected .* \(1, 3, any, 26, 37\)"
    ):
        tiny(STREAM)(torch.zeros(1, 3, 1, 26, 36))
    with pytest.raises(UsageError, match="got a video of shape"):
        tiny(STREAM)(torch.zeros(2, 3, 1, 26, 37))


def test_gate_can_be_changed() -> None:
    model, frame = tiny(STREAM), video(1)
    before = model(frame)
    model.gate = Gate.REF
    reset(model)
    assert not torch.allclose(model(frame), before)
    assert {layer.excite.gate for layer in model.layers()} == {Gate.REF}


def test_training_mode_drops_and_learns() -> None:
    """Gradients reach every parameter, through dropout and stochastic depth."""
    model = tiny(BASE).train()
    torch.manual_seed(0)
    assert not torch.equal(model(video(2)), model(video(2)))
    for layer in model.layers():
        layer.drop_rate = 0.0
    model(video(2)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


@pytest.mark.parametrize(("value", "expected"), [(6, 8), (12, 16), (20, 24), (40, 40), (92, 96), (18.9, 24), (1, 8)])
def test_make_divisible(value: float, expected: int) -> None:
    """A0: 0.25 * 24 = 6 -> 8, doubled 12 -> 16; 18.9 rounds to 16, below 90 %, so 24."""
    assert make_divisible(value) == expected
