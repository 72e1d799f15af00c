"""TSM (Lin et al. 2019, arXiv 1811.08383): 2D networks whose residual branches begin with a temporal shift.

| network | shifted |
|---|---|
| ResNet-50 | every bottleneck |
| MobileNetV2 | the 10 bottlenecks with a residual |
| MobileNetV3 | by the same rule: residual and expansion, 9 bottlenecks of Large and 6 of Small |

The shortcut stays unshifted, and no parameter and no multiply-add is added. Clips (two-sided shift) give the mean of the
frames' logits, streams (one-sided) the logits of the newest frame: what the published online demo shows for every frame. A
stream looks no further back than one frame per shift, and like the demo one may average its logits over some frames.
"""

from __future__ import annotations

from mvtool.errors import SourceError
from mvtool.zoo.frame_network import FrameNetwork
from mvtool.zoo.mobilenet import MobileNet
from mvtool.zoo.mobilenet_v2_table import V2
from mvtool.zoo.mobilenet_v3_table import LARGE, SMALL
from mvtool.zoo.resnet2d import ResNet
from mvtool.zoo.temporal_shift import ShiftKind, Shifts, Size

MOBILENETS = {"mobilenet_v2": V2, "mobilenet_v3_small": SMALL, "mobilenet_v3_large": LARGE}
NETWORKS = (*MOBILENETS, "resnet50")


def build_clip(*, network: str, num_classes: int, resolution: int | Size = 224, frames: int = 8) -> FrameNetwork:
    """Build a network with two-sided shifts, in evaluation mode with fresh weights.

    Args:
        network: One of `NETWORKS`.
        num_classes: Width of the logits.
        resolution: Height and width, or one number for both.
        frames: Length of the clips.

    Raises:
        SourceError: There is no such network.
    """
    return _build(network, num_classes, resolution, Shifts(ShiftKind.TWO_SIDED, frames))


def build_stream(*, network: str, num_classes: int, resolution: int | Size = 224, batch_size: int = 1) -> FrameNetwork:
    """Build a network with one-sided shifts, in evaluation mode with fresh weights and empty state.

    Args:
        network: One of `NETWORKS`.
        num_classes: Width of the logits.
        resolution: Height and width, or one number for both.
        batch_size: N of the stream state.

    Raises:
        SourceError: There is no such network.
    """
    return _build(network, num_classes, resolution, Shifts(ShiftKind.ONE_SIDED, batch_size))


def _build(network: str, num_classes: int, resolution: int | Size, shifts: Shifts) -> FrameNetwork:
    size = (resolution, resolution) if isinstance(resolution, int) else (resolution[0], resolution[1])
    if network in MOBILENETS:
        return MobileNet(MOBILENETS[network], num_classes, size, shifts).eval()
    if network == "resnet50":
        return ResNet(num_classes, size, shifts).eval()
    raise SourceError(f"There is no TSM of {network!r}; there are {', '.join(NETWORKS)}.")
