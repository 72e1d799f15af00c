from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mvtool.errors import SourceError, UsageError
from mvtool.zoo import registry
from mvtool.zoo.macs import count_macs, count_parameters
from mvtool.zoo.tvn import TemporalPool, TinyVideoNet
from mvtool.zoo.tvn_table import ARCHITECTURES, Architecture, Block
from mvtool.zoo.untrained import deterministic_weights

PARAMETERS = {
    "tvn_1": (26_414_721, 25_720_110),
    "tvn_2": (109_438_487, 108_730_316),
    "tvn_3": (67_709_221, 66_841_042),
    "tvn_4": (43_669_005, 42_974_394),
    "tvn_m_1": (7_352_607, 7_308_876),
    "tvn_m_2": (5_528_460, 5_484_729),
}
GMACS = {"tvn_1": 4.326, "tvn_2": 34.61, "tvn_3": 53.64, "tvn_4": 25.92, "tvn_m_1": 5.350, "tvn_m_2": 5.033}
# Frames, height and width, and channels after every block.
SHAPES = {
    "1": [(1, 112, 256), (1, 56, 512), (1, 19, 512), (1, 10, 2048)],
    "2": [(2, 86, 256), (1, 43, 512), (1, 43, 1024), (1, 22, 1024), (1, 8, 2048), (1, 3, 2048), (1, 3, 2088)],
    "3": [(4, 80, 192), (4, 40, 1280), (2, 10, 512), (1, 5, 2560)],
    "4": [(4, 64, 256), (2, 32, 1536), (2, 11, 2048)],
    "m_1": [(2, 56, 96), (2, 14, 128)],
    "m_2": [(2, 56, 96), (2, 14, 128)],
}
ARCHITECTURE = {architecture.name: architecture for architecture in ARCHITECTURES}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_macs(name: str) -> None:
    """Exact counts, with and without the classifier, of the published structures with 339 classes."""
    entry = registry.get(name)
    with torch.device("meta"):
        model = entry.build()
    assert isinstance(model, TinyVideoNet)
    body = count_parameters(model) - count_parameters(model.classifier)
    assert (count_parameters(model), body) == PARAMETERS[name]
    assert entry.parameters == count_parameters(model)
    macs = count_macs(model, (1, 3, entry.frames, entry.resolution, entry.resolution))
    assert macs / 1e9 == pytest.approx(GMACS[name], rel=2e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_after_blocks(name: str) -> None:
    """What the layers were planned for is published, and is what comes out."""
    entry = registry.get(f"tvn_{name}")
    with torch.device("meta"):
        model = entry.build(num_classes=2)
        assert isinstance(model, TinyVideoNet)
        x = torch.empty(1, 3, entry.frames, entry.resolution, entry.resolution)
        seen = []
        for block in model.blocks:
            x = block(x)
            assert isinstance(block, nn.Sequential)
            assert tuple(x.shape[2:]) == block[-1].size
            seen.append((x.shape[2], x.shape[4], x.shape[1]))
    assert seen == SHAPES[name]


class Folded:
    """The published algorithm with the frames folded into the batch, in 2D operators, as an independent reference.

    Args:
        model: Gives the weights.
        blocks: Its rows.
    """

    def __init__(self, model: TinyVideoNet, blocks: tuple[Block, ...]) -> None:
        self.weights = model.state_dict()
        self.blocks = blocks
        self.at = ""
        self.frames = 0

    def __call__(self, video: Tensor) -> Tensor:
        self.frames = video.shape[2]
        x = video.transpose(1, 2).flatten(0, 1)
        for b, block in enumerate(self.blocks):
            for r in range(block.repeats):
                self.at = f"blocks.{b}.{r}."
                x = self.repeat(x, block, r)
        pooled = self.over_clip(x).flatten(1)
        return functional.linear(pooled, self.weights["classifier.weight"], self.weights["classifier.bias"])

    def repeat(self, x: Tensor, block: Block, r: int) -> Tensor:
        shortcut, frames = x, self.frames
        stride, time_stride = (block.space_stride, block.time_stride) if r == 0 else (1, 1)
        if block.inverted:
            x = self.conv(x, "path.widen", 1, "relu")
        if block.space_kernel > 1:
            x = self.spatial(x, block, stride)
        if (r == 0 or r % 2 == 0) and frames > 1 and block.time_kernel > 1:
            x = self.temporal(x, block, time_stride)
        if not block.inverted:
            x = self.conv(x, "path.expand", 1, None)
        if block.squeeze:
            hidden = functional.relu(self.dense(self.over_clip(x), "path.excite.reduce"))
            x = x * self.every_frame(torch.sigmoid(self.dense(hidden, "path.excite.expand")))
        if block.gate:
            x = x * self.every_frame(torch.sigmoid(self.dense(self.over_clip(x), "path.gate.dense")))
        if block.inverted:
            x = self.conv(x, "path.project", 1, None)
        if block.skip and self.frames == frames:
            x = x + self.conv(shortcut, "residual", stride if x.shape[3] != shortcut.shape[3] else 1, None)
        return act(x, block.act)

    def spatial(self, x: Tensor, block: Block, stride: int) -> Tensor:
        k = block.space_kernel
        if "pool" in block.spatial:
            return pool2d(x, (k, k), (stride, stride), block.spatial)
        x = self.conv(x, "path.reduce", 1, block.spatial_act)
        return self.conv(x, "path.spatial", stride, block.spatial_act)

    def temporal(self, x: Tensor, block: Block, stride: int) -> Tensor:
        """Frames become rows of a picture (N, C, T, H W)."""
        _, channels, height, width = x.shape
        rows = x.unflatten(0, (-1, self.frames)).permute(0, 2, 1, 3, 4).flatten(3)  # type: ignore[no-untyped-call]
        if block.temporal == "1d":
            rows = self.norm(same2d(rows, self.weight("path.temporal")[..., 0], (stride, 1), 1), "path.temporal")
            rows = act(rows, block.temporal_act)
        else:
            rows = pool2d(rows, (block.time_kernel, 1), (stride, 1), block.temporal)
        self.frames, channels = rows.shape[2], rows.shape[1]
        return rows.transpose(1, 2).reshape(-1, channels, height, width)

    def conv(self, x: Tensor, name: str, stride: int, activation: str | None) -> Tensor:
        weight = self.weight(name)[:, :, 0]
        y = self.norm(same2d(x, weight, (stride, stride), x.shape[1] // weight.shape[1]), name)
        return y if activation is None else act(y, activation)

    def norm(self, x: Tensor, name: str) -> Tensor:
        values = [
            self.weights[f"{self.at}{name}.norm.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        ]
        mean, variance, scale, shift = values
        return functional.batch_norm(x, mean, variance, scale, shift, eps=1e-5)

    def dense(self, x: Tensor, name: str) -> Tensor:
        return functional.conv2d(
            x, self.weights[f"{self.at}{name}.weight"][:, :, 0], self.weights[f"{self.at}{name}.bias"]
        )

    def weight(self, name: str) -> Tensor:
        weight: Tensor = self.weights[f"{self.at}{name}.conv.weight"]
        return weight

    def over_clip(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)
        return means.reshape(-1, self.frames, *means.shape[1:]).mean(1)

    def every_frame(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.frames, 0)


def act(x: Tensor, name: str) -> Tensor:
    return functional.relu(x) if name == "relu" else x * functional.relu6(x + 3) / 6


def same_pads(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> list[int]:
    pads: list[int] = []
    for n, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max((math.ceil(n / s) - 1) * s + k - n, 0)
        pads = [total // 2, total - total // 2, *pads]
    return pads


def same2d(x: Tensor, weight: Tensor, stride: tuple[int, int], groups: int) -> Tensor:
    pads = same_pads(x, (weight.shape[2], weight.shape[3]), stride)
    return functional.conv2d(functional.pad(x, pads), weight, None, stride, groups=groups)


def pool2d(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], kind: str) -> Tensor:
    pads = same_pads(x, kernel, stride)
    if kind == "maxpool":
        return functional.max_pool2d(functional.pad(x, pads, value=-math.inf), kernel, stride)
    total, cells = (functional.avg_pool2d(functional.pad(t, pads), kernel, stride) for t in (x, torch.ones_like(x)))
    return total / cells


def lively(model: TinyVideoNet, clip: Tensor) -> None:
    """Weights in double precision with which the logits depend on the clip: batch statistics are `clip`'s own.

    A variance of two or three equal values is kept from being next to nothing.
    """
    deterministic_weights(model).double()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm3d)]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(clip)
    model.eval()
    for norm in norms:
        norm.get_buffer("running_var").clamp_(min=0.01)


def random_clip(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1


def narrow(architecture: Architecture) -> tuple[Block, ...]:
    return tuple(replace(block, filters=block.filters // 8) for block in architecture.blocks)


def swish(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    return tuple(replace(b, spatial_act="hard_swish", temporal_act="hard_swish", act="hard_swish") for b in blocks)


AVERAGE = (
    Block("avgpool", 4, 1, "avgpool", 3, 2, 16, 2, 3, 0.5, 1, 1),
    Block("depth", 1, 1, "avgpool", 2, 1, 16, 2, 2, 0, 0, 1, 1),
)
NETWORKS = {
    **{a.name: (narrow(a), a.frames) for a in ARCHITECTURES},
    **{f"{a.name} swish": (swish(narrow(a)), a.frames) for a in ARCHITECTURES},
    "1 longer": (narrow(ARCHITECTURE["1"]), 7),
    "2 one frame": (narrow(ARCHITECTURE["2"]), 1),
    "averages over time": (AVERAGE, 5),
}


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_frames_folded_into_the_batch(name: str) -> None:
    """All structures at an eighth of their width, odd picture sizes, two clips at once."""
    blocks, frames = NETWORKS[name]
    model = TinyVideoNet(blocks, 5, (frames, 45, 38), TemporalPool.MEAN).eval()
    clip = random_clip(2, 3, frames, 45, 38)
    lively(model, clip)
    wanted = Folded(model, blocks)(clip)
    assert (wanted[0] - wanted[1]).abs().max() > 1e-2 * wanted.abs().max()
    torch.testing.assert_close(model(clip), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@torch.no_grad()
def test_softmax_pool_over_time() -> None:
    """Sum over t of x_t softmax(x_t / sqrt(T)) of every frame's own logits."""
    model = TinyVideoNet(narrow(ARCHITECTURE["m_1"]), 4, (4, 32, 32), TemporalPool.SOFTMAX)
    clip = random_clip(2, 3, 4, 32, 32)
    lively(model, clip)
    features = model.blocks(clip).mean((3, 4))
    frames = features.shape[2]
    assert frames == 4
    x = torch.stack([model.classifier(features[:, :, t]) for t in range(frames)], 1)
    wanted = (x * torch.softmax(x / math.sqrt(frames), 1)).sum(1)
    torch.testing.assert_close(model(clip), wanted, rtol=1e-7, atol=1e-7)
    assert (x.mean(1) - wanted).abs().max() > 1e-4 * wanted.abs().max()


def test_tvn_1_with_swish_has_the_same_weights() -> None:
    """The paper's "TVN-1 + swish"."""
    with torch.device("meta"):
        plain, swish = registry.get("tvn_1").build(), registry.get("tvn_1").build(activation="hard_swish")
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in swish.state_dict().items()}
    assert {m.activation for m in swish.modules() if getattr(m, "activation", None)} == {"hard_swish", "relu"}
    assert {m.activation for m in plain.modules() if getattr(m, "activation", None)} == {"relu"}


def test_options_without_meaning_are_refused() -> None:
    entry = registry.get("tvn_m_2")
    with pytest.raises(SourceError, match=r"'swish' is no activation .*; known are relu, hard_swish"):
        entry.build(activation="swish")
    with pytest.raises(SourceError, match="'max' is no temporal pool; known are mean, softmax"):
        entry.build(temporal_pool="max")
    with pytest.raises(SourceError, match="cannot take pictures of 24x24"):
        entry.build(resolution=24)


def test_wrong_shapes_are_refused() -> None:
    """The layers depend on the clip, so another length is no accident to be passed over."""
    model = registry.get("tvn_m_2").build(resolution=32, num_classes=2)
    for shape in ((1, 3, 3, 32, 32), (1, 3, 2, 32, 33), (3, 2, 32, 32)):
        with pytest.raises(UsageError, match=r"expected \(N, C, T, H, W\) = \(any, 3, 2, 32, 32\)"):
            model(torch.zeros(shape))


def test_training_reaches_every_weight() -> None:
    """Dropout acts, and gradients reach every parameter."""
    blocks = narrow(ARCHITECTURE["m_1"])
    model = TinyVideoNet(blocks, 3, (2, 32, 32), TemporalPool.MEAN)
    deterministic_weights(model)
    clip = torch.rand(2, 3, 2, 32, 32)
    torch.manual_seed(0)
    model.train()
    assert not torch.equal(model(clip), model(clip))
    model.dropout.p = 0.0
    model(clip).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
def test_exports_without_anything_that_depends_on_data() -> None:
    """Sizes are constants of the graph: no operator makes or reads an index."""
    model = registry.get("tvn_m_1").build(resolution=48)
    exported = torch.export.export(model, (torch.rand(1, 3, 2, 48, 48),), strict=False).run_decompositions({})
    targets = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert not [t for t in targets if any(word in t for word in ("arange", "index", "gather", "sym_size"))]
    assert not exported.graph_signature.buffers_to_mutate
