from __future__ import annotations

import pytest
import torch
from torch import nn

from mvtool.streaming import stream_state
from mvtool.zoo import registry
from mvtool.zoo.movinet import MoViNet
from mvtool.zoo.untrained import DAMPING, blobs_and_grain, damp_branches, deterministic_weights, settle_norms


def build(seed: int) -> MoViNet:
    model = deterministic_weights(registry.get("movinet_a0_stream").build(resolution=64), seed)
    assert isinstance(model, MoViNet)
    return model


def test_same_seed_same_weights() -> None:
    first, again, other = (build(seed).state_dict() for seed in (0, 0, 1))
    for key, value in first.items():
        assert torch.equal(value, again[key]), key
        assert key.endswith("num_batches_tracked") or not torch.equal(value, other[key]), key


def test_ranges() -> None:
    state = build(0).state_dict()
    assert all(0.5 <= float(v) <= 1.5 for k, v in state.items() if k.endswith("rezero"))
    assert all(float(v.min()) >= 0.5 and float(v.max()) <= 1.5 for k, v in state.items() if k.endswith("running_var"))
    assert all(float(v.abs().max()) <= 0.2 for k, v in state.items() if k.endswith(("running_mean", "bias")))


@torch.no_grad()
def test_activations_neither_vanish_nor_explode() -> None:
    """Root mean square of every layer over a few frames, and logits that differ between clips."""
    model = build(0)
    sizes: list[float] = []
    for layer in model.layers():
        layer.register_forward_hook(lambda _m, _i, out: sizes.append(float(out.square().mean().sqrt())))
    first = model(torch.rand(1, 3, 4, 64, 64))
    assert min(sizes) > 0.1
    assert max(sizes) < 100.0
    assert not torch.allclose(first, model(torch.rand(1, 3, 4, 64, 64)), rtol=1e-3)


def test_state_and_constants_stay() -> None:
    model = build(0)
    assert all(float(model.get_buffer(name).abs().sum()) == 0.0 for name in stream_state(model))
    assert float(model.get_buffer("clock.one")) == 1.0


@pytest.mark.parametrize(
    ("model", "ends"),
    [
        # Of 1, 2, 3 and 2 blocks the first of each stage has no identity.
        ("video_mobile_former_1g", [f"blocks.{block}.mobile" for block in (2, 4, 5, 7)]),
        ("x2d", [f"stages.{stage}.{block}" for stage, blocks in enumerate((1, 2, 5, 3)) for block in range(1, blocks)]),
    ],
)
def test_damping_reaches_the_norms_that_end_residual_branches_and_nothing_else(model: str, ends: list[str]) -> None:
    entry = registry.get(model)
    before = deterministic_weights(entry.build()).state_dict()
    after = damp_branches(deterministic_weights(entry.build())).state_dict()
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert changed == {f"{end}.project.norm.weight" for end in ends}
    for key in changed:
        torch.testing.assert_close(after[key], DAMPING * before[key])


def logits_of(model: nn.Module, seed: int) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(blobs_and_grain((1, 3, 2, 64, 64), seed))
    return out


def test_settled_norms_keep_the_input_in_sight() -> None:
    """The fill alone forgets the video; with settled norms two videos differ by much more than any tolerance."""
    entry = registry.get("tvn_1")
    model = deterministic_weights(entry.build(resolution=64))
    before = [logits_of(model, seed) for seed in (1, 2)]
    settle_norms(model, blobs_and_grain((1, 3, 2, 64, 64)))
    after = [logits_of(model, seed) for seed in (1, 2)]
    spreads = [float((a - b).abs().max() / a.abs().max()) for a, b in (before, after)]
    assert spreads[0] < 1e-3
    assert spreads[1] > 2e-3
    assert spreads[1] > 20 * spreads[0]
    again = settle_norms(deterministic_weights(entry.build(resolution=64)), blobs_and_grain((1, 3, 2, 64, 64)))
    assert torch.equal(logits_of(again, 1), after[0])


def test_settling_leaves_no_stream_state_and_no_hook() -> None:
    model = deterministic_weights(registry.get("tsm_mobilenet_v3_small_stream").build(resolution=32))
    settle_norms(model, blobs_and_grain((1, 3, 4, 32, 32)))
    states = [model.get_buffer(name) for name in stream_state(model)]
    assert states
    assert not any(state.any() for state in states)
    assert not any(child._forward_pre_hooks for child in model.modules())


def test_norms_take_the_power_of_what_reaches_them() -> None:
    """Too few values say nothing, and a channel that is next to nothing is not blown up."""
    vectors, pictures = nn.BatchNorm1d(4).eval(), nn.BatchNorm2d(2).eval()
    settle_norms(vectors, torch.full((2, 4), 7.0))
    assert torch.equal(vectors.running_var, torch.ones(4))  # type: ignore[arg-type]
    assert pictures.running_mean is not None
    assert pictures.running_var is not None
    pictures.running_mean.fill_(0.5)
    x = torch.full((1, 2, 8, 8), 4.0)
    x[:, 1] = 1e-6
    settle_norms(pictures, x)
    torch.testing.assert_close(pictures.running_var, torch.tensor([16.0, 0.08]) ** 0.3, rtol=1e-2, atol=0.0)
    torch.testing.assert_close(pictures.running_mean, 0.5 * torch.tensor([4.0, 0.2828]) ** 0.3, rtol=1e-2, atol=0.0)
