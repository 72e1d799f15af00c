from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mvtool.converters.capture import capture
from mvtool.converters.inputs import InputSpec
from mvtool.errors import SourceError, UsageError
from mvtool.ports import StateForm
from mvtool.program import ModelInfo, StreamProgram
from mvtool.streaming import reset, stream_state
from mvtool.streaming.padding import same_padding
from mvtool.zoo import registry
from mvtool.zoo.macs import count_macs, count_parameters
from mvtool.zoo.resnet3d import ResNet3D, ResNet3DConfig
from mvtool.zoo.resnet3d_layers import Bottleneck, ConvNorm
from mvtool.zoo.resnet3d_table import Stage, Stem
from mvtool.zoo.untrained import deterministic_weights

STAGES = (Stage(4, (3, 1), 1), Stage(6, (1, 3, 3), 2))
SIZE = (40, 37)
CAPTURE_SIZE = (32, 32)


def tiny(causal: bool = True, batch: int = 1, size: tuple[int, int] = SIZE, gating: bool = True) -> ResNet3D:
    config = ResNet3DConfig(causal, gating, 10, size, batch, stem=Stem(width=5), stages=STAGES)
    model = ResNet3D(config).eval()
    deterministic_weights(model)
    return model


def video(frames: int, batch: int = 1, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand(batch, 3, frames, *size, generator=torch.Generator().manual_seed(3))


def published(name: str, gating: bool = True) -> ResNet3D:
    with torch.device("meta"):
        model = registry.get(name).build(gating=gating).to("meta")
    assert isinstance(model, ResNet3D)
    return model


def test_parameters() -> None:
    """The paper prints 34.0 M."""
    for name in ("resnet3d_50", "resnet3d_50_stream"):
        entry, model = registry.get(name), published(name)
        assert count_parameters(model) == entry.parameters == 34_027_672
        assert bool(stream_state(model)) == entry.stream
        assert not model.training
    assert count_parameters(published("resnet3d_50", gating=False)) == 28_453_272
    assert count_parameters(published("resnet3d_50_stream", gating=False)) == 28_453_272


def test_multiply_adds() -> None:
    """390.2 G for the paper's clip, with or without gating; a step of the stream costs as much as its share of a clip."""
    clip = (1, 3, 250, 224, 224)
    whole = count_macs(published("resnet3d_50"), clip)
    assert whole == pytest.approx(390.2e9, abs=0.05e9)
    assert count_macs(published("resnet3d_50", gating=False), clip) == pytest.approx(390.2e9, abs=0.05e9)
    assert registry.get("resnet3d_50_stream").reported.macs == pytest.approx(whole / 62.5, rel=0.001)  # type: ignore[union-attr]
    step = count_macs(published("resnet3d_50_stream"), (1, 3, 4, 224, 224))
    sixteen = count_macs(published("resnet3d_50"), (1, 3, 16, 224, 224))
    assert 4 * step == pytest.approx(sixteen, rel=0.002)


def test_shapes_of_the_published_stages() -> None:
    """16 frames of 224: the stem strides by 2 in all axes, the pool again, three stages by 2 in space."""
    model = published("resnet3d_50")
    shapes: list[tuple[int, ...]] = []
    for layer in (model.stem, model.pool, *model.blocks()):
        layer.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    model(torch.empty(1, 3, 16, 224, 224, device="meta"))
    assert shapes[:2] == [(64, 8, 112, 112), (64, 4, 56, 56)]
    assert [shapes[1 + k] for k in (3, 7, 13, 16)] == [
        (256, 4, 56, 56),
        (512, 4, 28, 28),
        (1024, 4, 14, 14),
        (2048, 4, 7, 7),
    ]


def test_states_of_the_published_stream() -> None:
    """9 temporal kernels in the blocks, stem, pool; four gates and the head; one clock. 32.4 MiB of float32."""
    model = published("resnet3d_50_stream")
    states = stream_state(model)
    forms = [info.form for info in states.values()]
    assert (forms.count(StateForm.FIFO), forms.count(StateForm.MEAN), forms.count(StateForm.COUNTER)) == (11, 5, 1)
    shapes = {name: (tuple(model.get_buffer(name).shape[1:]), info.frames_held) for name, info in states.items()}
    assert shapes["stem.conv.stream.buffer"] == ((3, 3, 224, 224), 3)
    assert shapes["pool.stream.buffer"] == ((64, 1, 56, 56), 2)
    assert shapes["stage0_block1.temporal.conv.stream.buffer"] == ((256, 2, 56, 56), 8)
    assert shapes["stage3_block1.temporal.conv.stream.buffer"] == ((2048, 2, 7, 7), 8)
    assert shapes["stage1_block3.gating.pool.buffer"] == ((512, 1, 1, 1), None)
    assert states["clock.frame_count"].meaning == "Number of groups of 4 frames seen."
    assert sum(model.get_buffer(name).numel() for name in states) == 8_485_633


@torch.no_grad()
@pytest.mark.parametrize("gating", [True, False])
@pytest.mark.parametrize("parts", [[4] * 6, [8] * 3, [4, 12, 8]], ids=["4", "8", "uneven"])
def test_stream_equals_one_call(parts: list[int], gating: bool) -> None:
    """Logits and every state."""
    model, clip = tiny(batch=2, gating=gating), video(24, batch=2)
    whole = model(clip)
    states = {name: model.get_buffer(name).clone() for name in stream_state(model)}
    assert len(states) == 1 + 2 + 3 + (2 if gating else 0) + 1
    reset(model)
    logits = [model(part) for part in torch.split(clip, parts, dim=2)]
    torch.testing.assert_close(logits[-1], whole, rtol=0, atol=2e-6 * float(whole.abs().max()))
    for name, wanted in states.items():
        torch.testing.assert_close(model.get_buffer(name), wanted, rtol=2e-6, atol=2e-6, msg=name)


@torch.no_grad()
def test_logits_are_those_of_the_prefix() -> None:
    """After a step the stream says what a clip up to there says: nothing looks ahead, nothing is forgotten."""
    model, clip = tiny(), video(16)
    stream = [model(part) for part in torch.split(clip, 4, dim=2)]
    for k in range(1, 5):
        reset(model)
        torch.testing.assert_close(stream[k - 1], model(clip[:, :, : 4 * k]), rtol=0, atol=1e-5)


def ahead(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """SAME padding in space, and kernel - stride zero frames in front."""
    height, width = (same_padding(x.shape[k], kernel[k - 2], stride[k - 2]) for k in (3, 4))
    return functional.pad(x, (*width, *height, kernel[0] - stride[0], 0))


def convolved(layer: ConvNorm, x: Tensor) -> Tensor:
    conv = layer.conv
    y = functional.conv3d(ahead(x, conv.kernel_size, conv.stride), conv.weight, stride=conv.stride)
    normed: Tensor = layer.norm(y)
    return normed.relu() if layer.activation else normed


def mean_so_far(x: Tensor) -> Tensor:
    total = x.mean((3, 4), keepdim=True).cumsum(2)
    return total / torch.arange(1, x.shape[2] + 1).view(1, 1, -1, 1, 1)


def reference(model: ResNet3D, clip: Tensor) -> Tensor:
    """The causal network written out without buffers."""
    x = functional.max_pool3d(ahead(convolved(model.stem, clip), (3, 3, 3), (2, 2, 2)), 3, 2)
    for block in model.blocks():
        y = convolved(block.expand, convolved(block.spatial, convolved(block.temporal, x)))
        if block.gating is not None:
            y = y * torch.sigmoid(block.gating.transform(mean_so_far(y)))
        x = (y + (x if block.shortcut is None else convolved(block.shortcut, x))).relu()
    return functional.linear(mean_so_far(x)[:, :, -1].flatten(1), *model.head.classifier.parameters())


@torch.no_grad()
def test_stream_equals_a_causal_network_without_buffers() -> None:
    """Zeros in front of every temporal layer, kernel - stride of them, are what the empty buffers stand for."""
    model, clip = tiny(batch=2), video(12, batch=2)
    wanted = reference(model, clip)
    logits = [model(part) for part in torch.split(clip, 4, dim=2)][-1]
    torch.testing.assert_close(logits, wanted, rtol=0, atol=2e-6 * float(wanted.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("before", [0, 8])
def test_every_frame_of_a_step_counts(before: int) -> None:
    """Also the newest, and also in the first step."""
    model, clip = tiny(), video(before + 4)
    wanted = model(clip)
    for frame in range(before, before + 4):
        other = clip.clone()
        other[:, :, frame] = 1.0 - other[:, :, frame]
        reset(model)
        assert (model(other) - wanted).abs().max() > 1e-4 * wanted.abs().max(), frame


@torch.no_grad()
def test_every_state_matters() -> None:
    model, clip = tiny(), video(16)
    for name in stream_state(model):
        reset(model)
        model(clip[:, :, :12])
        saved = {n: model.get_buffer(n).clone() for n in stream_state(model)}
        wanted = model(clip[:, :, 12:])
        for n, value in saved.items():
            model.get_buffer(n).copy_(value)
        model.get_buffer(name).zero_()
        assert (model(clip[:, :, 12:]) - wanted).abs().max() > 1e-5 * wanted.abs().max(), name


@torch.no_grad()
def test_clip_keeps_no_state_and_takes_any_number_of_frames() -> None:
    model = tiny(causal=False)
    assert stream_state(model) == {}
    for frames in (1, 2, 7, 16):
        assert torch.equal(model(video(frames)), model(video(frames)))
    first = tiny(causal=True)(video(16))
    assert not torch.allclose(model(video(16)), first)


def rollout(program: StreamProgram, steps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    run = program.exported.module()
    states = [torch.from_numpy(state.initial.copy()) for state in program.states]
    outputs: list[Tensor] = []
    for step in steps:
        outputs = list(run(step, *states))
        states = outputs[1:]
    return outputs[0], states


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
def test_capture_finds_the_states_and_rolls_alike() -> None:
    """A step of four frames; its graph has no operator that counts frames or sums over them."""
    model = tiny(size=CAPTURE_SIZE)
    program = capture(model, (InputSpec(None, (1, 3, 4, *CAPTURE_SIZE)),), ModelInfo("resnet3d"))
    assert program.info.frames_per_step == 4
    declared = stream_state(model)
    assert {s.logical.source: (s.form, s.logical.frames_held) for s in program.states} == {
        name: (info.form, info.frames_held) for name, info in declared.items()
    }
    targets = {str(node.target) for node in program.exported.graph.nodes if node.op == "call_function"}
    assert not [t for t in targets if any(word in t for word in ("cumsum", "arange", "_to_copy", "detach", "index"))]
    steps = list(torch.split(video(12, size=CAPTURE_SIZE), 4, dim=2))
    logits, states = rollout(program, steps)
    wanted = [model(step) for step in steps][-1]
    torch.testing.assert_close(logits, wanted, rtol=1e-6, atol=1e-6)
    for state, value in zip(program.states, states, strict=True):
        torch.testing.assert_close(value, model.get_buffer(state.logical.source), rtol=1e-6, atol=1e-6)


def test_wrong_shapes_are_refused() -> None:
    for frames in (2, 6):
        with pytest.raises(UsageError, match=rf"got {frames} frames, expected a multiple of 4"):
            tiny()(video(frames))
    with pytest.raises(
        UsageError, match=r"got a video of shape \(1, 3, 0, 40, 37\), expected .* \(1, 3, any, 40, 37\)"
    ):
        tiny()(video(0))
    with pytest.raises(UsageError, match=r"expected .* \(any, 3, any, 40, 37\)"):
        tiny(causal=False)(torch.zeros(1, 3, 2, 40, 36))
    with pytest.raises(UsageError, match=r"got a video of shape \(2, 3, 4, 40, 37\)"):
        tiny()(video(4, batch=2))


def test_registry_refuses_other_frames_and_sizes() -> None:
    entry = registry.get("resnet3d_50_stream")
    assert (entry.frames_per_call, entry.frames % entry.frames_per_step) == (4, 0)
    for frames in (1, 2, 6):
        with pytest.raises(
            SourceError, match=rf"cannot take {frames} frames per call. It takes multiples of 4, 4 or more"
        ):
            entry.build(frames=frames)
    with pytest.raises(SourceError, match="cannot take pictures of 31x224"):
        entry.build(resolution=(31, 224))
    with pytest.raises(SourceError, match="no ResNet3D of kind 'causal'; kinds are clip, stream"):
        entry.build(kind="causal")


@pytest.mark.parametrize("frames", [4, 8])
def test_odd_sizes_can_go_in(frames: int) -> None:
    model = registry.get("resnet3d_50_stream").build(resolution=(45, 33), num_classes=3, frames=frames)
    assert model(torch.zeros(1, 3, frames, 45, 33)).shape == (1, 3)


def test_training_drops_and_learns() -> None:
    """Gradients reach every parameter."""
    model = tiny(causal=False).train()
    torch.manual_seed(0)
    assert not torch.equal(model(video(8)), model(video(8)))
    model(video(8)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


def test_gating_stands_in_the_last_block_of_each_stage() -> None:
    gates = [block.gating is not None for block in published("resnet3d_50").blocks()]
    assert [k for k, gate in enumerate(gates) if gate] == [2, 6, 12, 15]
    kernels = [_time(block) for block in published("resnet3d_50").blocks()]
    assert kernels == [3, 3, 3, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 1, 3, 1]


def _time(block: nn.Module) -> int:
    assert isinstance(block, Bottleneck)
    return block.temporal.conv.kernel_size[0]
