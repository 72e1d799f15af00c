"""The contract of a key naming, and the shared layout rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from mvtool.streaming import Gate

IGNORED = ""
"""Target of a key that belongs to the naming but is no weight of the model."""


class Naming(Protocol):
    """Names and layouts under which a network was published.

    Attributes:
        name: Name in reports.
        gate: Squeeze-excite gate that streams published under this naming were trained with; None where the
            file says it or where it does not matter.
    """

    name: str
    gate: Gate | None

    def matches(self, keys: Collection[str], module: nn.Module) -> bool:
        """Whether a file with these keys uses this naming."""
        ...

    def target(self, key: str, module: nn.Module) -> str | None:
        """Name in `module.state_dict()` for a key, `IGNORED` for bookkeeping, None for an unknown key."""
        ...

    def layout(self, key: str, tensor: Tensor) -> Tensor:
        """The tensor with PyTorch's axis order (out, in, ...); unit axes may be missing."""
        ...


@runtime_checkable
class TellsForm(Protocol):
    """A naming that tells for which form of a network weights were trained, where other forms have the same tensors."""

    def trained_as(self, tensors: Mapping[str, Tensor]) -> str | None:
        """The form, as in `module.trained_as`; None for weights that may start any form's training."""
        ...


@runtime_checkable
class Supplies(Protocol):
    """A naming of networks that lack a layer of ours; it gives the tensors with which that layer does nothing."""

    def supplied(self, module: nn.Module) -> dict[str, Tensor]:
        """Name in `module.state_dict()` to tensor; a file must not have them."""
        ...


BATCH_NORM_LEAVES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
KERNEL_LEAVES = {"kernel": "weight", "depthwise_kernel": "weight", "bias": "bias"}


def tensorflow_layout(key: str, tensor: Tensor) -> Tensor:
    """From TensorFlow's kernel layouts to PyTorch's.

    | leaf, rank | TensorFlow | PyTorch |
    |---|---|---|
    | kernel, 5 | (t, h, w, in, out) | (out, in, t, h, w) |
    | kernel, 4 | (h, w, in, out) | (out, in, h, w) |
    | depthwise_kernel, 4 | (h, w, channels, 1) | (channels, 1, h, w) |
    | kernel, 2 | (in, out) | (out, in) |
    """
    leaf = key.rpartition("/")[2]
    if leaf == "depthwise_kernel" and tensor.ndim == 4:
        return tensor.permute(2, 3, 0, 1)
    if leaf == "kernel" and tensor.ndim >= 2:
        return tensor.permute(tensor.ndim - 1, tensor.ndim - 2, *range(tensor.ndim - 2))
    return tensor


def fits(got: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether a kernel differs from the model's at most by unit axes behind (out, in)."""
    if len(got) < 2 or len(expected) < 2:
        return got == expected
    return got[:2] == expected[:2] and [n for n in got[2:] if n != 1] == [n for n in expected[2:] if n != 1]
