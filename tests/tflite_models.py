"""One-operator `.tflite` models, and a small lowered stream, for the tests of everything around TFLite."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mvtool.converters.tflite_graph import Graph
from mvtool.ports import (
    AnyArray,
    InputPort,
    LogicalState,
    OutputPort,
    Preprocessing,
    Quantization,
    StateForm,
    TensorPort,
)
from mvtool.program import ModelInfo, StateSpec, StreamProgram

Scale = tuple[float, int] | None


def one_operator(
    kind: str,
    inputs: Sequence[tuple[tuple[int, ...], Scale]],
    output: tuple[tuple[int, ...], Scale],
    *,
    constants: Sequence[AnyArray | tuple[AnyArray, Sequence[float], int]] = (),
    options: str = "",
    fields: dict[str, Any] | None = None,
    version: int = 2,
    constants_first: bool = False,
) -> bytes:
    """A model of one operator; a tensor is float32 without a scale and int8 with one."""
    graph = Graph.empty()
    fed = [_tensor(graph, f"x{i}", *tensor) for i, tensor in enumerate(inputs)]
    held = [_constant(graph, f"c{i}", constant) for i, constant in enumerate(constants)]
    result = _tensor(graph, "y", *output)
    operands = [*held, *fed] if constants_first else [*fed, *held]
    operator = graph.new_operator(kind, operands, [result], options, version)
    for name, value in (fields or {}).items():
        assert hasattr(operator.builtinOptions, name)
        setattr(operator.builtinOptions, name, value)
    graph.replace_operators([operator])
    graph.set_ports([(f"x{i}", t) for i, t in enumerate(fed)], [("y", result)])
    return graph.serialise()


def _tensor(graph: Graph, name: str, shape: tuple[int, ...], scale: Scale) -> int:
    if scale is None:
        return graph.add_tensor(name, shape, "float32")
    return graph.add_tensor(name, shape, "int8", Quantization(scale=scale[0], zero_point=scale[1]))


def _constant(graph: Graph, name: str, constant: Any) -> int:
    if not isinstance(constant, tuple):
        return graph.add_constant(name, constant)
    value, scales, axis = constant
    index = graph.add_constant(name, value)
    graph.set_quantization(index, list(scales), [0] * len(scales), axis)
    return index


def execute(data: bytes, arrays: Sequence[AnyArray]) -> tuple[list[NDArray[Any]], list[str]]:
    """Run a model with XNNPACK: outputs in position order, and the operators that the interpreter shows."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), arrays, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    outputs = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
    return outputs, [o["op_name"] for o in interpreter._get_ops_details()]


def in_child(action: Callable[[], str]) -> str:
    """The result of `action` in a forked process, `crashed` if it dies: some refused graphs abort the runtime."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        try:
            os.write(writer, action().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return text or "crashed"


def kinds(data: bytes) -> list[str]:
    """Operators in the file."""
    graph = Graph.parse(data)
    return [graph.kind(o) for o in graph.operators]


SIZE = 12


class SmallStream(nn.Module):
    """A MoViNet layer in miniature, in lowered form: (1, H, W, C) ports, states as arguments."""

    window: Tensor
    correction: Tensor

    def __init__(self, factored: bool) -> None:
        super().__init__()
        self.factored = factored
        self.stem = nn.Conv2d(3, 8, 3)
        self.temporal = nn.Conv2d(8, 8, (3, 1), groups=8)
        self.reduce, self.expand = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 1)
        self.project, self.skip = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)
        self.register_buffer("window", torch.ones(8, 1, 3, 3))
        counts = F.conv2d(F.pad(torch.ones(1, 1, 6, 6), (0, 1, 0, 1)), torch.ones(1, 1, 3, 3), stride=2)
        self.register_buffer("correction", 1.0 / counts)

    def activate(self, x: Tensor) -> Tensor:
        return x * F.hardtanh(x + 3.0, 0.0, 6.0) if self.factored else F.hardswish(x)

    def forward(self, frame: Tensor, fifo: Tensor, mean: Tensor, count: Tensor) -> tuple[Tensor, ...]:
        x = self.activate(self.stem_of(frame.permute(0, 3, 1, 2)))
        frames = torch.cat([fifo.permute(0, 3, 1, 2), x])
        rows = frames.permute(0, 2, 3, 1).reshape(1, 3, 36, 8).permute(0, 3, 1, 2)
        y = self.temporal(rows).permute(0, 2, 3, 1).reshape(1, 6, 6, 8).permute(0, 3, 1, 2)
        y = self.activate(y)
        pooled = y.mean((2, 3), keepdim=True)
        later = count + 1.0
        average = mean.permute(0, 3, 1, 2) + (pooled - mean.permute(0, 3, 1, 2)) * (1.0 / later).reshape(1, 1, 1, 1)
        gate = F.hardtanh(self.expand(self.activate(self.reduce(torch.cat([average, pooled], 1)))), 0.0, 6.0)
        y = F.conv2d(F.pad(self.project(y * gate), (0, 1, 0, 1)), self.window, stride=2, groups=8) * self.correction
        scores = self.head(y.mean((2, 3)))
        next_fifo = frames[1:].permute(0, 2, 3, 1)
        return scores, next_fifo, average.permute(0, 2, 3, 1), later

    def stem_of(self, picture: Tensor) -> Tensor:
        return F.conv2d(F.pad(picture, (0, 1, 0, 1)), self.stem.weight, self.stem.bias, stride=2)


def small_stream(*, int8: bool, seed: int = 3) -> StreamProgram:
    """`SmallStream` as a lowered program; the int8 form has hard-swish factored."""
    torch.manual_seed(seed)
    module = SmallStream(factored=int8).eval()
    states = (
        _state("fifo", StateForm.FIFO, (2, 6, 6, 8), 0.0),
        _state("mean", StateForm.MEAN, (1, 1, 1, 8), 0.0),
        _state("count", StateForm.COUNTER, (1,), 0.0),
    )
    frame = InputPort(**_port("frame", (1, SIZE, SIZE, 3)), layout="NHWC", image=True, logical_layout="NHWC")
    scores = OutputPort(**_port("scores", (1, 5)), meaning="logits")
    arguments = tuple(torch.zeros(p.shape) for p in (frame, *(s.input for s in states)))
    with torch.no_grad():
        exported = torch.export.export(module, arguments, strict=False)
    info = ModelInfo("small", untrained=True, preprocessing=Preprocessing(resize_short_side=SIZE, crop=(SIZE, SIZE)))
    return StreamProgram(exported, info, (frame,), states, (scores,))


def _state(name: str, form: StateForm, shape: tuple[int, ...], initial: float) -> StateSpec:
    logical = LogicalState(name=name, source=name, meaning="test", shape=shape, dtype="float32")
    before, after = TensorPort(**_port(name, shape)), TensorPort(**_port(f"{name}_next", shape))
    return StateSpec(logical, form, np.full(shape, initial, dtype=np.float32), before, after)


def _port(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {
        "name": name,
        "position": 0,
        "shape": shape,
        "dtype": "float32",
        "logical_shape": shape,
        "permutation": tuple(range(len(shape))),
    }


def frames(count: int, seed: int = 0) -> list[NDArray[np.float32]]:
    """Frames in [0, 1] that move a little."""
    random = np.random.default_rng(seed)
    base = random.random((1, SIZE, SIZE, 3), dtype=np.float32)
    return [np.clip(0.7 * base + 0.3 * random.random(base.shape, dtype=np.float32), 0, 1) for _ in range(count)]


def write_both(folder: Path) -> None:
    """The small stream as fp32 and int8 files."""
    from mvtool.converters import tflite
    from mvtool.quantization.calibration import CalibrationSet
    from mvtool.quantization.tflite import TFLiteQuantization

    tflite.emit(small_stream(int8=False), folder / "fp32.tflite")
    clips = CalibrationSet((tuple((frame,) for frame in frames(20, seed=1)),))
    tflite.emit(small_stream(int8=True), folder / "int8.tflite", quantization=TFLiteQuantization(clips))
