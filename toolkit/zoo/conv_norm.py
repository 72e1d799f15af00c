"""Convolution and batch norm, with the padding and constants of PyTorch's own video models."""

from __future__ import annotations

from torch import Tensor, nn

Triple = tuple[int, int, int]


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm (eps 1e-5, momentum 0.1).

    Zero padding of k // 2 on both sides of every axis, so odd kernels keep the size.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: (kt, kh, kw).
        stride: (st, sh, sw).
        groups: As in `nn.Conv3d`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Triple, *, stride: Triple = (1, 1, 1), groups: int = 1
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) to (N, C', ceil(T / st), ceil(H / sh), ceil(W / sw))."""
        y: Tensor = self.norm(self.conv(x))
        return y
