"""(2+1)D: a 3D convolution as a sum of pairs, one convolution over space and one over time.

    depthwise   y = sum_k  time_k(space_k(x))       k = 1 .. rank, all depthwise
    dense       y = time(space(x))                  with `rank` channels between them

Space and time change places freely, since both are linear and no activation stands between them. That matters for a stream: it has to
remember what enters the convolution over time.

    space first   remembers its result: small behind a spatial stride, but `rank` times as many channels
    time first    remembers the input, as the 3D convolution did
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvtool.streaming.conv import StreamBuffer, StreamConv3d, whole_groups
from mvtool.streaming.padding import flat_pads, pad_same, same_padding, same_size


@dataclass(frozen=True)
class Pairs:
    """A factored kernel.

    Attributes:
        space: Depthwise: `(rank, C, 1, 1, kh, kw)`. Dense: `(1, rank, I, 1, kh, kw)`.
        time: Depthwise: `(rank, C, 1, kt, 1, 1)`. Dense: `(1, O, rank, kt, 1, 1)`.
        energy: Share of the kernel's squared norm that is kept, 0..1.
    """

    space: Tensor
    time: Tensor
    energy: float

    def kernel(self) -> Tensor:
        """The 3D kernel that the pairs compute, `(O, I / groups, kt, kh, kw)`."""
        if len(self.space) == 1 and self.time.shape[2] > 1:
            return torch.einsum(
                "ortyx,rityx->oityx", self.time[0].expand(-1, -1, -1, *self.space.shape[-2:]), self.space[0]
            )
        return (self.space * self.time).sum(0)


class FactoredConv3d(nn.Module):
    """A convolution (N, C, T, H, W) like the one that it was made of.

    Args:
        conv: The 3D convolution; its bias, strides and padding are kept.
        pairs: Its factored kernel.
        time_first: The order; see the module docstring. Depthwise only: the kernel over time of a dense pair reads the channels
            between the two.
    """

    def __init__(self, conv: nn.Conv3d, pairs: Pairs, *, time_first: bool) -> None:
        super().__init__()
        self.time_first = time_first
        self.stride, self.kernel_size = conv.stride, conv.kernel_size
        self.depthwise = conv.groups > 1
        self.space = nn.Parameter(pairs.space.clone())
        self.time = nn.Parameter(pairs.time.clone())
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone())
        self.same = isinstance(conv, StreamConv3d)
        self.causal = isinstance(conv, StreamConv3d) and conv.causal
        self.padding = tuple(int(cells) for cells in conv.padding)
        self.stream: StreamBuffer | None = None
        if isinstance(conv, StreamConv3d) and conv.stream is not None:
            self.stream = self._stream(conv.stream)

    def extra_repr(self) -> str:
        """Rank and order, for printing."""
        return f"rank={self.rank}, {'time' if self.time_first else 'space'} first"

    @property
    def rank(self) -> int:
        """Pairs of a depthwise kernel, channels between the two of a dense one."""
        return len(self.space) if self.depthwise else self.space.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve as the 3D convolution did."""
        y = self._time_first(x) if self.time_first else self._space_first(x)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1, 1)

    def _time_first(self, x: Tensor) -> Tensor:
        window, stride = self._window(x), (self.stride[0], 1, 1)
        parts = [functional.conv3d(window, time, None, stride, groups=len(time)) for time in self.time]
        return _sum([self._over_space(part, space) for part, space in zip(parts, self.space, strict=True)])

    def _space_first(self, x: Tensor) -> Tensor:
        between = torch.cat([self._over_space(x, space) for space in self.space], dim=1)
        window, stride = self._window(between), (self.stride[0], 1, 1)
        if not self.depthwise:
            return functional.conv3d(window, self.time[0], None, stride)
        kernels = self.time.flatten(0, 1)
        result = functional.conv3d(window, kernels, None, stride, groups=len(kernels))
        return _sum(list(result.chunk(len(self.space), dim=1)))

    def _over_space(self, x: Tensor, kernel: Tensor) -> Tensor:
        stride = (1, *self.stride[1:])
        padding = self.padding[1:]
        if self.same:
            x, padding = pad_same(x, self.kernel_size[1:], self.stride[1:])
        groups = len(kernel) if self.depthwise else 1
        return functional.conv3d(x, kernel, None, stride, (0, *padding), groups=groups)

    def _window(self, x: Tensor) -> Tensor:
        """The frames that the kernel over time sees, remembered or zeros before and behind them."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if self.causal:
            whole_groups(x, stride)
            return x if self.stream is None else self.stream(x)
        if self.same and stride > 1:
            cells = same_padding(x.shape[2], kernel, stride)
        else:
            before = kernel // 2 if self.same else self.padding[0]
            cells = before, before
        return torch.constant_pad_nd(x, flat_pads((cells, (0, 0), (0, 0)))) if any(cells) else x

    def _stream(self, old: StreamBuffer) -> StreamBuffer:
        batch, channels, frames, height, width = old.buffer.shape
        if not self.time_first:
            channels = len(self.space) * self.space.shape[1]
            height, width = same_size(height, self.stride[1]), same_size(width, self.stride[2])
        return StreamBuffer((batch, channels, height, width), frames, old.span)


def _sum(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
