"""Keras variable names, under which a Model Garden SavedModel lists its weights.

    stem/stem/conv2d/bn/gamma        block1_layer0/bneck/feature/conv2d_temporal/bn_temporal/beta
    head/project/conv3d/kernel       classifier_head/classifier/conv2d/conv2d_1/bias

Inner names are numbered by the process that made them (`conv2d_3`), so only the outer ones and the leaf are looked at;
older files write `b1/l0/` for `block1_layer0/`, with or without `bneck/`. All positional scalars are called `scale`;
they are told apart by their order, which is the order of the layers.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import Tensor, nn

from mvtool.streaming import Gate
from mvtool.zoo.checkpoints.naming import BATCH_NORM_LEAVES, KERNEL_LEAVES, tensorflow_layout
from mvtool.zoo.movinet import MoViNet

_ENDS = (
    (re.compile(r"(?:^|.*/)stem/stem/(.+)"), "stem"),
    (re.compile(r"(?:^|.*/)classifier_head(?:_\d+)?/head/(.+)"), "head.dense"),
    (re.compile(r"(?:^|.*/)classifier_head(?:_\d+)?/classifier/(.+)"), "head.classifier"),
    (re.compile(r"(?:^|.*/)head/project/(.+)"), "head.project"),
)
_LAYER = re.compile(r"(?:^|.*/)(?:block(\d+)_layer|b(\d+)/l)(\d+)/(?:bneck/)?(.+)")
_POSITION = re.compile(r"scale(?:_\d+)?(?:#(\d+))?")
_PARTS = {
    "expansion": "expand",
    "se/se_reduce": "excite.reduce",
    "se/se_expand": "excite.expand",
    "projection": "project",
    "skip/skip_project": "skip.project",
}


class KerasVariableNaming:
    """Variable names of Model Garden models."""

    name = "Model Garden SavedModel"
    gate: Gate | None = Gate.REF

    def matches(self, keys: Collection[str], module: nn.Module) -> bool:
        """Any key belongs to a layer."""
        return any(_LAYER.fullmatch(key) for key in keys)

    def target(self, key: str, module: nn.Module) -> str | None:
        """See the module docstring."""
        key = key.partition(":")[0]
        for pattern, owner in _ENDS:
            if match := pattern.fullmatch(key):
                return _member(owner, match[1])
        if match := _LAYER.fullmatch(key):
            return _layer_member(f"block{match[1] or match[2]}_layer{match[3]}", match[4])
        position = _POSITION.fullmatch(key)
        if position is None or not isinstance(module, MoViNet):
            return None
        number = int(position[1] or 0)
        return f"{module.layer_names[number]}.excite.position_scale" if number < len(module.layer_names) else None

    def layout(self, key: str, tensor: Tensor) -> Tensor:
        """Kernels to PyTorch's axis order."""
        return tensorflow_layout(key.partition(":")[0], tensor)


def _layer_member(layer: str, rest: str) -> str | None:
    if rest == "scale":
        return f"{layer}.rezero"
    if rest.startswith("feature/"):
        return _member(f"{layer}.{'temporal' if '_temporal/' in rest else 'depthwise'}", rest)
    for part, owner in _PARTS.items():
        if rest.startswith(f"{part}/"):
            return _member(f"{layer}.{owner}", rest)
    return None


def _member(owner: str, rest: str) -> str | None:
    leaf = rest.rpartition("/")[2]
    if leaf in BATCH_NORM_LEAVES:
        return f"{owner}.norm.{BATCH_NORM_LEAVES[leaf]}"
    if leaf not in KERNEL_LEAVES:
        return None
    bare = "excite." in owner or owner in ("head.dense", "head.classifier")
    return f"{owner}.{KERNEL_LEAVES[leaf]}" if bare else f"{owner}.conv.{KERNEL_LEAVES[leaf]}"
