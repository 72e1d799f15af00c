"""Keys of torchvision's `r2plus1d_18`.

stem.{0,1}, stem.{3,4}                              spatial convolution and norm, temporal convolution and norm
layer{n}.{j}.conv{k}.0.{0,1}                        spatial convolution and norm of convolution k of block j; n from 1
layer{n}.{j}.conv{k}.0.3, layer{n}.{j}.conv{k}.1    temporal convolution, and its norm
layer{n}.{j}.downsample.{0,1}                       shortcut and norm
fc.{weight,bias}                                    dense layer
"""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import Tensor, nn

from mvtool.streaming import Gate
from mvtool.zoo.checkpoints.naming import IGNORED
from mvtool.zoo.r2plus1d import R2Plus1D

_BLOCK = re.compile(r"layer(\d)\.(\d+)\.(conv[12]\.\d(?:\.\d)?|downsample\.[01])\.(\w+)")
_END = re.compile(r"(stem\.\d|fc)\.(\w+)")
_ENDS = {
    "stem.0": "stem.spatial.conv",
    "stem.1": "stem.spatial.norm",
    "stem.3": "stem.temporal.conv",
    "stem.4": "stem.temporal.norm",
    "fc": "classifier",
}
_FACTORED = {"0.0": "spatial.conv", "0.1": "spatial.norm", "0.3": "temporal.conv", "1": "temporal.norm"}
_PARTS = {
    **{f"conv1.{place}": f"first.{layer}" for place, layer in _FACTORED.items()},
    **{f"conv2.{place}": f"second.{layer}" for place, layer in _FACTORED.items()},
    "downsample.0": "shortcut.conv",
    "downsample.1": "shortcut.norm",
}


class R2Plus1DNaming:
    """Keys of torchvision."""

    name = "torchvision (R(2+1)D)"
    gate: Gate | None = None

    def matches(self, keys: Collection[str], module: nn.Module) -> bool:
        """An R(2+1)D, and any key belongs to a block."""
        return isinstance(module, R2Plus1D) and any(_BLOCK.fullmatch(key) for key in keys)

    def target(self, key: str, module: nn.Module) -> str | None:
        """See the module docstring."""
        if match := _BLOCK.fullmatch(key):
            part, leaf = _PARTS.get(match[3]), match[4]
            owner = None if part is None else f"stage{int(match[1]) - 1}_block{match[2]}.{part}"
        elif match := _END.fullmatch(key):
            owner, leaf = _ENDS.get(match[1]), match[2]
        else:
            return None
        if owner is None:
            return None
        return IGNORED if leaf == "num_batches_tracked" else f"{owner}.{leaf}"

    def layout(self, key: str, tensor: Tensor) -> Tensor:
        """Unchanged: torchvision is PyTorch."""
        return tensor
