"""Keys of the TSM repository (github.com/mit-han-lab/temporal-shift-module), ResNet-50 and MobileNetV2.

    base_model.layer1.0.conv1.net.weight, new_fc.weight     clips, two-sided shift: `.net.` stands where a shift is
    base_model.layer1.0.conv1.weight, new_fc.weight         clips without shift (TSN)
    features.3.conv.0.weight, classifier.weight             online demo of MobileNetV2, one-sided shift
    layer1.0.conv1.weight, fc.weight                        torchvision's ResNet-50 of pictures, a start for training

In MobileNetV2 `features.0` is the stem, `features.{1..17}.conv.{0..7}` are convolution, batch norm and activation three times
(two times in block 1), `features.18` is the last convolution; a demo file of 1000 classes is taken for pictures (ImageNet).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor, nn

from mvtool.streaming import Gate
from mvtool.zoo.checkpoints.naming import IGNORED
from mvtool.zoo.checkpoints.torchvision_mobilenet import CONV_NORM
from mvtool.zoo.mobilenet import InvertedBottleneck, MobileNet
from mvtool.zoo.resnet2d import ResNet
from mvtool.zoo.temporal_shift import ShiftKind

NO_SHIFT = "no temporal shift"
IMAGENET_CLASSES = 1000
_PREFIX = "base_model."
_SHIFTED = ".net."
_MOBILE_BLOCK = re.compile(r"features\.(\d+)\.conv\.(\d)\.(\w+)")
_MOBILE_END = re.compile(r"features\.(0|18)\.([01])\.(\w+)")
_RES_BLOCK = re.compile(r"layer([1-4])\.(\d)\.(?:(conv|bn)([123])|downsample\.([01]))\.(\w+)")
_RES_STEM = re.compile(r"(conv|bn)1\.(\w+)")
_DENSE = re.compile(r"(?:new_fc|fc|classifier)\.(weight|bias)")
_RES_PARTS = {"1": "reduce", "2": "conv", "3": "expand"}


class TSMNaming:
    """Keys of the repository, with and without its prefix."""

    name = "TSM"
    gate: Gate | None = None

    def matches(self, keys: Collection[str], module: nn.Module) -> bool:
        """A network of TSM, and any key of one of its blocks."""
        if not isinstance(module, ResNet) and not _is_v2(module):
            return False
        pattern = _RES_BLOCK if isinstance(module, ResNet) else _MOBILE_BLOCK
        return any(pattern.fullmatch(_bare(key)) for key in keys)

    def trained_as(self, tensors: Mapping[str, Tensor]) -> str | None:
        """The shift these weights were trained with; None for those of pictures."""
        if any(_SHIFTED in key for key in tensors):
            return ShiftKind.TWO_SIDED.value
        if any(key.startswith(_PREFIX) for key in tensors):
            return NO_SHIFT
        dense = tensors.get("classifier.weight")
        demo = dense is not None and dense.shape[0] != IMAGENET_CLASSES
        return ShiftKind.ONE_SIDED.value if demo else None

    def target(self, key: str, module: nn.Module) -> str | None:
        """See the module docstring."""
        if key.endswith("num_batches_tracked"):
            return IGNORED
        name = _bare(key)
        if dense := _DENSE.fullmatch(name):
            return f"classifier.{dense[1]}"
        return _in_mobilenet(name, module) if isinstance(module, MobileNet) else _in_resnet(name)

    def layout(self, key: str, tensor: Tensor) -> Tensor:
        """Unchanged."""
        return tensor


def _is_v2(module: nn.Module) -> bool:
    return isinstance(module, MobileNet) and module.hidden is None


def _bare(key: str) -> str:
    return key.removeprefix(_PREFIX).replace(_SHIFTED, ".")


def _in_mobilenet(name: str, module: MobileNet) -> str | None:
    if end := _MOBILE_END.fullmatch(name):
        return f"{'stem' if end[1] == '0' else 'last'}.{CONV_NORM[int(end[2])]}.{end[3]}"
    block = _MOBILE_BLOCK.fullmatch(name)
    if block is None or not 1 <= int(block[1]) <= len(module.layers):
        return None
    index = int(block[1]) - 1
    layer = module.layers[index]
    assert isinstance(layer, InvertedBottleneck)
    parts = ["depthwise", "project"] if isinstance(layer.expand, nn.Identity) else ["expand", "depthwise", "project"]
    # Every third place is an activation.
    part, place = divmod(int(block[2]), 3)
    return f"layers.{index}.{parts[part]}.{CONV_NORM[place]}.{block[3]}" if part < len(parts) and place < 2 else None


def _in_resnet(name: str) -> str | None:
    if stem := _RES_STEM.fullmatch(name):
        return f"stem.{_leaf(stem[1])}.{stem[2]}"
    block = _RES_BLOCK.fullmatch(name)
    if block is None:
        return None
    owner = f"stages.{int(block[1]) - 1}.{block[2]}"
    if block[5]:
        return f"{owner}.shortcut.{CONV_NORM[int(block[5])]}.{block[6]}"
    return f"{owner}.{_RES_PARTS[block[4]]}.{_leaf(block[3])}.{block[6]}"


def _leaf(kind: str) -> str:
    return "conv" if kind == "conv" else "norm"
