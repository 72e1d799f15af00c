"""A small stream of any number of videos with everything that folds into weights: batch norms, a factor, a skip, a gate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mvtool.converters.capture import capture
from mvtool.converters.inputs import InputSpec
from mvtool.converters.lowering import lower
from mvtool.converters.recipe import recipe_for
from mvtool.ports import AnyArray, Precision, Preprocessing, Runtime
from mvtool.program import ModelInfo
from mvtool.quantization.calibration import CalibrationSet
from mvtool.quantization.fake_quantization import prepare
from mvtool.quantization.pt2e import Simulation, quantize
from mvtool.quantization.training_graph import TrainingGraph, training_graph
from mvtool.streaming.activations import Activation, Gate
from mvtool.streaming.clock import FrameClock
from mvtool.streaming.conv import StreamConv3d
from mvtool.streaming.excite import ExciteType, SqueezeExcite
from mvtool.streaming.pool import CumulativeMean
from mvtool.streaming.state import stream_state
from mvtool.training.fine_tuning import FakeQuantizedStream

SIZE, WIDTH, CLASSES = 12, 8, 4
INFO = ModelInfo("normed", preprocessing=Preprocessing(resize_short_side=SIZE, crop=(SIZE, SIZE)))


class NormedStream(nn.Module):
    def __init__(self, videos: int = 1) -> None:
        super().__init__()
        self.clock = FrameClock()
        self.stem = StreamConv3d(3, WIDTH, (1, 3, 3), stride=2)
        self.stem_norm = nn.BatchNorm3d(WIDTH)
        self.temporal = StreamConv3d(
            WIDTH, WIDTH, (3, 1, 1), groups=WIDTH, causal=True, input_shape=(videos, SIZE // 2, SIZE // 2)
        )
        self.temporal_norm = nn.BatchNorm3d(WIDTH)
        self.excite = SqueezeExcite(
            WIDTH, 4, ExciteType.SPACE_PLUS_SPACE_TIME, Activation.HARD_SWISH, Gate.KERAS, batch=videos
        )
        self.project = StreamConv3d(WIDTH, WIDTH, (1, 1, 1))
        self.project_norm = nn.BatchNorm3d(WIDTH)
        self.rezero = nn.Parameter(torch.tensor(0.7))
        self.pool = CumulativeMean(videos, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, clips: Tensor) -> Tensor:
        clock = self.clock(clips.shape[2])
        x = nn.functional.hardswish(self.stem_norm(self.stem(clips)))
        y = nn.functional.hardswish(self.temporal_norm(self.temporal(x)))
        x = self.project_norm(self.project(self.excite(y, clock))) * self.rezero + x
        logits: Tensor = self.head(self.pool(x.mean((3, 4), keepdim=True), clock)[:, :, -1:].flatten(1))
        return logits


def normed_stream(videos: int = 1, seed: int = 0) -> NormedStream:
    """In eval mode, with statistics of its norms that are neither 0 nor 1."""
    torch.manual_seed(seed)
    module = NormedStream(videos)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm3d):
            assert child.running_mean is not None
            assert child.running_var is not None
            child.running_mean.normal_(std=0.2)
            child.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.normal_(child.bias, std=0.2)
    return module.eval()


def graph_of(stream: NormedStream, videos: int, frames: int) -> TrainingGraph:
    single = normed_stream()
    single.load_state_dict(stream.state_dict())
    return training_graph(single, stream, (videos, 3, frames, SIZE, SIZE), INFO)


def fake_quantized(stream: NormedStream, videos: int, frames: int) -> FakeQuantizedStream:
    graph, declared = graph_of(stream, videos, frames), stream_state(stream)
    sources = {state.logical.name: state.logical.source for state in graph.program.states}
    states = {n: (tuple(stream.get_buffer(s).shape), declared[s]) for n, s in sources.items()}
    return FakeQuantizedStream(prepare(graph), states, frames)


def int8_logits(stream: NormedStream, clips: Tensor, calibration: Tensor) -> Tensor:
    """Of the simulated ExecuTorch artifact at the end of clips (N, 3, T, H, W), calibrated on others."""
    single = normed_stream()
    single.load_state_dict(stream.state_dict())
    program = capture(single, [InputSpec(None, (1, 3, 1, SIZE, SIZE))], INFO, output_names=("logits",))
    lowered = lower(program, recipe_for(Runtime.EXECUTORCH, Precision.INT8))
    simulation = Simulation(
        quantize(lowered, CalibrationSet(tuple(tuple((f,) for f in _frames(c)) for c in calibration)))
    )
    found = []
    for clip in clips:
        values = lowered.initial_ports()
        for frame in _frames(clip):
            given = simulation.step([lowered.inputs[0].encode(frame), *values])
            values = [given[state.output.name] for state in lowered.states]
        found.append(torch.from_numpy(given["logits"]).reshape(CLASSES))
    return torch.stack(found)


def _frames(clip: Tensor) -> Sequence[AnyArray]:
    return [clip[None, :, t : t + 1].numpy() for t in range(clip.shape[1])]
