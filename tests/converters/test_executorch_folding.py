from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from stream_nets import clips, stream_program
from torch import Tensor, nn
from torch.export import ExportedProgram

from mvtool.converters import executorch, executorch_lowering
from mvtool.converters.executorch_folding import fold
from mvtool.converters.executorch_lowering import lower_to_executorch
from mvtool.converters.executorch_xnnpack import fold_movement, kind_of
from mvtool.ports import AnyArray
from mvtool.quantization.pt2e import quantize
from mvtool.runtimes.executorch import ExecuTorchExecutable

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


def last(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer on (N, C, H, W) between values (N, H, W, C), as `spelled` writes programs."""
    result: Tensor = layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return result


class Padded(nn.Module):
    """TensorFlow's padding of strided convolutions, one of which pads by itself too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2)
        self.second = nn.Conv2d(8, 8, 5, stride=2, groups=8, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = last(self.first, F.pad(x, (0, 0, 0, 1, 0, 1)))
        return last(self.second, F.pad(y, (0, 0, 1, 2, 0, 1)))


class PaddedWithOnes(Padded):
    def forward(self, x: Tensor) -> Tensor:
        return last(self.first, F.pad(x, (0, 0, 0, 1, 0, 1), value=1.0))


class PaddedForOthers(Padded):
    """What is padded is read by an addition too."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(x, (0, 0, 0, 1, 0, 1))
        return last(self.first, y) + (y + 1.0).mean()


class Gated(nn.Module):
    """Squeeze-excite of a picture by dense layers on rows, and a counter that is broadcast."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Linear(8, 4), nn.Linear(4, 8)

    def forward(self, x: Tensor, count: Tensor) -> Tensor:
        mean = x.mean((1, 2), keepdim=True) * (1.0 / (count + 1.0)).reshape(1, 1, 1, 1)
        hidden = F.hardswish(self.reduce(mean.reshape(1, 8)).reshape(1, 1, 1, 4))
        gate = torch.sigmoid(self.expand(hidden.reshape(1, 4)).reshape(1, 1, 1, 8))
        return x * gate


def exported(module: nn.Module, *inputs: Tensor) -> ExportedProgram:
    torch.manual_seed(0)
    made: ExportedProgram = torch.export.export(module.eval(), inputs)
    return made


def lowered(
    program: ExportedProgram, folding: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> tuple[bytes, Counter[str]]:
    """The file, and how many operators of each kind its graph has."""
    counts: Counter[str] = Counter()

    def watched(graph: Any) -> None:
        folding(graph)
        counts.update(kind_of(node.xnode_union) for node in graph.xnodes)

    monkeypatch.setattr(executorch_lowering, "fold", watched)
    return lower_to_executorch(program, {})[0], counts


def run(data: bytes, folder: Path, inputs: list[AnyArray]) -> list[AnyArray]:
    (folder / "net.pte").write_bytes(data)
    return [array.copy() for array in ExecuTorchExecutable(folder / "net.pte", threads=1).run(inputs)]


def both(
    program: ExportedProgram, inputs: list[AnyArray], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Counter[str], Counter[str]]:
    """Operators without and with folding; the two compute the same bits."""
    plain, before = lowered(program, fold_movement, monkeypatch)
    folded, after = lowered(program, fold, monkeypatch)
    for one, other in zip(run(plain, folder, inputs), run(folded, folder, inputs), strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.abs(one).max() > 0
    return before, after


def picture(channels: int, size: int) -> AnyArray:
    return np.random.default_rng(0).random((1, size, size, channels), dtype=np.float32)


def test_convolutions_pad_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = both(exported(Padded(), torch.rand(1, 16, 16, 3)), [picture(3, 16)], tmp_path, monkeypatch)
    assert (before["XNNStaticConstantPad"], after["XNNStaticConstantPad"]) == (2, 0)


@pytest.mark.parametrize("module", [PaddedWithOnes(), PaddedForOthers()], ids=["ones", "read by others"])
def test_other_padding_stays(module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = both(exported(module, torch.rand(1, 16, 16, 3)), [picture(3, 16)], tmp_path, monkeypatch)
    assert before["XNNStaticConstantPad"] == after["XNNStaticConstantPad"] == 1


def test_dense_layers_read_values_of_any_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = exported(Gated(), torch.rand(1, 6, 6, 8), torch.ones(1))
    inputs = [picture(8, 6), np.full(1, 3.0, np.float32)]
    before, after = both(program, inputs, tmp_path, monkeypatch)
    assert before["XNNStaticReshape"] >= 4
    assert after["XNNStaticReshape"] == 0
    assert after["XNNFullyConnected"] == 2


@pytest.mark.parametrize("int8", [False, True], ids=["fp32", "int8"])
def test_a_stream_computes_the_same_bits(int8: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = executorch.prepare(stream_program())
    ported = program
    if int8:
        quantized = quantize(program, clips())
        ported = program.replace(exported=executorch.int8_ported(quantized).exported)
    names = set(ported.exported.graph_signature.user_inputs)
    placeholders = [node for node in ported.exported.graph.nodes if node.op == "placeholder" and node.name in names]
    generator = np.random.default_rng(1)
    inputs = [
        generator.integers(-60, 60, tuple(node.meta["val"].shape)).astype(
            str(node.meta["val"].dtype).removeprefix("torch.")
        )
        for node in placeholders
    ]
    before, after = both(ported.exported, inputs, tmp_path, monkeypatch)
    assert sum(after.values()) < sum(before.values())
