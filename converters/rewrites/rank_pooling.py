"""2D forms of poolings.

An average pool becomes a depthwise convolution with constant weights, times a constant map where windows
differ in what they count: `avg_pool(count_include_pad=False)` itself is not delegated in TFLite. A 3D pool is
a 2D pool of every frame followed by a pool over frames. `ceil_mode` becomes cells after the end of an axis:
zeros that the map does not count, or for a maximum the last cell again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from mvtool.converters import places
from mvtool.converters.recipe import Recipe
from mvtool.converters.rewrites.folded import Folded, every
from mvtool.converters.rewrites.rank import RankLowering, lowers
from mvtool.converters.rewrites.rank_convolution import _triple
from mvtool.errors import ConversionError
from mvtool.ports import Runtime

aten = torch.ops.aten


@dataclass(frozen=True)
class Windows:
    """The windows of a pool along one axis.

    Attributes:
        size: Cells of the input.
        kernel: Cells of a window.
        stride: Cells from one window to the next.
        padding: Cells before the input and after it.
        dilation: Cells from one cell of a window to its next.
        ceil_mode: Keep a last window that reaches past the padding, if it starts before the padding after the input.
    """

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int = 1
    ceil_mode: bool = False

    @property
    def count(self) -> int:
        """Number of windows."""
        room = self.size + 2 * self.padding - self._reach
        count = room // self.stride + 1
        if self.ceil_mode and room % self.stride and count * self.stride < self.size + self.padding:
            count += 1
        return count

    @property
    def extra(self) -> int:
        """Cells after the padding that the last window needs."""
        return max(0, (self.count - 1) * self.stride + self._reach - self.size - 2 * self.padding)

    def counted(self, with_padding: bool) -> Tensor:
        """Cells of each window that an average divides by, (count,); those after the padding never are."""
        border = self.padding if with_padding else 0
        starts = torch.arange(self.count) * self.stride - self.padding
        first = starts.clamp(min=-border)
        last = (starts + self.kernel).clamp(max=self.size + border)
        return (last - first).to(torch.get_default_dtype())

    @property
    def is_same(self) -> bool:
        """Whether the padding is TensorFlow's `SAME`, which puts the odd cell after the input."""
        needed = max(0, (self.count - 1) * self.stride + self._reach - self.size)
        return self.extra == 0 and self.count == -(-self.size // self.stride) and self.padding == needed // 2

    @property
    def _reach(self) -> int:
        """Cells from a window's first to its last."""
        return self.dilation * (self.kernel - 1) + 1


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
    lowering.did("average pool as a depthwise convolution")
    axes = _windows_of(value.shape[2:], _pair(kernel), _pair(stride or kernel), _pair(padding), (1, 1), ceil_mode)
    return _average(lowering, node.name, value, axes, count_include_pad, divisor)


def _windows_of(
    sizes: Any,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    ceil_mode: bool,
) -> list[Windows]:
    return [
        Windows(int(n), k, s, p, d, ceil_mode)
        for n, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True)
    ]


def _average(
    lowering: RankLowering,
    name: str,
    frames: Tensor,
    axes: list[Windows],
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """Average over windows of the last two axes."""
    height, width = axes
    channels, area = int(frames.shape[1]), height.kernel * width.kernel
    shape = (channels, 1, height.kernel, width.kernel)
    weight = lowering.hold(f"{name}_window", lambda: torch.full(shape, 1.0 / (divisor or area)))
    if height.extra or width.extra:
        frames = F.pad(frames, (0, width.extra, 0, height.extra))
    steps, pads = (height.stride, width.stride), (height.padding, width.padding)
    pooled = F.conv2d(frames, weight, None, steps, pads, 1, channels)
    if divisor or all(_is_full(axis, count_include_pad) for axis in axes):
        return pooled
    rows, columns = (axis.counted(count_include_pad) for axis in axes)
    return pooled * lowering.hold(f"{name}_correction", lambda: area / torch.outer(rows, columns)[None, None])


def _is_full(axis: Windows, count_include_pad: bool) -> bool:
    """Whether an average over each window divides by the kernel."""
    return not axis.extra and (count_include_pad or not axis.padding)


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
    axes = _windows_of(value.shape[-2:], *sizes, ceil_mode)
    _refuse_dilated_ceil(node, axes)
    return _maximum(lowering.recipe, value, axes)


def _refuse_dilated_ceil(node: fx.Node, axes: list[Windows]) -> None:
    if any(axis.extra and axis.dilation > 1 for axis in axes):
        raise ConversionError(
            f"The maximum pool {node.name!r} {places.of_node(node)} has ceil_mode and dilation, and its last window "
            "reaches past the padding; that has no form on phone runtimes. Use ceil_mode=False, or pad the input "
            "before the pool."
        )


def _maximum(recipe: Recipe, value: Tensor, axes: list[Windows]) -> Tensor:
    """Maximum over windows of the last two axes."""
    apart = any(axis.stride > axis.kernel for axis in axes)
    if apart and _takes_edges(axes):
        # XNNPACK takes no window smaller than its stride, and ExecuTorch has no operator of its own for it.
        for dim, axis in enumerate(axes, value.dim() - len(axes)):
            value = _maximum_along(recipe, value, dim, axis)
        return value
    if recipe.target is Runtime.TFLITE and not all(axis.is_same for axis in axes) and _takes_edges(axes):
        # TFLite pads with an operator of its own, and with minus infinity for a maximum: no delegate takes that.
        for dim, axis in enumerate(axes, value.dim() - len(axes)):
            value = _with_edges(value, dim, axis.padding, axis.padding + axis.extra)
        axes = [Windows(a.size + 2 * a.padding + a.extra, a.kernel, a.stride, 0, a.dilation) for a in axes]
    kernel, stride, padding, dilation = zip(*((a.kernel, a.stride, a.padding, a.dilation) for a in axes), strict=True)
    for dim, axis in enumerate(axes, value.dim() - len(axes)):
        value = _with_edges(value, dim, 0, axis.extra)
    return aten.max_pool2d.default(value, kernel, stride, padding, dilation)  # type: ignore[no-any-return]


def _takes_edges(axes: list[Windows]) -> bool:
    """Whether repeated edges leave the maximum of every window as it is."""
    return all(axis.dilation == 1 or not axis.padding for axis in axes)


def _maximum_along(recipe: Recipe, value: Tensor, dim: int, axis: Windows) -> Tensor:
    """Maximum over windows of one axis, in slices."""
    if (axis.kernel, axis.stride) == (1, 1):
        return value
    value = _with_edges(value, dim, axis.padding, axis.padding + axis.extra)
    return reduce(torch.maximum, _cells(recipe, value, dim, axis))


def _with_edges(value: Tensor, dim: int, before: int, after: int) -> Tensor:
    """Repeat the first and the last cell of an axis.

    A window that reaches past an edge holds the cell there already, so its maximum stays. Minus infinity would do
    the same, and int8 has none. This holds without dilation only.
    """
    size = int(value.shape[dim])
    first, last = aten.slice.Tensor(value, dim, 0, 1), aten.slice.Tensor(value, dim, size - 1, size)
    return torch.cat([*[first] * before, value, *[last] * after], dim) if before or after else value


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
    lowering.did("3D average pool as 2D pool and mean over frames")
    frames = value.canonical()
    sizes = (_triple(kernel), _triple(stride or kernel), _triple(padding), (1, 1, 1))
    time, *picture = _windows_of(value.shape[2:], *sizes, ceil_mode)
    in_picture = any((axis.kernel, axis.stride) != (1, 1) for axis in picture)
    if in_picture:
        frames = _average(lowering, node.name, frames, picture, count_include_pad, divisor)
    if (time.kernel, time.stride) != (1, 1):
        frames = F.pad(frames, (0, 0, 0, 0, 0, 0, time.padding, time.padding + time.extra))
        frames = reduce(torch.add, _cells(lowering.recipe, frames, 0, time))
    # The convolution over the picture has divided already.
    whole = (1 if in_picture else divisor) if divisor else time.kernel
    if divisor or _is_full(time, count_include_pad):
        return Folded(frames if whole == 1 else frames * (1.0 / whole))
    share = lowering.hold(f"{node.name}_share", lambda: 1.0 / time.counted(count_include_pad).reshape(-1, 1, 1, 1))
    return Folded(frames * share)


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
    sizes = (_triple(kernel), _triple(stride or kernel), _triple(padding), _triple(dilation))
    time, *picture = axes = _windows_of(value.shape[2:], *sizes, ceil_mode)
    _refuse_dilated_ceil(node, axes)
    if time.dilation > 1 and time.padding:
        lowering.left(node, "a maximum pool with padding and dilation in time has no 2D form")
        return NotImplemented
    lowering.did("3D maximum pool as 2D pool and maximum over frames")
    frames = value.canonical()
    if any((axis.kernel, axis.stride) != (1, 1) for axis in picture):
        frames = _maximum(lowering.recipe, frames, picture)
    frames = _maximum_along(lowering.recipe, frames, 0, time)
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


def _cells(recipe: Recipe, value: Tensor, dim: int, axis: Windows) -> list[Tensor]:
    """For each place in a window along an axis, the cells that stand there; `value` is padded already."""
    offsets = range(0, axis.kernel * axis.dilation, axis.dilation)
    if dim == 0:
        return [every(recipe, value, first, axis.count, axis.stride) for first in offsets]
    reach = (axis.count - 1) * axis.stride + 1
    return [aten.slice.Tensor(value, dim, first, first + reach, axis.stride) for first in offsets]


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    numbers = tuple(int(v) for v in value)
    return numbers * 2 if len(numbers) == 1 else numbers  # type: ignore[return-value]
