"""Keys of X3D in the SlowFast repository (github.com/facebookresearch/SlowFast).

s1.pathway0_stem.{conv_xy,conv,bn}.*              stem: in space, in time, batch norm
s{k}.pathway0_res{r}.branch1{,_bn}.*              shortcut of stage k = 2..5
s{k}.pathway0_res{r}.branch2.{a,b,c}{,_bn}.*      expansion, depthwise, projection
s{k}.pathway0_res{r}.branch2.se.fc{1,2}.*         squeeze-excite
head.{conv_5,conv_5_bn,lin_5,projection}.*
"""

from __future__ import annotations

import re
from collections.abc import Collection

from torch import Tensor, nn

from mvtool.streaming import Gate
from mvtool.zoo.checkpoints.naming import IGNORED
from mvtool.zoo.x3d import X3D

_KEY = re.compile(
    r"(?:(?P<end>s1\.pathway0_stem|head)|s(?P<k>\d+)\.pathway0_res(?P<r>\d+))\.(?P<part>[\w.]+)\.(?P<leaf>\w+)"
)
_ENDS = {
    "s1.pathway0_stem.conv_xy": "stem.space",
    "s1.pathway0_stem.conv": "stem.time.conv",
    "s1.pathway0_stem.bn": "stem.time.norm",
    "head.conv_5": "head.project.conv",
    "head.conv_5_bn": "head.project.norm",
    "head.lin_5": "head.dense",
    "head.projection": "head.classifier",
}
_IN_BLOCK = {
    "branch1": "shortcut.conv",
    "branch1_bn": "shortcut.norm",
    "branch2.a": "expand.conv",
    "branch2.a_bn": "expand.norm",
    "branch2.b": "depthwise.conv",
    "branch2.b_bn": "depthwise.norm",
    "branch2.se.fc1": "excite.reduce",
    "branch2.se.fc2": "excite.expand",
    "branch2.c": "project.conv",
    "branch2.c_bn": "project.norm",
}


class SlowFastNaming:
    """Keys of SlowFast."""

    name = "SlowFast"
    gate: Gate | None = None

    def matches(self, keys: Collection[str], module: nn.Module) -> bool:
        """An X3D, and any key of a pathway."""
        return isinstance(module, X3D) and any(".pathway0_" in key and _KEY.fullmatch(key) for key in keys)

    def target(self, key: str, module: nn.Module) -> str | None:
        """See the module docstring."""
        match = _KEY.fullmatch(key)
        if match is None:
            return None
        if match["leaf"] == "num_batches_tracked":
            return IGNORED
        if match["end"]:
            part = _ENDS.get(f"{match['end']}.{match['part']}")
        else:
            part = _IN_BLOCK.get(match["part"])
            part = part and f"stages.{int(match['k']) - 2}.{match['r']}.{part}"
        return part and f"{part}.{match['leaf']}"

    def layout(self, key: str, tensor: Tensor) -> Tensor:
        """Unchanged: SlowFast is PyTorch, and its dense layers as 1x1x1 convolutions differ by unit axes only."""
        return tensor
