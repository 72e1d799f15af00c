from __future__ import annotations

import copy

import pytest
import torch

from mvtool.errors import SourceError, UsageError
from mvtool.ports import StateForm
from mvtool.streaming import reset, stream_state
from mvtool.zoo import registry
from mvtool.zoo.entry import ModelEntry
from mvtool.zoo.frame_network import FrameNetwork
from mvtool.zoo.macs import count_macs, count_parameters
from mvtool.zoo.temporal_shift import OneSidedShift, TwoSidedShift
from mvtool.zoo.tsm import NETWORKS, build_clip, build_stream
from mvtool.zoo.untrained import deterministic_weights

ENTRIES = [entry for entry in registry.entries() if entry.family == "tsm"]
BUFFERS = {
    "mobilenet_v2": [(3, 56), *[(4, 28)] * 2, *[(8, 14)] * 3, *[(12, 14)] * 2, *[(20, 7)] * 2],
    "mobilenet_v3_small": [(3, 28), *[(5, 14)] * 2, (6, 14), *[(12, 7)] * 2],
    "mobilenet_v3_large": [(3, 56), *[(5, 28)] * 2, *[(10, 14)] * 3, (14, 14), *[(20, 7)] * 2],
    "resnet50": [(8, 56), *[(32, 56)] * 3, *[(64, 28)] * 4, *[(128, 14)] * 6, *[(256, 7)] * 2],
}
"""Channels and side of every buffer at 224; those of MobileNetV2 are the online demo's."""
TOLERANCE = 1e-9
"""Of the largest value, in float64: deep networks magnify the other order of the sums in batches of another size."""
MACS = {"mobilenet_v3_small": 56.1e6, "mobilenet_v3_large": 216.1e6}


def small(network: str, **options: int) -> FrameNetwork:
    """A stream at 40 pixels with five classes and weights that matter everywhere."""
    return settled(build_stream(network=network, num_classes=5, resolution=40, **options), options.get("batch_size", 1))


@torch.no_grad()
def settled(model: FrameNetwork, clips: int = 2) -> FrameNetwork:
    """Filled, with batch statistics of a video: the input of a deep network would else hardly reach its logits."""
    deterministic_weights(model).double()
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    for clip in torch.split(video(8, batch=2), clips):
        model(clip)
    reset(model)
    return model.eval()


def video(frames: int, batch: int = 1, side: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(batch, 3, frames, side, side, generator=generator, dtype=torch.float64)


def test_two_sided_shift_is_that_of_the_paper() -> None:
    """Against the published formula on (N, T, C, H, W), two clips of four frames."""
    clips, frames, channels = 2, 4, 19
    x = torch.rand(clips, frames, channels, 3, 5)
    fold = channels // 8
    wanted = torch.zeros_like(x)
    wanted[:, :-1, :fold] = x[:, 1:, :fold]
    wanted[:, 1:, fold : 2 * fold] = x[:, :-1, fold : 2 * fold]
    wanted[:, :, 2 * fold :] = x[:, :, 2 * fold :]
    got = TwoSidedShift(channels, frames)(x.transpose(0, 1).flatten(0, 1))
    assert torch.equal(got.unflatten(0, (frames, clips)).transpose(0, 1), wanted)


@torch.no_grad()
@pytest.mark.parametrize("parts", [[5], [1] * 5, [2, 1, 2]])
def test_one_sided_shift_takes_the_frame_before(parts: list[int]) -> None:
    """In every chunking; before the first frame there are zeros."""
    clips, frames, channels = 2, 5, 19
    x = torch.rand(frames * clips, channels, 3, 5)
    fold = channels // 8
    wanted = x.clone()
    wanted[clips:, :fold] = x[:-clips, :fold]
    wanted[:clips, :fold] = 0.0
    shift = OneSidedShift(clips, channels, (3, 5))
    got = torch.cat([shift(part) for part in torch.split(x, [part * clips for part in parts])])
    assert torch.equal(got, wanted)
    assert torch.equal(shift.buffer, x[-clips:, :fold])


@pytest.mark.parametrize("network", NETWORKS)
def test_buffers(network: str) -> None:
    """Which blocks are shifted, and the shapes of all states."""
    with torch.device("meta"):
        model = build_stream(network=network, num_classes=5)
    states = stream_state(model)
    assert {(info.form, info.frames_held) for info in states.values()} == {(StateForm.FIFO, 1)}
    assert [tuple(model.get_buffer(name).shape) for name in states] == [(1, c, n, n) for c, n in BUFFERS[network]]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_entry_tells_the_truth(entry: ModelEntry) -> None:
    """Parameters exact; multiply-adds as without shifts, for the frames of one call."""
    with torch.device("meta"):
        model = entry.build()
    assert isinstance(model, FrameNetwork)
    assert count_parameters(model) == entry.parameters
    assert bool(stream_state(model)) == entry.stream
    macs = count_macs(model, (1, 3, entry.frames_per_call, 224, 224)) / entry.frames_per_call
    network = entry.name.removeprefix("tsm_").removesuffix("_stream")
    assert macs == pytest.approx({**MACS, "mobilenet_v2": 300e6, "resnet50": 4.09e9}[network], rel=0.01)


@torch.no_grad()
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("parts", [[1] * 6, [4, 2], [2, 1, 3]], ids=["single", "chunks", "uneven"])
def test_any_chunking_equals_the_whole_clip(network: str, parts: list[int]) -> None:
    """Logits and states, of two videos at once."""
    model, clip = small(network, batch_size=2), video(6, batch=2)
    whole = model(clip)
    states = {name: model.get_buffer(name).clone() for name in stream_state(model)}
    reset(model)
    logits = [model(part) for part in torch.split(clip, parts, dim=2)]
    torch.testing.assert_close(logits[-1], whole, rtol=0, atol=TOLERANCE * float(whole.abs().max()))
    for name, wanted in states.items():
        torch.testing.assert_close(model.get_buffer(name), wanted, rtol=0, atol=TOLERANCE * float(wanted.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("network", NETWORKS)
def test_frame_logits_are_those_of_single_frames(network: str) -> None:
    model, clip = small(network), video(4)
    every = model.frame_logits(clip)
    reset(model)
    single = torch.stack([model(frame) for frame in torch.split(clip, 1, dim=2)], dim=1)
    torch.testing.assert_close(every, single, rtol=0, atol=TOLERANCE * float(single.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("network", NETWORKS)
def test_every_state_matters(network: str) -> None:
    """Clearing any one buffer changes the next logits."""
    model, clip = small(network), video(3)
    model(clip[:, :, :2])
    saved = {name: model.get_buffer(name).clone() for name in stream_state(model)}
    wanted = model(clip[:, :, 2:])
    for cleared in saved:
        for name, value in saved.items():
            model.get_buffer(name).copy_(torch.zeros_like(value) if name == cleared else value)
        assert (model(clip[:, :, 2:]) - wanted).abs().max() > 1e-3 * wanted.abs().max(), cleared


@torch.no_grad()
@pytest.mark.parametrize("network", NETWORKS)
def test_clips_of_a_batch_do_not_mix(network: str) -> None:
    """And the order of the frames counts."""
    model = settled(build_clip(network=network, num_classes=5, resolution=40, frames=8))
    clips = video(8, batch=2) * torch.linspace(-1.0, 2.0, 8).view(1, 1, 8, 1, 1)
    together = model(clips)
    alone = torch.cat([model(clip[None]) for clip in clips])
    torch.testing.assert_close(together, alone, rtol=0, atol=TOLERANCE * float(alone.abs().max()))
    assert (model(clips.flip(2)) - together).abs().max() > 1e-2 * together.abs().max()


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.parametrize("network", ["mobilenet_v2", "mobilenet_v3_small"])
def test_export_mutates_exactly_the_states(network: str) -> None:
    """A one-frame graph joins each buffer with its channels once, and its rollout equals the module."""
    model, clip = small(network), video(3)
    # The exported program shares the module's buffers, so the module is rolled as a copy.
    eager = copy.deepcopy(model)
    exported = torch.export.export(model, (clip[:, :, :1],), strict=False).run_decompositions({})
    assert sorted(exported.graph_signature.buffers_to_mutate.values()) == sorted(stream_state(model))
    targets = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert targets.count("aten.cat.default") == len(stream_state(model))
    banned = {"clone", "detach", "_to_copy", "index"}
    assert not [t for t in targets if banned & set(t.split(".")[1:2])]
    step = exported.module()
    for frame in torch.split(clip, 1, dim=2):
        with torch.no_grad():
            torch.testing.assert_close(step(frame), eager(frame), rtol=TOLERANCE, atol=TOLERANCE)


def test_wrong_inputs_are_refused() -> None:
    with pytest.raises(UsageError, match=r"got a video of shape .*, expected .* = \(1, 3, any, 40, 40\)"):
        small("mobilenet_v2")(video(1, batch=2))
    with pytest.raises(UsageError, match=r"expected .* = \(any, 3, 8, 40, 40\)\. Build it with .* number of frames"):
        build_clip(network="mobilenet_v2", num_classes=5, resolution=40)(video(4))
    with pytest.raises(SourceError, match=r"tsm_resnet50 cannot take 1 frames per call\. It takes 2 or more"):
        registry.get("tsm_resnet50").build(frames=1)
    with pytest.raises(SourceError, match="no TSM of 'vgg'; there are mobilenet_v2"):
        build_clip(network="vgg", num_classes=5)


def test_clips_are_built_for_their_frames() -> None:
    entry = registry.get("tsm_mobilenet_v3_small")
    assert entry.build(num_classes=5, resolution=32)(video(8, side=32).float()).shape == (1, 5)
    assert entry.build(num_classes=5, resolution=32, frames=3)(video(3, side=32).float()).shape == (1, 5)


@pytest.mark.parametrize("network", ["mobilenet_v3_small", "resnet50"])
def test_streams_can_be_trained_on_clips(network: str) -> None:
    """Through the logits of all frames; the state is cut off from the gradient."""
    model = build_stream(network=network, num_classes=5, resolution=64, batch_size=2).double().train()
    for _ in range(2):
        torch.autograd.backward(model.frame_logits(video(3, batch=2, side=64)).mean(1).square().sum())
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []
