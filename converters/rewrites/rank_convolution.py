"""3D convolution as 2D convolutions, exactly.

    y[t] = sum over k of conv2d(x[t * stride + k * dilation], W[:, :, k])

One output frame (a streaming step) and a whole clip are the same formula; frames are the batch of the 2D
convolution. Four spellings, chosen by shape and recipe:

- kernel 1 in time: one 2D convolution of all frames;
- depthwise and 1x1 in space: one depthwise convolution over the picture (T, H * W), or a sum of products,
  where the recipe asks for one;
- one output frame: the frames stacked as channels, one 2D convolution with the same groups;
- anything else: a sum of 2D convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from mvtool.converters.recipe import Recipe, TemporalForm
from mvtool.converters.rewrites.folded import Folded, every, permute
from mvtool.converters.rewrites.rank import Constant, RankLowering, lowers

aten = torch.ops.aten


@dataclass(frozen=True)
class Geometry:
    """Numbers of one 3D convolution; each triple is (time, height, width)."""

    stride: tuple[int, int, int]
    padding: tuple[int, int, int]
    dilation: tuple[int, int, int]
    groups: int
    kernel: tuple[int, int, int]

    def frames_out(self, frames: int) -> int:
        """Output frames for `frames` input frames, padding already applied."""
        return (frames - self.dilation[0] * (self.kernel[0] - 1) - 1) // self.stride[0] + 1

    def temporal(self, weight: Tensor) -> bool:
        """Whether it is depthwise and over time only; `weight` is (O, C, T, H, W)."""
        pointwise = self.kernel[1:] == (1, 1) and self.stride[1:] == (1, 1) and self.padding[1:] == (0, 0)
        return pointwise and self.groups == weight.shape[0] and weight.shape[1] == 1

    def tap(self, recipe: Recipe, value: Folded, k: int) -> Tensor:
        """Input frames that kernel tap `k` multiplies, (T_out, C, H, W)."""
        frames, first = value.canonical(), k * self.dilation[0]
        count = self.frames_out(frames.shape[0])
        if count == frames.shape[0]:
            return frames
        if count == 1 and (alone := value.alone(first, first + 1)) is not None:
            return alone.canonical()
        return every(recipe, frames, first, count, self.stride[0])

    def conv2d(self, frames: Tensor, weight: Tensor, bias: Tensor | None, groups: int | None = None) -> Tensor:
        """The spatial part."""
        return F.conv2d(
            frames, weight, bias, self.stride[1:], self.padding[1:], self.dilation[1:], groups or self.groups
        )


def is_temporal(node: fx.Node, weight: Tensor) -> bool:
    """Whether an `aten.conv3d` with numbers as padding is depthwise and over time only, so that `TemporalForm` is its choice."""
    given: list[Any] = [*node.args[3:], *(1, 0, 1, 1)[len(node.args[3:]) :]]
    stride, padding, dilation = (_triple(value) for value in given[:3])
    kernel = _triple(tuple(weight.shape[2:]))
    geometry = Geometry(stride, padding, dilation, int(given[3]), kernel)
    return kernel[0] > 1 and geometry.temporal(weight)


@lowers(aten.conv3d.default, aten.conv3d.padding)
def conv3d(
    lowering: RankLowering,
    node: fx.Node,
    value: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Lower one 3D convolution."""
    if not isinstance(value, Folded) or not isinstance(weight, Constant):
        return NotImplemented
    kernel, steps = _triple(tuple(weight.value.shape[2:])), _triple(dilation)
    frames, amounts = _padded(value, padding, kernel, steps)
    geometry = Geometry(_triple(stride), amounts, steps, groups, kernel)
    offset = None if bias is None else lowering.hold(f"{node.name}_bias", lambda: bias.value)
    job = _Job(lowering, node.name, geometry, weight.value)
    form = _choose(lowering, node.name, geometry, weight.value, frames.shape)
    lowering.did(f"conv3d: {form.__doc__}")
    return Folded(form(job, frames, offset))


@lowers(aten.conv1d.default)
def conv1d(
    lowering: RankLowering,
    node: fx.Node,
    value: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """A 2D convolution over a picture of height 1: not every runtime delegates the 1D operator."""
    if not isinstance(value, Tensor) or value.dim() != 3 or not isinstance(weight, Constant):
        return NotImplemented
    lowering.did("conv1d as a 2D convolution over a picture of height 1")
    kernel = lowering.hold(f"{node.name}_weight", lambda: weight.value.unsqueeze(2))
    offset = None if bias is None else lowering.hold(f"{node.name}_bias", lambda: bias.value)
    picture = value.reshape(value.shape[0], value.shape[1], 1, value.shape[2])
    steps, border, spacing = (1, _single(stride)), (0, _single(padding)), (1, _single(dilation))
    result = F.conv2d(picture, kernel, offset, steps, border, spacing, groups)
    return result.reshape(result.shape[0], result.shape[1], result.shape[3])


@dataclass(frozen=True)
class _Job:
    lowering: RankLowering
    name: str
    geometry: Geometry
    weight: Tensor

    def held(self, role: str, make: Callable[[Tensor], Tensor]) -> Tensor:
        return self.lowering.hold(f"{self.name}_{role}", lambda: make(self.weight))

    def tap_weight(self, k: int) -> Tensor:
        return self.held(f"tap{k}", lambda w: w[:, :, k])

    def tap_factor(self, k: int) -> Tensor:
        return self.held(f"tap{k}", lambda w: w[:, 0, k].reshape(1, -1, 1, 1))


Form = Callable[[_Job, Folded, Tensor | None], Tensor]


def _choose(lowering: RankLowering, name: str, geometry: Geometry, weight: Tensor, shape: tuple[int, ...]) -> Form:
    if geometry.kernel[0] == 1:
        return _spatial
    temporal = lowering.recipe.temporal_of(name)
    if geometry.temporal(weight) and temporal is not TemporalForm.STACKED:
        return _time_rows if temporal is TemporalForm.DEPTHWISE else _products
    one_frame = geometry.frames_out(shape[2]) == 1
    if one_frame and (geometry.groups == 1 or temporal is TemporalForm.STACKED):
        return _stacked
    return _sum


def _spatial(job: _Job, value: Folded, bias: Tensor | None) -> Tensor:
    """one 2D convolution of all frames"""
    weight = job.held("weight", lambda w: w[:, :, 0])
    return job.geometry.conv2d(job.geometry.tap(job.lowering.recipe, value, 0), weight, bias)


def _time_rows(job: _Job, value: Folded, bias: Tensor | None) -> Tensor:
    """depthwise in time as a 2D convolution over (time, height * width)"""
    frames, geometry = value.canonical(), job.geometry
    count, channels, height, width = frames.shape
    weight = job.held("weight", lambda w: w[:, :, :, :, 0])
    # Through channels-last, where (T, H, W, C) to (1, T, H * W, C) is free.
    rows = frames.permute(0, 2, 3, 1).reshape(1, count, height * width, channels).permute(0, 3, 1, 2)
    result = F.conv2d(rows, weight, bias, (geometry.stride[0], 1), 0, (geometry.dilation[0], 1), channels)
    after = result.permute(0, 2, 3, 1).reshape(geometry.frames_out(count), height, width, channels)
    return after.permute(0, 3, 1, 2)


def _products(job: _Job, value: Folded, bias: Tensor | None) -> Tensor:
    """depthwise in time as a sum of products"""
    weights = [job.tap_factor(k) for k in _taps(job)]
    total = _add([job.geometry.tap(job.lowering.recipe, value, k) * weights[k] for k in _taps(job)])
    return total if bias is None else total + job.held("bias_picture", lambda _: bias.reshape(1, -1, 1, 1))


def _stacked(job: _Job, value: Folded, bias: Tensor | None) -> Tensor:
    """one output frame as a 2D convolution of frames stacked as channels"""
    window = value.as_order((1, 2, 3, 4))
    if window.shape[1] != job.geometry.kernel[0]:
        window = permute(torch.cat([job.geometry.tap(job.lowering.recipe, value, k) for k in _taps(job)]), (1, 0, 2, 3))
    # (C, T, H, W) to (1, C * T, H, W): the taps of a channel stay together, as in the weight.
    stack = window.reshape(1, -1, *window.shape[2:])
    return job.geometry.conv2d(stack, job.held("weight", lambda w: w.flatten(1, 2)), bias)


def _sum(job: _Job, value: Folded, bias: Tensor | None) -> Tensor:
    """a sum of 2D convolutions, one per kernel tap"""
    parts = []
    for k in _taps(job):
        parts.append(
            job.geometry.conv2d(
                job.geometry.tap(job.lowering.recipe, value, k), job.tap_weight(k), bias if k == 0 else None
            )
        )
    return _add(parts)


def _taps(job: _Job) -> range:
    return range(job.geometry.kernel[0])


def _add(parts: list[Tensor]) -> Tensor:
    return reduce(torch.add, parts)


def _padded(
    value: Folded, padding: Any, kernel: tuple[int, int, int], dilation: tuple[int, int, int]
) -> tuple[Folded, tuple[int, int, int]]:
    """Pad in time, and in space where both sides differ; returns the padding left to the 2D operators.

    PyTorch's padding="same" puts the odd cell after.
    """
    if padding == "valid":
        padding = 0
    if padding != "same":
        time, height, width = _triple(padding)
        return _pad(value, (0, 0, 0, 0, 0, 0, time, time)), (0, height, width)
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    (t0, t1), (h0, h1), (w0, w1) = ((amount // 2, amount - amount // 2) for amount in total)
    if (h0, w0) == (h1, w1):
        return _pad(value, (0, 0, 0, 0, 0, 0, t0, t1)), (0, h0, w0)
    return _pad(value, (w0, w1, h0, h1, 0, 0, t0, t1)), (0, 0, 0)


def _pad(value: Folded, amounts: tuple[int, ...]) -> Folded:
    return Folded(F.pad(value.canonical(), amounts)) if any(amounts) else value


def _triple(value: Any) -> tuple[int, int, int]:
    if isinstance(value, int):
        return (value, value, value)
    numbers = tuple(int(v) for v in value)
    return numbers * 3 if len(numbers) == 1 else numbers  # type: ignore[return-value]


def _single(value: Any) -> int:
    return int(value) if isinstance(value, int) else int(value[0])
