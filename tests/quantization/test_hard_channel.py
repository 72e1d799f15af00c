"""Tuning pays where rounding hurts: one channel so wide that the others share a few steps of the scale."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
import torch
from normed_stream import SIZE, NormedStream, fake_quantized, int8_logits, normed_stream
from torch import Tensor, nn
from torch.nn import functional

from mvtool.quantization.fake_quantization import set_rounding
from mvtool.streaming.state import reset
from mvtool.training.stream_step import backward

FRAMES, BATCH, WIDER = 4, 32, 150.0


def stripes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """A bright stripe over noise that moves right, left, down or up by two pixels per frame."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    clips = torch.rand(count, 3, FRAMES, SIZE, SIZE, generator=generator) * 0.3
    starts = torch.randint(0, SIZE, (count,), generator=generator)
    for clip, label, start in zip(clips, labels.tolist(), starts.tolist(), strict=True):
        for t in range(FRAMES):
            place = (start + (2 * t if label % 2 == 0 else -2 * t)) % SIZE
            clip[:, t].select(-1 if label < 2 else -2, place).add_(0.7)
    return clips, labels


def train(module: nn.Module, parameters: Iterable[nn.Parameter], steps: int, rate: float, seed: int) -> None:
    optimizer = torch.optim.Adam(parameters, lr=rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        clips, labels = stripes(BATCH, seed + step)
        backward(module, clips, labels, subclips=1, label_smoothing=0.0)
        optimizer.step()


def int8_loss(stream: NormedStream) -> float:
    clips, labels = stripes(96, 7)
    return functional.cross_entropy(int8_logits(stream, clips, stripes(16, 9)[0]), labels).item()


@pytest.mark.slow
def test_tuning_lowers_the_loss_of_the_int8_artifact() -> None:
    stream = normed_stream(BATCH).train()
    train(stream, stream.parameters(), 300, 1e-2, seed=100)
    stream.eval()
    with torch.no_grad():  # nearly the same function, in ranges that int8 does not like
        stream.project_norm.weight[0] *= WIDER
        stream.project_norm.bias[0] *= WIDER
        stream.head.weight[:, 0] /= WIDER
    untuned = int8_loss(stream)
    control = normed_stream(BATCH)
    control.load_state_dict(stream.state_dict())
    train(control, control.parameters(), 100, 2e-3, seed=5000)
    module = fake_quantized(stream, BATCH, FRAMES)
    set_rounding(module, False)
    reset(module)
    module(stripes(BATCH, 50)[0])
    set_rounding(module, True)
    train(module, stream.parameters(), 100, 2e-3, seed=5000)
    tuned = int8_loss(stream)
    assert tuned < 0.8 * untuned
    assert tuned < 0.8 * int8_loss(control)
