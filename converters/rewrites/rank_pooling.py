"""2D forms of poolings.

An average pool becomes a depthwise convolution with constant weights, times a constant map where the
window leaves the picture: `avg_pool(count_include_pad=False)` itself is not delegated in TFLite. A 3D pool is
a 2D pool of every frame followed by a pool over frames.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from mvtool.converters.rewrites.folded import Folded
from mvtool.converters.rewrites.rank import RankLowering, lowers
from mvtool.converters.rewrites.rank_convolution import _triple

aten = torch.ops.aten


@lowers(aten.avg_pool2d.default)
def avg_pool2d(
    lowering: RankLowering,
    node: fx.Node,
    value: Any,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Any:
    """Average pool as a depthwise convolution."""
    if not isinstance(value, Tensor) or value.dim() != 4:
        return NotImplemented
    if ceil_mode:
        lowering.left(node, "ceil_mode lets windows leave the padded picture")
        return NotImplemented
    lowering.did("average pool as a depthwise convolution")
    sizes = _pair(kernel)
    return _average(
        lowering, node.name, value, sizes, _pair(stride or kernel), _pair(padding), count_include_pad, divisor
    )


def _average(
    lowering: RankLowering,
    name: str,
    frames: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    channels, area = int(frames.shape[1]), kernel[0] * kernel[1]
    weight = lowering.hold(f"{name}_window", lambda: torch.full((channels, 1, *kernel), 1.0 / (divisor or area)))
    pooled = F.conv2d(frames, weight, None, stride, padding, 1, channels)
    if padding == (0, 0) or count_include_pad or divisor:
        return pooled
    size = (int(frames.shape[2]), int(frames.shape[3]))
    return pooled * lowering.hold(f"{name}_correction", lambda: area / _counts(size, kernel, stride, padding))


def _counts(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Cells of the picture in each window, (1, 1, H_out, W_out)."""
    return F.conv2d(torch.ones(1, 1, *size), torch.ones(1, 1, *kernel), None, stride, padding)


@lowers(aten.max_pool2d.default)
def max_pool2d(
    lowering: RankLowering,
    node: fx.Node,
    value: Any,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:
    """The same operator with every argument said: exporters read the stride where PyTorch may leave it out."""
    if not isinstance(value, Tensor):
        return NotImplemented
    sizes = (_pair(kernel), _pair(stride or kernel), _pair(padding), _pair(dilation))
    return aten.max_pool2d.default(value, *sizes, ceil_mode)


@lowers(aten.avg_pool3d.default)
def avg_pool3d(
    lowering: RankLowering,
    node: fx.Node,
    value: Any,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Any:
    """3D average pool: every frame, then over frames."""
    if not isinstance(value, Folded):
        return NotImplemented
    window, steps, pads = _triple(kernel), _triple(stride or kernel), _triple(padding)
    if ceil_mode or divisor or (pads[0] and not count_include_pad):
        lowering.left(node, "ceil_mode, divisor_override or uncounted padding in time has no 2D form here")
        return NotImplemented
    lowering.did("3D average pool as 2D pool and mean over frames")
    frames = value.canonical()
    if window[1:] != (1, 1) or steps[1:] != (1, 1):
        frames = _average(lowering, node.name, frames, window[1:], steps[1:], pads[1:], count_include_pad, None)
    if window[0] == 1 and steps[0] == 1:
        return Folded(frames)
    if pads[0]:
        frames = F.pad(frames, (0, 0, 0, 0, 0, 0, pads[0], pads[0]))
    return Folded(reduce(torch.add, _windows(frames, window[0], steps[0])) * (1.0 / window[0]))


@lowers(aten.max_pool3d.default, aten.max_pool3d_with_indices.default)
def max_pool3d(
    lowering: RankLowering,
    node: fx.Node,
    value: Any,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:
    """3D maximum pool: every frame, then over frames."""
    if not isinstance(value, Folded):
        return NotImplemented
    window, steps, pads = _triple(kernel), _triple(stride or kernel), _triple(padding)
    if ceil_mode or _triple(dilation) != (1, 1, 1):
        lowering.left(node, "ceil_mode or dilation in a maximum pool has no 2D form here")
        return NotImplemented
    lowering.did("3D maximum pool as 2D pool and maximum over frames")
    frames = value.canonical()
    if window[1:] != (1, 1) or steps[1:] != (1, 1):
        frames = F.max_pool2d(frames, window[1:], steps[1:], pads[1:])
    if pads[0]:
        # Repeating the edge frame gives the same maximum as minus infinity, and int8 has no infinity.
        first, last = frames[:1], frames[-1:]
        frames = torch.cat([first] * pads[0] + [frames] + [last] * pads[0])
    if window[0] > 1 or steps[0] > 1:
        frames = reduce(torch.maximum, _windows(frames, window[0], steps[0]))
    result = Folded(frames)
    return result if node.target is aten.max_pool3d.default else (result, None)


@lowers(aten.adaptive_avg_pool3d.default, aten._adaptive_avg_pool3d.default)
def adaptive_avg_pool3d(lowering: RankLowering, node: fx.Node, value: Any, size: list[int]) -> Any:
    """Adaptive average pool to sizes that divide the input."""
    if not isinstance(value, Folded):
        return NotImplemented
    shape = value.shape[2:]
    wanted = [s if s is not None else n for s, n in zip(size, shape, strict=True)]
    if any(n % w for n, w in zip(shape, wanted, strict=True)):
        lowering.left(node, f"adaptive pool from {shape} to {wanted} has windows of unequal size")
        return NotImplemented
    whole = [axis for axis, (n, w) in enumerate(zip(shape, wanted, strict=True), 2) if w == 1 and n > 1]
    frames = value.canonical()
    if whole:
        frames = frames.mean([Folded(frames).position(axis) for axis in whole], True)
    rest = [1 if axis in whole else n // w for axis, (n, w) in enumerate(zip(shape, wanted, strict=True), 2)]
    lowering.did("adaptive average pool as a mean")
    if rest == [1, 1, 1]:
        return Folded(frames)
    return avg_pool3d(lowering, node, Folded(frames), rest)


def _windows(frames: Tensor, window: int, step: int) -> list[Tensor]:
    """For each place in the window, the frames that stand there."""
    count = (frames.shape[0] - window) // step + 1
    return [aten.slice.Tensor(frames, 0, k, k + (count - 1) * step + 1, step) for k in range(window)]


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    numbers = tuple(int(v) for v in value)
    return numbers * 2 if len(numbers) == 1 else numbers  # type: ignore[return-value]
