"""ResNet3D of the TensorFlow Model Garden: object paths of checkpoints, and variable names of SavedModels.

    .../layer_with_weights-0/kernel                      conv3d/kernel                              stem
    .../layer_with_weights-1/{gamma,beta,moving_*}       batch_normalization/gamma                  its norm
    .../layer_with_weights-{2 + k}/{part}/{leaf}         bottleneck_block3d_{k}/{part}/{leaf}       block k
    .../layer_with_weights-1/{kernel,bias}               dense/kernel                               dense layer

What stands before `layer_with_weights` differs with how the file was written, and does not matter. Block 0 and the first part of
its kind have no number among the variables, which are those of the first model made in a process, as an exporting script makes it.

| part | object path | variable |
|---|---|---|
| shortcut | `_shortcut_conv`, `_norm0` | `conv3d`, `batch_normalization` |
| temporal | `_temporal_conv`, `_norm1` | `conv3d_1`, `batch_normalization_1` |
| spatial | `_spatial_conv`, `_norm2` | `conv3d_2`, `batch_normalization_2` |
| expand | `_expand_conv`, `_norm3` | `conv3d_3`, `batch_normalization_3` |
| self-gating | `_self_gating/_transformer_w` | `self_gating/conv3d_4` |
"""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import Tensor, nn

from mvtool.streaming import Gate
from mvtool.zoo.checkpoints.naming import BATCH_NORM_LEAVES, KERNEL_LEAVES, tensorflow_layout
from mvtool.zoo.resnet3d import ResNet3D

_PATH = re.compile(r"(?:.*/)?layer_with_weights-(\d+)/(.+)")
_VARIABLE = re.compile(r"(?:.*/)?bottleneck_block3d(?:_(\d+))?/(.+)")
_PARTS = ("shortcut", "temporal", "spatial", "expand")
_OBJECTS = {
    **{f"_{part}_conv": f"{part}.conv" for part in _PARTS},
    **{f"_norm{number}": f"{part}.norm" for number, part in enumerate(_PARTS)},
    "_self_gating/_transformer_w": "gating.transform",
}
_VARIABLES = {
    **{f"conv3d_{number}".removesuffix("_0"): f"{part}.conv" for number, part in enumerate(_PARTS)},
    **{f"batch_normalization_{number}".removesuffix("_0"): f"{part}.norm" for number, part in enumerate(_PARTS)},
    "self_gating/conv3d_4": "gating.transform",
}
_ENDS = {"conv3d": "stem.conv", "batch_normalization": "stem.norm", "dense": "head.classifier"}


class ResNet3DPathNaming:
    """Object paths."""

    name = "Model Garden checkpoint (ResNet3D)"
    gate: Gate | None = None

    def matches(self, keys: Collection[str], module: nn.Module) -> bool:
        """A ResNet3D, and any key belongs to a block."""
        found = (_PATH.fullmatch(key) for key in keys)
        return isinstance(module, ResNet3D) and any(m and m[2].rpartition("/")[0] in _OBJECTS for m in found)

    def target(self, key: str, module: nn.Module) -> str | None:
        """See the module docstring."""
        match = _PATH.fullmatch(key)
        if match is None:
            return None
        number, (part, _, leaf) = int(match[1]), match[2].rpartition("/")
        if part:
            return _block_member(module, number - 2, _OBJECTS.get(part), leaf)
        # The stem's norm and the dense layer have the same number, in lists of their own.
        owner = {0: "stem.conv", 1: "stem.norm" if leaf in BATCH_NORM_LEAVES else "head.classifier"}.get(number)
        return _member(owner, leaf)

    def layout(self, key: str, tensor: Tensor) -> Tensor:
        """Kernels to PyTorch's axis order."""
        return tensorflow_layout(key, tensor)


class ResNet3DVariableNaming:
    """Variable names."""

    name = "Model Garden SavedModel (ResNet3D)"
    gate: Gate | None = None

    def matches(self, keys: Collection[str], module: nn.Module) -> bool:
        """A ResNet3D, and any key belongs to a block."""
        return isinstance(module, ResNet3D) and any(_VARIABLE.fullmatch(key) for key in keys)

    def target(self, key: str, module: nn.Module) -> str | None:
        """See the module docstring."""
        key = key.partition(":")[0]
        if match := _VARIABLE.fullmatch(key):
            part, _, leaf = match[2].rpartition("/")
            return _block_member(module, int(match[1] or 0), _VARIABLES.get(part), leaf)
        part, _, leaf = key.rpartition("/")
        return _member(_ENDS.get(part), leaf)

    def layout(self, key: str, tensor: Tensor) -> Tensor:
        """Kernels to PyTorch's axis order."""
        return tensorflow_layout(key.partition(":")[0], tensor)


def _block_member(module: nn.Module, number: int, part: str | None, leaf: str) -> str | None:
    if part is None or not isinstance(module, ResNet3D) or not 0 <= number < len(module.block_names):
        return None
    return _member(f"{module.block_names[number]}.{part}", leaf)


def _member(owner: str | None, leaf: str) -> str | None:
    """A tensor of a layer: norms have one set of leaves, all other layers the other."""
    if owner is None:
        return None
    leaves = BATCH_NORM_LEAVES if owner.endswith(".norm") else KERNEL_LEAVES
    return f"{owner}.{leaves[leaf]}" if leaf in leaves else None
