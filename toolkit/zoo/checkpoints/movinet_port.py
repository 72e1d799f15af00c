"""Keys of the public PyTorch port of MoViNet (github.com/Atze00/MoViNet-pytorch).

    conv1.conv_1.conv3d.weight                       stem
    blocks.b{i}_l{j}.expand.conv_1.norm.weight       layers: expand, deep, se.fc1, se.fc2, project, res.0 / res.1, alpha
    blocks.b{i}_l{j}.deep.conv_2.conv2d.weight       temporal kernel (C, 1, kt, 1) of streams
    conv7.conv_1.norm.running_var                    head
    classifier.0.conv_1.conv3d.bias, classifier.3    dense layers as 1x1x1 convolutions

Streams have `conv2d` and 4 axes in place of `conv3d` and 5. The port's streams use the Keras 2 gate clip(0.2 x + 0.5, 0, 1),
with which its tests reproduce the published logits.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import Tensor, nn

from mvtool.streaming import Gate
from mvtool.zoo.checkpoints.naming import IGNORED

_KEY = re.compile(
    r"(?P<part>conv1|conv7|classifier\.[03]|blocks\.b(?P<i>\d+)_l(?P<j>\d+)\.(?P<sub>expand|deep|se\.fc[12]|project|res\.[01]))"
    r"\.conv_(?P<n>[12])\.(?P<kind>conv2d|conv3d|norm)\.(?P<leaf>\w+)"
)
_ALPHA = re.compile(r"blocks\.b(\d+)_l(\d+)\.alpha")
_ENDS = {"conv1": "stem", "conv7": "head.project", "classifier.0": "head.dense", "classifier.3": "head.classifier"}
_SUBMODULES = {
    "expand": "expand",
    "se.fc1": "excite.reduce",
    "se.fc2": "excite.expand",
    "project": "project",
    "res.0": "skip.project",
    "res.1": "skip.project",
}
_BARE = ("excite.", "head.dense", "head.classifier")


class MoViNetPortNaming:
    """Keys of the PyTorch port."""

    name = "MoViNet-pytorch"
    gate: Gate | None = Gate.KERAS

    def matches(self, keys: Collection[str], module: nn.Module) -> bool:
        """Any key has the port's form."""
        return any(_KEY.fullmatch(key) for key in keys)

    def target(self, key: str, module: nn.Module) -> str | None:
        """See the module docstring."""
        if alpha := _ALPHA.fullmatch(key):
            return f"block{alpha[1]}_layer{alpha[2]}.rezero"
        match = _KEY.fullmatch(key)
        if match is None:
            return None
        if match["leaf"] == "num_batches_tracked":
            return IGNORED
        owner = _owner(match)
        if owner is None:
            return None
        if any(part in owner for part in _BARE):
            return f"{owner}.{match['leaf']}"
        return f"{owner}.{'norm' if match['kind'] == 'norm' else 'conv'}.{match['leaf']}"

    def layout(self, key: str, tensor: Tensor) -> Tensor:
        """Unchanged: the port is PyTorch."""
        return tensor


def _owner(match: re.Match[str]) -> str | None:
    if match["sub"] is None:
        return _ENDS[match["part"]] if match["n"] == "1" else None
    layer = f"block{match['i']}_layer{match['j']}"
    if match["sub"] == "deep":
        return f"{layer}.{'depthwise' if match['n'] == '1' else 'temporal'}"
    return f"{layer}.{_SUBMODULES[match['sub']]}" if match["n"] == "1" else None
