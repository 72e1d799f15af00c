from __future__ import annotations

import torch

from mvtool.streaming import stream_state
from mvtool.zoo import registry
from mvtool.zoo.movinet import MoViNet
from mvtool.zoo.untrained import deterministic_weights


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
