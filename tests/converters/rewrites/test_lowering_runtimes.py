"""What the lowering writes out is taken by every runtime: small nets, emitted in fp32 and stepped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from emitted import emitted, write
from foreign_models import ChannelNorms, WindowTransformer
from rewrite_models import Apply
from torch import Tensor, nn

from mvtool.converters.capture import capture
from mvtool.converters.inputs import parse_input
from mvtool.ports import Precision, Runtime
from mvtool.program import ModelInfo
from mvtool.runtimes import open_file

pytestmark = pytest.mark.filterwarnings("ignore")


def ceil_pools(x: Tensor) -> Tensor:
    """Pools of a clip and of its frames whose last windows leave the padding."""
    parts = [
        F.max_pool3d(x - 5, 2, (2, 3, 3), ceil_mode=True),
        F.avg_pool3d(x, 3, 2, 1, True, False),
        F.avg_pool2d(x[:, :, 0], 3, 2, 1, ceil_mode=True),
        F.max_pool2d(x[:, :, 1] - 5, 3, 2, 1, ceil_mode=True),
    ]
    return torch.cat([part.flatten(1) for part in parts], 1)


def own_borders(x: Tensor) -> Tensor:
    """Padding with the clip's own cells, and of a picture in the mode that Core ML lacks."""
    clip = F.pad(F.pad(x, (1, 2, 2, 0, 1, 1), "reflect"), (0, 1, 0, 0, 2, 0), "replicate")
    picture = F.pad(x[:, :, 0], (2, 1, 1, 0), "circular")
    return torch.cat([F.pad(clip, (1, 1, 0, 2, 1, 0), "circular").flatten(1), picture.flatten(1)], 1)


class Norms(nn.Module):
    """Every normalization of a video once, and learned slopes."""

    def __init__(self) -> None:
        super().__init__()
        self.group, self.instance, self.slopes = nn.GroupNorm(2, 4), nn.InstanceNorm3d(4, affine=True), nn.PReLU(4)
        self.last = nn.LayerNorm(4)
        torch.manual_seed(1)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1, 1)

    def forward(self, x: Tensor) -> Tensor:
        last = self.last(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
        return self.slopes(torch.cat([self.group(x), self.instance(x), last], 2))


def max_pools(x: Tensor) -> Tensor:
    """Pools as PyTorch pads them, which is TensorFlow's way for the first only, of a clip and of pictures."""
    parts = [
        F.max_pool2d(x[:, :, 0] - 5, 3, 1, 1),
        F.max_pool2d(x[:, :, 1] - 5, 3, 2, 1),
        F.max_pool2d(x[:, :, 2] - 5, (3, 5), (3, 2), (1, 2)),
        F.max_pool3d(x - 5, (1, 3, 3), (1, 2, 2), (0, 1, 1)),
    ]
    return torch.cat([part.flatten(1) for part in parts], 1)


class Pooled(nn.Module):
    """The stem of an image ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 7, stride=2, padding=3), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(F.max_pool2d(torch.relu(self.stem(x)), 3, 2, 1))
        return found


NETS: dict[str, tuple[nn.Module, str]] = {
    "ceil_mode pools": (Apply(ceil_pools), "1x2x5x9x8"),
    "maximum pools": (Apply(max_pools), "1x2x3x8x12"),
    "own borders": (Apply(own_borders), "1x2x3x5x4"),
    "normalizations": (Norms(), "1x4x3x6x5"),
}


@pytest.mark.parametrize("target", list(Runtime), ids=lambda t: t.value)
@pytest.mark.parametrize("name", NETS)
def test_every_runtime_takes_what_the_lowering_wrote(name: str, target: Runtime, tmp_path: Path) -> None:
    torch.manual_seed(2)
    net, shape = NETS[name]
    program = capture(net.eval(), [parse_input(shape)], ModelInfo("probe"))
    session = open_file(write(program, target, Precision.FP32, tmp_path))
    session.reset()
    x = torch.randn(parse_input(shape).shape)
    with torch.no_grad():
        want = net(x).numpy()
    (found,) = session.step(x.numpy()).values()
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(found, want, atol=1e-4 * max(1.0, float(np.abs(want).max())))


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8], ids=lambda p: p.value)
@pytest.mark.parametrize("target", [Runtime.TFLITE, Runtime.EXECUTORCH], ids=lambda t: t.value)
@pytest.mark.parametrize(
    ("net", "shape"),
    [(WindowTransformer(), "1x3x16x16"), (ChannelNorms(), "1x3x4x16x16"), (Pooled(), "1x3x24x24")],
    ids=["window transformer", "channel norms", "padded pool"],
)
def test_attention_norms_and_pools_stay_in_one_delegate(
    net: nn.Module, shape: str, target: Runtime, precision: Precision, tmp_path: Path
) -> None:
    program = capture(net.eval(), [parse_input(shape)], ModelInfo("probe"))
    _, said = emitted(program, target, precision, tmp_path)
    assert (said.delegation["delegates"], said.delegation.get("operators_outside", {})) == (1, {})
