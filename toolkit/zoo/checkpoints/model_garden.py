"""Object paths of TensorFlow Model Garden MoViNet checkpoints.

    .../layer_with_weights-{n}/{part}/.ATTRIBUTES/VARIABLE_VALUE        n = 0 stem, 1 + k layer k, last head
    .../layer_with_weights-1/_head/..., _classifier/...                 dense layers

What stands before differs with how the file was written, and does not matter: `model/layer_with_weights-0/` for
Checkpoint(model=), `backbone/` for Checkpoint(model=, backbone=) as the repository's conversion tool writes it, nothing or
`layer_with_weights-0/` for a model saved as the root. In (2+1)D models every `_conv/` is doubled and kernels have 4 axes;
models trained as `3d_2plus1d` hold the same weights with 5 axes.

The present source computes the gate of streams as 0.16667 relu6(x + 3).
"""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import Tensor, nn

from mvtool.streaming import Gate
from mvtool.zoo.checkpoints.naming import BATCH_NORM_LEAVES, KERNEL_LEAVES, tensorflow_layout
from mvtool.zoo.movinet import MoViNet

_PATH = re.compile(r"(?:.*/)?layer_with_weights-(\d+)/(_[^/]+(?:/[^/]+)*)")
_DENSE = {"_head/_conv": "head.dense", "_classifier/_conv": "head.classifier"}
_STEM = {"_stem/_conv": "stem.conv", "_stem/_batch_norm": "stem.norm"}
_HEAD = {"_project/_conv": "head.project.conv", "_project/_batch_norm": "head.project.norm"}
_LAYER = {
    "_expansion/_conv": "expand.conv",
    "_expansion/_batch_norm": "expand.norm",
    "_feature/_conv": "depthwise.conv",
    "_feature/_batch_norm": "depthwise.norm",
    "_feature/_conv_temporal": "temporal.conv",
    "_feature/_batch_norm_temporal": "temporal.norm",
    "_attention/_se_reduce/_conv": "excite.reduce",
    "_attention/_se_expand/_conv": "excite.expand",
    "_projection/_conv": "project.conv",
    "_projection/_batch_norm": "project.norm",
    "_skip/_projection/_conv": "skip.project.conv",
    "_skip/_projection/_batch_norm": "skip.project.norm",
}
_SCALARS = {
    "_attention/_pos_encoding/_rezero/scale": "excite.position_scale",
    "_mobile_bottleneck/_rezero/scale": "rezero",
}
_PARTS = frozenset(path.partition("/")[0] for path in (*_DENSE, *_STEM, *_HEAD, *_LAYER, *_SCALARS))


class ModelGardenNaming:
    """Object paths of the Model Garden."""

    name = "Model Garden checkpoint"
    gate: Gate | None = Gate.REF

    def matches(self, keys: Collection[str], module: nn.Module) -> bool:
        """A MoViNet, and any key has a numbered layer with a part of a MoViNet behind it; other networks have other parts."""
        found = (_PATH.fullmatch(key) for key in keys)
        return isinstance(module, MoViNet) and any(match and match[2].partition("/")[0] in _PARTS for match in found)

    def target(self, key: str, module: nn.Module) -> str | None:
        """See the module docstring; needs the module to know which layer has which number."""
        match = _PATH.fullmatch(key)
        if match is None or not isinstance(module, MoViNet):
            return None
        number, rest = (
            int(match[1]),
            match[2].replace("_conv/_conv/", "_conv/").replace("_temporal/_conv/", "_temporal/"),
        )
        path, _, leaf = rest.rpartition("/")
        name = BATCH_NORM_LEAVES.get(leaf) or KERNEL_LEAVES.get(leaf)
        depth = len(module.layer_names)
        if path in _DENSE and number == 1:
            return f"{_DENSE[path]}.{name}"
        if number == 0 and path in _STEM:
            return f"{_STEM[path]}.{name}"
        if number == depth + 1 and path in _HEAD:
            return f"{_HEAD[path]}.{name}"
        if not 1 <= number <= depth:
            return None
        layer = module.layer_names[number - 1]
        if rest in _SCALARS:
            return f"{layer}.{_SCALARS[rest]}"
        return f"{layer}.{_LAYER[path]}.{name}" if path in _LAYER else None

    def layout(self, key: str, tensor: Tensor) -> Tensor:
        """Kernels to PyTorch's axis order."""
        return tensorflow_layout(key, tensor)
