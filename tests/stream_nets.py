"""Small streaming nets in lowered form: the graph takes and gives port arrays, channels-last, at most four axes."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mvtool.ports import InputPort, LogicalState, OutputPort, Preprocessing, StateForm, TensorPort
from mvtool.program import ModelInfo, StateSpec, StreamProgram
from mvtool.quantization.calibration import CalibrationSet

SIZE, CHANNELS, TAPS, CLASSES = 8, 8, 3, 5


Port = TypeVar("Port", bound=TensorPort)


def first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


class Block(nn.Module):
    """Convolution, temporal convolution over a buffer, squeeze-excite over a running mean, projection."""

    one: Tensor

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=2)
        self.temporal = nn.Parameter(torch.randn(channels, 1, TAPS, 1) * 0.5)
        self.bias = nn.Parameter(torch.randn(channels) * 0.1)
        self.squeeze = nn.Linear(2 * channels, 4)
        self.excite = nn.Linear(4, channels)
        self.project = nn.Conv2d(channels, channels, 1)
        self.head = nn.Linear(channels, CLASSES)
        self.register_buffer("one", torch.ones(1, 1))

    def forward(self, frame: Tensor, count: Tensor, past: Tensor, mean: Tensor) -> tuple[Tensor, ...]:
        side, channels = SIZE // 2, self.bias.numel()
        x = F.hardswish(last(self.stem(F.pad(first(frame), (0, 1, 0, 1)))))
        window = torch.cat([past, x])
        picture = first(window.reshape(1, TAPS, side * side, channels))
        y = last(F.conv2d(picture, self.temporal, self.bias, groups=channels)).reshape(1, side, side, channels)
        pooled = first(y).mean((2, 3), keepdim=True).reshape(1, channels)
        counted = count + self.one
        mean = pooled + (mean - pooled) * (count / counted)
        gate = torch.sigmoid(self.excite(F.hardswish(self.squeeze(torch.cat([pooled, mean], 1)))))
        z = last(self.project(first(y * gate.reshape(1, 1, 1, channels)))) + x
        logits = self.head(first(z).mean((2, 3), keepdim=True).reshape(1, channels))
        return logits, counted, window[1:], mean


def port(kind: type[Port], name: str, position: int, shape: tuple[int, ...], **extra: Any) -> Port:
    return kind(
        name=name,
        position=position,
        shape=shape,
        dtype="float32",
        logical_shape=shape,
        permutation=tuple(range(len(shape))),
        **extra,
    )


def state(name: str, form: StateForm, position: int, shape: tuple[int, ...]) -> StateSpec:
    return StateSpec(
        logical=LogicalState(name=name, source=name, meaning="", shape=shape, dtype="float32"),
        form=form,
        initial=np.zeros(shape, np.float32),
        input=port(TensorPort, name, position, shape),
        output=port(TensorPort, f"{name}_next", position, shape),
    )


def stream_program(seed: int = 0) -> StreamProgram:
    torch.manual_seed(seed)
    net = Block().eval()
    shapes = [(1, SIZE, SIZE, 3), (1, 1), (TAPS - 1, SIZE // 2, SIZE // 2, CHANNELS), (1, CHANNELS)]
    with torch.no_grad():
        exported = torch.export.export(net, tuple(torch.zeros(s) for s in shapes))
    return StreamProgram(
        exported=exported,
        info=ModelInfo("block", preprocessing=Preprocessing(resize_short_side=SIZE, crop=(SIZE, SIZE))),
        inputs=(port(InputPort, "frame", 0, shapes[0], image=True, layout="NHWC", logical_layout="NHWC"),),
        states=(
            state("count", StateForm.COUNTER, 1, shapes[1]),
            state("past", StateForm.FIFO, 2, shapes[2]),
            state("mean", StateForm.MEAN, 3, shapes[3]),
        ),
        outputs=(port(OutputPort, "logits", 0, (1, CLASSES)),),
    )


def clips(count: int = 2, steps: int = 8, seed: int = 0) -> CalibrationSet:
    generator = np.random.default_rng(seed)
    return CalibrationSet(
        tuple(
            tuple((generator.random((1, SIZE, SIZE, 3), dtype=np.float32),) for _ in range(steps)) for _ in range(count)
        )
    )
