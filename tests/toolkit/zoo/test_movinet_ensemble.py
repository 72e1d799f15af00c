from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mvtool.errors import UsageError
from mvtool.streaming import Gate, reset, stream_state
from mvtool.zoo import registry
from mvtool.zoo.movinet_ensemble import MeanOfLogits, MoViNetA6, TemporalEnsemble
from mvtool.zoo.untrained import deterministic_weights


def build(name: str, resolution: int = 32) -> MeanOfLogits:
    model = registry.get(name).build(num_classes=9, resolution=resolution)
    assert isinstance(model, MeanOfLogits)
    deterministic_weights(model)
    return model


@torch.no_grad()
def test_members_of_a_temporal_ensemble_get_alternate_frames() -> None:
    """Each member alone on its own frames, averaged; the members have different weights."""
    model = build("movinet_a0_base_ensemble")
    assert isinstance(model, TemporalEnsemble)
    clip = torch.rand(1, 3, 6, 32, 32)
    first, second = model.members
    expected = (first(clip[:, :, [0, 2, 4]]) + second(clip[:, :, [1, 3, 5]])) / 2
    torch.testing.assert_close(model(clip), expected)
    assert not torch.allclose(first(clip), second(clip))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "parts"), [("movinet_a0_stream_ensemble", [2, 4, 2, 4]), ("movinet_a6_stream", [3, 6, 3])]
)
def test_stream_equals_the_whole_clip(name: str, parts: list[int]) -> None:
    model, clip = build(name), torch.rand(1, 3, 12, 32, 32)
    whole = model(clip)
    reset(model)
    logits = [model(part) for part in torch.split(clip, parts, dim=2)]
    torch.testing.assert_close(logits[-1], whole, rtol=0, atol=1e-5 * float(whole.abs().max()))


@torch.no_grad()
def test_a6_feeds_a4_two_of_three_smaller_frames() -> None:
    model = build("movinet_a6_base", resolution=64)
    assert isinstance(model, MoViNetA6)
    a4, a5 = model.members
    assert a4.config.resolution == (58, 58)  # type: ignore[union-attr]
    clip = torch.rand(1, 3, 6, 64, 64)
    frames = clip[0, :, [0, 1, 3, 4]].transpose(0, 1)
    small = functional.interpolate(frames, (58, 58), mode="bilinear").transpose(0, 1)[None]
    torch.testing.assert_close(model(clip), (a4(small) + a5(clip)) / 2)


def test_a6_resolutions() -> None:
    model = registry.get("movinet_a6_base").build()
    assert isinstance(model, MoViNetA6)
    assert [m.config.resolution for m in model._members()] == [(290, 290), (320, 320)]


@pytest.mark.parametrize(("name", "frames"), [("movinet_a0_stream_ensemble", 3), ("movinet_a6_stream", 4)])
def test_partial_steps_are_refused(name: str, frames: int) -> None:
    with pytest.raises(UsageError, match="with T a multiple of"):
        build(name)(torch.zeros(1, 3, frames, 32, 32))


def test_gate_reaches_all_members() -> None:
    model = build("movinet_a0_stream_ensemble")
    model.gate = Gate.RELU6
    assert [member.gate for member in model._members()] == [Gate.RELU6] * 2


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
@pytest.mark.slow
def test_export_mutates_exactly_the_states() -> None:
    """One step of two frames."""
    model, clip = build("movinet_a0_stream_ensemble"), torch.rand(1, 3, 2, 32, 32)
    exported = torch.export.export(model, (clip,), strict=False).run_decompositions({})
    assert sorted(exported.graph_signature.buffers_to_mutate.values()) == sorted(stream_state(model))
