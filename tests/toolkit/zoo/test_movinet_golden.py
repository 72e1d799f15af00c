"""Every MoViNet golden file, through the importer its keys ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mvtool.streaming import reset
from mvtool.zoo import registry
from mvtool.zoo.checkpoints import LoadedWeights, load_weights
from mvtool.zoo.movinet import MoViNet

TOLERANCE = 1e-5
FAST = [
    *("tfm_movinet_a0_base", "tfm_movinet_a0_stream", "tfm_movinet_a0_stream_3d", "tfm_movinet_a0_stream_3d_2plus1d"),
    *("tfm_movinet_a1_base", "tfm_movinet_a1_stream", "tfm_movinet_a2_base", "tfm_movinet_a2_stream"),
    *("tfm_movinet_t0_base", "tfm_movinet_t0_stream"),
    *("atze_movinet_a0_base", "atze_movinet_a0_stream", "atze_movinet_a1_base", "atze_movinet_a1_stream"),
    *("atze_movinet_a2_base", "atze_movinet_a2_stream"),
]
SLOW = [
    *("tfm_movinet_a3_base", "tfm_movinet_a3_stream", "tfm_movinet_a4_base", "tfm_movinet_a4_stream"),
    *("tfm_movinet_a5_base", "tfm_movinet_a5_stream"),
    *("atze_movinet_a3_base", "atze_movinet_a4_base", "atze_movinet_a5_base"),
]
ALL = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]

Loader = Callable[[str], Any]


def write(golden: Any, folder: Path) -> Path:
    path = folder / "weights.safetensors"
    save_file({key: torch.from_numpy(array) for key, array in golden.tensors().items()}, path)
    return path


def build(golden: Any, folder: Path, **options: Any) -> tuple[MoViNet, LoadedWeights]:
    size = golden.content["input"]
    # 3d_2plus1d is the training form of the stream: the same weights with 5 axes.
    entry = registry.get(golden.variant.removesuffix("_3d_2plus1d"))
    model = entry.build(resolution=(size["height"], size["width"]), **options)
    assert isinstance(model, MoViNet)
    return model, load_weights(model, write(golden, folder))


def error(got: torch.Tensor, wanted: list[float], scale: list[float]) -> float:
    difference = np.abs(got.numpy()[: len(wanted)] - np.asarray(wanted)).max()
    return float(difference / np.abs(scale).max())


@torch.no_grad()
@pytest.mark.parametrize("name", ALL)
def test_golden(name: str, load_golden: Loader, tmp_path: Path) -> None:
    """Logits after every call and of the whole clip."""
    golden = load_golden(f"movinet/{name}")
    content = golden.content
    model, loaded = build(golden, tmp_path)
    counters = sum("num_batches_tracked" in t["name"] for t in content["tensors"])
    assert loaded.tensors_used == len(content["tensors"]) - counters
    clip = torch.from_numpy(golden.clip())
    chunks = torch.split(clip, content["input"]["frames_per_call"], dim=2)
    logits = torch.empty(0)
    for k, chunk in enumerate(chunks):
        logits = model(chunk)[0]
        if content["calls"]:
            call = content["calls"][k]
            assert error(logits, call["first"], content["logits"]) < TOLERANCE
            assert int(logits.argmax()) == call["argmax"]
    assert error(logits, content["logits"], content["logits"]) < TOLERANCE
    assert int(logits.argmax()) == int(np.argmax(content["logits"]))
    reset(model)
    assert error(model(clip)[0], content["clip_logits"], content["clip_logits"]) < TOLERANCE


@torch.no_grad()
def test_golden_states(load_golden: Loader, tmp_path: Path) -> None:
    """The stream buffers equal the official ones; a running mean times the count is the official running sum."""
    golden = load_golden("movinet/tfm_movinet_a0_stream")
    model, _ = build(golden, tmp_path)
    for frame in torch.split(torch.from_numpy(golden.clip()), 1, dim=2):
        model(frame)
    checked = 0
    for name, state in golden.content["states"].items():
        layer = name.removeprefix("state_").rpartition("_stream_buffer")[0]
        if layer:
            mine = model.get_buffer(f"{layer}.temporal.conv.stream.buffer")
        elif name.endswith("_pool_buffer"):
            layer = name.removeprefix("state_").removesuffix("_pool_buffer")
            pool = "head.pool.buffer" if layer == "head" else f"{layer}.excite.pool.buffer"
            mine = model.get_buffer(pool) * model.get_buffer("clock.frame_count")
        else:
            assert state["value"] == float(model.get_buffer("clock.frame_count"))
            continue
        assert float(mine.norm()) == pytest.approx(state["l2"], rel=1e-5)
        checked += 1
    assert checked == 27


@torch.no_grad()
@pytest.mark.parametrize(
    ("alternative", "gate", "head"),
    [
        ("gate_clip_0.2x_0.5", "keras", "swish"),
        ("gate_relu6_over_6", "relu6", "swish"),
        ("head_hard_swish", "ref", "hard_swish"),
    ],
)
def test_golden_alternatives(alternative: str, gate: str, head: str, load_golden: Loader, tmp_path: Path) -> None:
    """The same weights with another gate, or another activation in the head."""
    golden = load_golden("movinet/tfm_movinet_a0_stream")
    content = golden.content
    model, _ = build(golden, tmp_path, head_activation=head)
    load_weights(model, tmp_path / "weights.safetensors", gate=gate)
    logits = model(torch.from_numpy(golden.clip()))[0]
    assert error(logits, content["alternatives"][alternative]["first"], content["clip_logits"]) < 2e-6
    assert error(logits, content["clip_logits"][:16], content["clip_logits"]) > 4e-6
