"""Keys of torchvision's MobileNetV3.

    features.0.{0,1}.*                 convolution and batch norm of the stem
    features.{i}.block.{j}.{0,1}.*     row i from 1: expand, depthwise, [squeeze-excite], project, counted as far as present
    features.{i}.block.{j}.fc{1,2}.*   squeeze-excite
    features.{n + 1}.{0,1}.*           last convolution
    classifier.{0,3}.*                 dense layers

The released weights are of pictures (ImageNet, 1000 classes). They also load into the networks with temporal shifts, as a
start for training.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import Tensor, nn

from mvtool.streaming import Gate
from mvtool.zoo.checkpoints.naming import IGNORED
from mvtool.zoo.mobilenet import Excite, InvertedBottleneck, MobileNet

_BLOCK = re.compile(r"features\.(\d+)\.block\.(\d+)\.(?:([01])|fc([12]))\.(\w+)")
_END = re.compile(r"features\.(\d+)\.([01])\.(\w+)")
_DENSE = re.compile(r"classifier\.([03])\.(weight|bias)")
CONV_NORM = ("conv", "norm")
"""Children of a convolution with norm, by the position in the published sequence."""


class MobileNetV3Naming:
    """Keys of torchvision."""

    name = "torchvision MobileNetV3"
    gate: Gate | None = None

    def matches(self, keys: Collection[str], module: nn.Module) -> bool:
        """A MobileNetV3, and any key of a block."""
        fits = isinstance(module, MobileNet) and module.hidden is not None
        return fits and any(_BLOCK.fullmatch(key) for key in keys)

    def target(self, key: str, module: nn.Module) -> str | None:
        """See the module docstring."""
        assert isinstance(module, MobileNet)
        if key.endswith("num_batches_tracked"):
            return IGNORED
        if block := _BLOCK.fullmatch(key):
            return _in_block(block, module)
        if end := _END.fullmatch(key):
            part = {0: "stem", len(module.layers) + 1: "last"}.get(int(end[1]))
            return part and f"{part}.{CONV_NORM[int(end[2])]}.{end[3]}"
        if dense := _DENSE.fullmatch(key):
            return f"{'hidden' if dense[1] == '0' else 'classifier'}.{dense[2]}"
        return None

    def layout(self, key: str, tensor: Tensor) -> Tensor:
        """Unchanged."""
        return tensor


def _in_block(match: re.Match[str], module: MobileNet) -> str | None:
    index, position = int(match[1]) - 1, int(match[2])
    if not 0 <= index < len(module.layers):
        return None
    parts = _parts(module.layers[index])
    if position >= len(parts):
        return None
    name = f"layers.{index}.{parts[position]}"
    if match[4]:
        return f"{name}.{'reduce' if match[4] == '1' else 'expand'}.{match[5]}"
    return f"{name}.{CONV_NORM[int(match[3])]}.{match[5]}"


def _parts(layer: nn.Module) -> list[str]:
    """Names of the children that have a position in the published block, in its order."""
    assert isinstance(layer, InvertedBottleneck)
    expand = ["expand"] if not isinstance(layer.expand, nn.Identity) else []
    excite = ["excite"] if isinstance(layer.excite, Excite) else []
    return [*expand, "depthwise", *excite, "project"]
