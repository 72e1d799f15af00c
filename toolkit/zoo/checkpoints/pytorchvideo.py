"""Keys of PyTorchVideo (github.com/facebookresearch/pytorchvideo): X3D, Slow-R50, R(2+1)D-R50.

    blocks.0.{conv,norm}.*                                    stem
    blocks.{k}.res_blocks.{r}.branch1_{conv,norm}.*           shortcut, stages from k = 1
    blocks.{k}.res_blocks.{r}.branch2.{conv,norm}_{a,b,c}.*   convolutions of a bottleneck
    blocks.5.*                                                head

In the stem of X3D the names are swapped: `conv_t` is the kernel in space and `conv_xy` the one in time. `norm_b` of X3D
holds the norm as 0 and, in every second block, the squeeze-excite as 1; `conv_b` of R(2+1)D holds both its kernels.

X3D has no norm on the shortcut of its first stage here. In a model with one, the norm becomes the exact identity; a model
for training on these weights is better built without (`res2_shortcut_norm=False`).
"""

from __future__ import annotations

import re
from collections.abc import Collection

import torch
from torch import Tensor, nn

from mvtool.streaming import Gate
from mvtool.zoo.checkpoints.naming import IGNORED
from mvtool.zoo.pytorchvideo_resnet import PyTorchVideoResNet
from mvtool.zoo.x3d import X3D

_KEY = re.compile(r"blocks\.(?:(?P<k>\d+)\.res_blocks\.(?P<r>\d+)\.)?(?P<part>[\w.]+)\.(?P<leaf>\w+)")
_BOTTLENECK = {
    "branch1_conv": "shortcut.conv",
    "branch1_norm": "shortcut.norm",
    "branch2.conv_a": "expand.conv",
    "branch2.norm_a": "expand.norm",
    "branch2.conv_c": "project.conv",
    "branch2.norm_c": "project.norm",
}
_X3D_BLOCK = {
    **_BOTTLENECK,
    "branch2.conv_b": "depthwise.conv",
    "branch2.norm_b.0": "depthwise.norm",
    "branch2.norm_b.1.block.0": "excite.reduce",
    "branch2.norm_b.1.block.2": "excite.expand",
}
_RESNET_BLOCK = {
    **_BOTTLENECK,
    "branch2.conv_b": "spatial.conv",
    "branch2.conv_b.conv_t": "temporal.conv",
    "branch2.conv_b.norm": "temporal.norm",
    "branch2.conv_b.conv_xy": "spatial.conv",
    "branch2.norm_b": "spatial.norm",
}
_X3D_ENDS = {
    "0.conv.conv_t": "stem.space",
    "0.conv.conv_xy": "stem.time.conv",
    "0.norm": "stem.time.norm",
    "5.pool.pre_conv": "head.project.conv",
    "5.pool.pre_norm": "head.project.norm",
    "5.pool.post_conv": "head.dense",
    "5.proj": "head.classifier",
}
_RESNET_ENDS = {"0.conv": "stem.conv.conv", "0.norm": "stem.conv.norm", "5.proj": "classifier"}
_RES2_NORM = "stages.0.0.shortcut.norm"


class PyTorchVideoNaming:
    """Keys of PyTorchVideo."""

    name = "PyTorchVideo"
    gate: Gate | None = None

    def matches(self, keys: Collection[str], module: nn.Module) -> bool:
        """One of the networks, and any key of a bottleneck."""
        ours = isinstance(module, X3D | PyTorchVideoResNet)
        return ours and any(match["r"] for key in keys if (match := _KEY.fullmatch(key)))

    def target(self, key: str, module: nn.Module) -> str | None:
        """See the module docstring."""
        match = _KEY.fullmatch(key)
        if match is None:
            return None
        if match["leaf"] == "num_batches_tracked":
            return IGNORED
        blocks, ends = (_X3D_BLOCK, _X3D_ENDS) if isinstance(module, X3D) else (_RESNET_BLOCK, _RESNET_ENDS)
        if match["r"] is None:
            part = ends.get(match["part"])
        else:
            part = blocks.get(match["part"])
            part = part and f"stages.{int(match['k']) - 1}.{match['r']}.{part}"
        return part and f"{part}.{match['leaf']}"

    def layout(self, key: str, tensor: Tensor) -> Tensor:
        """Unchanged: X3D's dense layer as 1x1x1 convolution differs by unit axes only."""
        return tensor

    def supplied(self, module: nn.Module) -> dict[str, Tensor]:
        """The identity for the norm that PyTorchVideo's X3D lacks."""
        if not isinstance(module, X3D) or not module.config.res2_shortcut_norm:
            return {}
        norm = module.get_submodule(_RES2_NORM)
        assert isinstance(norm, nn.BatchNorm3d)
        ones = torch.ones(norm.num_features)
        # The variance is what a norm adds eps to before the root; their sum rounds to exactly 1.
        values = {"weight": ones, "bias": 0 * ones, "running_mean": 0 * ones, "running_var": ones - norm.eps}
        return {f"{_RES2_NORM}.{leaf}": value for leaf, value in values.items()}
