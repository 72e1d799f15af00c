"""Core ML packages: what they compute, how their ports are declared, and that their bytes repeat."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mvtool.converters.coreml import emit
from mvtool.converters.coreml_check import check_one_step
from mvtool.converters.coreml_spec import PORTS_KEY, float_types, main_block
from mvtool.converters.coreml_tools import coremltools
from mvtool.errors import ConversionError, UsageError
from mvtool.ports import (
    InputPort,
    LogicalState,
    OutputPort,
    PortManifest,
    Precision,
    Preprocessing,
    StateForm,
    TensorPort,
)
from mvtool.program import ModelInfo, StateSpec, StreamProgram
from mvtool.runtimes.mlprogram.evaluator import Evaluator
from mvtool.runtimes.mlprogram.loader import load_program

pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The tensor attributes self:UserWarning"),  # nn.GRU's flat weights
]

PICTURE = Preprocessing(resize_short_side=20, crop=(16, 16))


def _fields(value: Tensor) -> dict[str, object]:
    shape = tuple(value.shape)
    dtype = str(value.dtype).removeprefix("torch.")
    return {"shape": shape, "dtype": dtype, "logical_shape": shape, "permutation": tuple(range(len(shape)))}


def make_program(
    module: nn.Module, frame: Tensor, states: Mapping[str, Tensor], *, preprocessing: Preprocessing | None = None
) -> StreamProgram:
    """A lowered program by hand: `module(frame, *states) -> (logits, *next states)`, ports as in the graph."""
    exported = torch.export.export(module.eval(), (frame, *states.values()))
    logits = exported.module()(frame, *states.values())[0]
    image = preprocessing is not None
    inputs = (InputPort(name="frame", position=0, image=image, layout="NCHW" if image else None, **_fields(frame)),)
    outputs = (OutputPort(name="logits", position=0, meaning="logits", **_fields(logits)),)
    specs = tuple(
        StateSpec(
            logical=LogicalState(name=name, source=name, meaning="memory", shape=value.shape, dtype=dtype),
            form=StateForm.OPAQUE,
            initial=value.numpy(),
            input=TensorPort(name=name, position=1 + i, **_fields(value)),
            output=TensorPort(name=f"{name}_next", position=1 + i, **_fields(value)),
        )
        for i, (name, value) in enumerate(states.items())
        for dtype in [str(value.dtype).removeprefix("torch.")]
    )
    return StreamProgram(exported, ModelInfo("mini", preprocessing=preprocessing), inputs, specs, outputs)


class Stream(nn.Module):
    """A one-layer MoViNet: stem, temporal convolution over two past frames, squeeze-excite on a running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.norm = nn.BatchNorm2d(4)
        self.time = nn.Conv2d(12, 4, 1, groups=4)
        self.gate = nn.Linear(4, 4)
        self.head = nn.Linear(4, 5)

    def forward(self, frame: Tensor, past: Tensor, mean: Tensor, count: Tensor) -> tuple[Tensor, ...]:
        x = functional.hardswish(self.norm(self.stem(frame)))
        window = torch.cat([past, x.reshape(4, 1, 8, 8)], 1)
        y = self.time(window.reshape(1, 12, 8, 8))
        count = count + 1
        mean = mean + (y.mean((2, 3)) - mean) / count
        y = y * functional.hardsigmoid(self.gate(functional.silu(mean)))[:, :, None, None]
        return self.head(y.mean((2, 3))), window[:, 1:], mean, count


def stream_program() -> StreamProgram:
    torch.manual_seed(0)
    module = Stream()
    assert module.norm.running_mean is not None
    assert module.norm.running_var is not None
    module.norm.running_mean.uniform_(-1, 1)
    module.norm.running_var.uniform_(0.5, 2)
    states = {"past": torch.zeros(4, 2, 8, 8), "mean": torch.zeros(1, 4), "count": torch.zeros(1, 1)}
    return make_program(module, torch.zeros(1, 3, 16, 16), states, preprocessing=PICTURE)


def roll(path: Path, program: StreamProgram, manifest: PortManifest, steps: int) -> float:
    """Largest error of any output of the package over a stream, relative to the tensor's largest value."""
    evaluator, graph = Evaluator(load_program(path)), program.exported.module()
    generator = np.random.default_rng(1)
    stored = {b.input.name: b.reset.array(b.input) for b in manifest.states}
    reference = [torch.from_numpy(np.asarray(s.initial)) for s in program.states]
    worst = 0.0
    for _ in range(steps):
        port = manifest.inputs[0]
        noise = generator.integers(0, 256, port.shape) if port.dtype == "uint8" else generator.normal(size=port.shape)
        frame = noise.astype(port.dtype)
        real = torch.from_numpy(port.decode(frame).astype(np.float32)).reshape(port.shape)
        got = evaluator.run({port.name: frame, **stored})
        with torch.no_grad():
            results = graph(real, *reference)
        for output, expected in zip(manifest.output_ports, results, strict=True):
            difference = np.abs(got[output.name].astype(np.float64) - expected.detach().numpy())
            worst = max(worst, float(difference.max() / max(float(expected.abs().max()), 1e-3)))
        stored = {b.input.name: got[b.output.name] for b in manifest.states}
        reference = list(results[len(manifest.outputs) :])
    return worst


def specification(path: Path) -> Any:
    return coremltools().models.MLModel(str(path), skip_model_load=True).get_spec()


def test_fp32_computes_in_fp32_and_equals_the_program(tmp_path: Path) -> None:
    program, path = stream_program(), tmp_path / "mini.mlpackage"
    manifest = emit(program, path, Precision.FP32)
    assert float_types(specification(path)) == {"FLOAT32"}
    assert roll(path, program, manifest, steps=12) < 2e-6


def test_fp16_computes_features_in_float16_and_accumulators_in_float32(tmp_path: Path) -> None:
    program, path = stream_program(), tmp_path / "mini.mlpackage"
    manifest = emit(program, path, Precision.FP16)
    types = {b.state: b.input.dtype for b in manifest.states}
    assert types == {"past": "float16", "mean": "float32", "count": "float32"}
    assert float_types(specification(path)) == {"FLOAT16", "FLOAT32"}
    kinds = {o.outputs[0].name: o.type for o in main_block(specification(path)).operations if o.outputs}
    assert kinds["mean_next"] == "add"  # computed in float32, not cast to it afterwards
    assert kinds["count_next"] == "add"
    assert roll(path, program, manifest, steps=12) < 1e-2


class RunningMean(nn.Module):
    def forward(self, frame: Tensor, mean: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count = count + 1
        mean = mean + (frame - mean) / count
        return mean * 2, mean, count


def test_fp16_running_mean_is_right_after_more_frames_than_float16_can_count(tmp_path: Path) -> None:
    """float16 has no 2049: a counter in it stands still, and the mean with it."""
    states = {"mean": torch.zeros(1, 4), "count": torch.zeros(1, 1)}
    path = tmp_path / "mean.mlpackage"
    emit(make_program(RunningMean(), torch.zeros(1, 4), states), path, Precision.FP16)
    package = Evaluator(load_program(path))
    frames = np.random.default_rng(0).uniform(0, 2, (2100, 1, 4)).astype(np.float32)
    state = {"mean": np.zeros((1, 4), np.float32), "count": np.zeros((1, 1), np.float32)}
    for frame in frames:
        got = package.run({"frame": frame, **state})
        state = {"mean": got["mean_next"], "count": got["count_next"]}
    assert state["count"].item() == 2100
    np.testing.assert_allclose(state["mean"], frames.mean(0), rtol=1e-5)


class Clock(nn.Module):
    """A positional encoding: a fraction of the frame counter, times the picture."""

    def forward(self, frame: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        turns = count * 0.37
        return frame * (turns - torch.floor(turns)), count + 1


class IntegerClock(nn.Module):
    def forward(self, frame: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        turns = count.float() * 0.37
        return frame * (turns - torch.floor(turns)), count + 1


@pytest.mark.parametrize(("clock", "dtype"), [(Clock, torch.float32), (IntegerClock, torch.int64)])
def test_fp16_keeps_what_depends_on_the_frame_counter_in_float32(
    clock: type[nn.Module], dtype: torch.dtype, tmp_path: Path
) -> None:
    path = tmp_path / "clock.mlpackage"
    program = make_program(clock(), torch.zeros(1, 4), {"count": torch.zeros(1, 1, dtype=dtype)})
    port = emit(program, path, Precision.FP16).states[0].input
    count = np.full((1, 1), 70_001, port.dtype)  # beyond the largest float16
    got = Evaluator(load_program(path)).run({"frame": np.ones((1, 4), np.float32), "count": count})
    np.testing.assert_allclose(got["logits"], 70_001 * 0.37 % 1, atol=0.004)  # 70001 * 2**-24: float32 itself
    assert got["count_next"].item() == 70_002


def test_ports_carry_the_manifests_names_and_order(tmp_path: Path) -> None:
    path = tmp_path / "mini.mlpackage"
    manifest = emit(stream_program(), path, Precision.FP32)
    description = specification(path).description
    assert [f.name for f in description.input] == [p.name for p in manifest.input_ports]
    assert [f.name for f in description.output] == [p.name for p in manifest.output_ports]
    assert [f.name for f in description.input] == ["frame", "past", "mean", "count"]


def test_manifest_and_state_pairing_are_readable_in_xcode(tmp_path: Path) -> None:
    path = tmp_path / "mini.mlpackage"
    manifest = emit(stream_program(), path, Precision.FP32)
    description = specification(path).description
    assert dict(description.metadata.userDefined) == {PORTS_KEY: manifest.to_json()}
    assert PortManifest.from_json(description.metadata.userDefined[PORTS_KEY], str(path)) == manifest
    sentences = {f.name: f.shortDescription for f in (*description.input, *description.output)}
    assert "zeros at the first frame, then output 'past_next'" in sentences["past"]
    assert "feed it to input 'past'" in sentences["past_next"]


def test_a_frame_enters_as_an_image_of_bytes(tmp_path: Path) -> None:
    path = tmp_path / "mini.mlpackage"
    frame = emit(stream_program(), path, Precision.FP32).inputs[0]
    kind = specification(path).description.input[0].type
    assert kind.WhichOneof("Type") == "imageType"
    assert frame.quantization is not None
    assert (frame.core_ml_image, frame.dtype, frame.quantization.zero_point) == (True, "uint8", 0)
    assert frame.quantization.scale == pytest.approx(1 / 255)


class Clip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)

    def forward(self, frame: Tensor) -> tuple[Tensor]:
        return (self.body(frame).mean((0, 2, 3))[None],)


def test_a_clip_enters_as_a_multi_array(tmp_path: Path) -> None:
    path = tmp_path / "clip.mlpackage"
    program = make_program(Clip(), torch.zeros(5, 3, 16, 16), {}, preprocessing=PICTURE)
    manifest = emit(program, path, Precision.FP16)
    assert (manifest.inputs[0].core_ml_image, manifest.inputs[0].dtype) == (False, "float32")
    assert list(specification(path).description.input[0].type.multiArrayType.shape) == [5, 3, 16, 16]


class GruCell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 6)

    def forward(self, frame: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(frame, h)
        return h, h


class GruLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(4, 6, batch_first=True)

    def forward(self, frame: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(frame, h)


class Tcn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Conv1d(4, 6, 3)
        self.far = nn.Conv1d(6, 6, 3, dilation=2)

    def forward(self, frame: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.cat([a, frame], 2)
        y = torch.cat([b, self.near(x).relu()], 2)
        return self.far(y), x[:, :, 1:], y[:, :, 1:]


class ConvLstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Conv2d(5, 8, 3, 1, 1)

    def forward(self, frame: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        i, f, o, g = self.gates(torch.cat([frame, h], 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return h.mean((2, 3)), h, c


class Shift(nn.Module):
    """Temporal shift: some channels come from the frame before."""

    def forward(self, frame: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([held, frame[:, 1:]], 1) * 2, frame[:, :1].clone()


class Delay(nn.Module):
    """States that are the input itself, and another state itself."""

    def forward(self, frame: Tensor, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return frame - two, frame.clone(), one.clone()


class Counter(nn.Module):
    def forward(self, frame: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        return frame * (n % 3).float(), n + 1


class Toggle(nn.Module):
    def forward(self, frame: Tensor, on: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(on, frame, -frame), torch.logical_not(on)


FOREIGN = {
    "gru_cell": (GruCell, (1, 4), {"h": torch.full((1, 6), 0.5)}),
    "gru_layer": (GruLayer, (1, 1, 4), {"h": torch.zeros(1, 1, 6)}),
    "tcn": (Tcn, (1, 4, 1), {"a": torch.zeros(1, 4, 2), "b": torch.zeros(1, 6, 4)}),
    "conv_lstm": (ConvLstm, (1, 3, 6, 6), {"h": torch.zeros(1, 2, 6, 6), "c": torch.ones(1, 2, 6, 6)}),
    "shift": (Shift, (1, 4, 6, 6), {"held": torch.arange(36.0).reshape(1, 1, 6, 6)}),
    "delay": (Delay, (1, 4), {"one": torch.ones(1, 4), "two": torch.full((1, 4), 2.0)}),
    "integer_counter": (Counter, (1, 4), {"n": torch.tensor([5])}),
    "toggle": (Toggle, (1, 4), {"on": torch.tensor([True])}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_models_that_are_not_ours_convert_and_stream(name: str, tmp_path: Path) -> None:
    factory, shape, states = FOREIGN[name]
    torch.manual_seed(0)
    program, path = make_program(factory(), torch.zeros(shape), states), tmp_path / "m.mlpackage"
    manifest = emit(program, path, Precision.FP32)
    if name in ("integer_counter", "toggle"):
        assert manifest.states[0].input.dtype == "int32"
    package, graph = Evaluator(load_program(path)), program.exported.module()
    stored = {b.input.name: b.reset.array(b.input) for b in manifest.states}
    held = [torch.from_numpy(np.asarray(s.initial)) for s in program.states]
    for step in range(5):
        frame = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        got = package.run({"frame": frame.numpy(), **stored})
        logits, *held = graph(frame, *held)
        np.testing.assert_allclose(got["logits"], logits.detach(), rtol=1e-5, atol=1e-6)
        for binding, value in zip(manifest.states, held, strict=True):
            np.testing.assert_allclose(got[binding.output.name], value.detach(), rtol=1e-5, atol=1e-6)
        stored = {b.input.name: got[b.output.name] for b in manifest.states}


class Quantized(nn.Module):
    """What PT2E leaves of `logits = conv(cat(past, frame)) + 1`: the constant is stored as 127 at (1/255, -128)."""

    weight: Tensor
    weight_scale: Tensor
    weight_zero: Tensor
    one: Tensor

    def __init__(self, scale_in: float, scale_out: float) -> None:
        super().__init__()
        self.scales = scale_in, scale_out
        self.register_buffer("weight", torch.randint(-127, 128, (4, 4, 3, 3), dtype=torch.int8))
        self.register_buffer("weight_scale", torch.rand(4) * 0.01 + 0.001)
        self.register_buffer("weight_zero", torch.zeros(4, dtype=torch.int64))
        self.register_buffer("one", torch.tensor(127, dtype=torch.int8))

    @staticmethod
    def _round(x: Tensor, scale: float, zero_point: int) -> Tensor:
        q = torch.ops.quantized_decomposed
        stored = q.quantize_per_tensor(x, scale, zero_point, -128, 127, torch.int8)
        return q.dequantize_per_tensor(stored, scale, zero_point, -128, 127, torch.int8)

    def forward(self, frame: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        q = torch.ops.quantized_decomposed
        weight = q.dequantize_per_channel(self.weight, self.weight_scale, self.weight_zero, 0, -127, 127, torch.int8)
        one = q.dequantize_per_tensor(self.one, 1 / 255, -128, -128, 127, torch.int8)
        x = self._round(frame, 1 / 255, -128)
        window = torch.cat([self._round(past, self.scales[0], -128), x], 1)
        y = self._round(functional.conv2d(window, weight), 0.02, -10) + one
        return self._round(y, 0.02, -30), self._round(x[:, :1], self.scales[1], -128)


def register_quantized_operators() -> None:
    importlib.import_module("torch.ao.quantization.fx._decomposed")


def quantized_program(scale_in: float = 1 / 255, scale_out: float = 1 / 255) -> StreamProgram:
    register_quantized_operators()
    torch.manual_seed(0)
    states = {"past": torch.zeros(1, 1, 16, 16)}
    return make_program(Quantized(scale_in, scale_out), torch.zeros(1, 3, 16, 16), states, preprocessing=PICTURE)


def test_int8_has_int8_weights_and_activations(tmp_path: Path) -> None:
    path = tmp_path / "mini.mlpackage"
    manifest = emit(quantized_program(), path, Precision.INT8)
    kinds = [o.type for o in main_block(specification(path)).operations]
    assert {"quantize", "dequantize", "constexpr_affine_dequantize"} <= set(kinds)
    state = manifest.states[0].input
    assert state.dtype == "float16"
    assert state.grid is not None
    assert state.grid.zero_point == -128
    assert state.grid.scale == pytest.approx(1 / 255, rel=2**-11)


def test_int8_state_values_lie_on_the_declared_grid(tmp_path: Path) -> None:
    program, path = quantized_program(), tmp_path / "mini.mlpackage"
    manifest = emit(program, path, Precision.INT8)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16), np.uint8)
    past = np.zeros((1, 1, 16, 16), np.float16)
    got = Evaluator(load_program(path)).run({"frame": pixels, "past": past})
    grid = manifest.states[0].input.grid
    assert grid is not None
    steps = got["past_next"].astype(np.float64) / grid.scale
    np.testing.assert_allclose(steps, pixels[:, :1], atol=0.13)  # 255 * 2**-11: the rounding of float16 itself
    expected = program.exported.module()(torch.from_numpy(pixels / np.float32(255)), torch.zeros(1, 1, 16, 16))[0]
    assert np.abs(got["logits"] - expected.numpy()).max() < 0.05 * expected.abs().max().item()


class UnequalSum(nn.Module):
    """A quantized sum of ranges a thousandfold apart."""

    def forward(self, frame: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        large = Quantized._round(past, 1.0, -5)
        small = Quantized._round(frame, 0.001, 3)
        return Quantized._round(large + small, 1.0, -5), large


def test_int8_program_of_the_shared_quantizer_converts(tmp_path: Path) -> None:
    """Rolled calibration and ties by `mvtool.quantization.pt2e`; the means stay float."""
    from mvtool.quantization.calibration import CalibrationSet
    from mvtool.quantization.pt2e import quantize

    generator = np.random.default_rng(0)
    clip = tuple((generator.random((1, 3, 16, 16), np.float32),) for _ in range(6))
    quantized = quantize(stream_program(), CalibrationSet(clips=(clip,)))
    path = tmp_path / "mini.mlpackage"
    manifest = emit(quantized.program, path, Precision.INT8)
    ports = {b.state: b.input for b in manifest.states}
    assert ports["mean"].grid is None
    assert (ports["mean"].dtype, ports["count"].dtype) == ("float32", "float32")
    grid = ports["past"].grid
    assert grid is not None
    assert grid.scale == pytest.approx(quantized.ports["past"].scale, rel=2**-11)
    assert grid.zero_point == quantized.ports["past"].zero_point
    assert roll(path, quantized.program, manifest, steps=8) < 0.1


def test_int8_sum_of_unequal_ranges_does_not_overflow_float16(tmp_path: Path) -> None:
    """coremltools would scale the larger operand to 255 * 1000 here."""
    register_quantized_operators()
    path = tmp_path / "sum.mlpackage"
    emit(make_program(UnequalSum(), torch.zeros(1, 4), {"past": torch.zeros(1, 4)}), path, Precision.INT8)
    past = np.array([[-120, -80, 90, 130]], np.float16)
    got = Evaluator(load_program(path)).run({"frame": np.zeros((1, 4), np.float32), "past": past})
    np.testing.assert_array_equal(got["logits"], past)


def test_int8_state_with_two_scales_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"State 'past' .* enters with scale .* leaves with scale"):
        emit(quantized_program(scale_out=0.005), tmp_path / "mini.mlpackage", Precision.INT8)
    assert not list(tmp_path.iterdir())


BUILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_coreml
test_coreml.build_all(Path(sys.argv[2]))
"""


def build_all(out: Path) -> None:
    for precision, program in (
        (Precision.FP32, stream_program()),
        (Precision.FP16, stream_program()),
        (Precision.INT8, quantized_program()),
    ):
        emit(program, out / f"{precision.value}.mlpackage", precision)


def files_of(out: Path) -> dict[str, bytes]:
    return {str(f.relative_to(out)): f.read_bytes() for f in sorted(out.rglob("*")) if f.is_file()}


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    """This process has converted other models before; the other is fresh and hashes differently."""
    emit(make_program(Delay(), torch.zeros(1, 4), FOREIGN["delay"][2]), tmp_path / "other.mlpackage", Precision.FP16)
    build_all(tmp_path / "here")
    command = [sys.executable, "-W", "ignore", "-c", BUILD, str(Path(__file__).parent), str(tmp_path / "there")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "77"}, timeout=300)
    here, there = files_of(tmp_path / "here"), files_of(tmp_path / "there")
    assert len(here) == 9
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []
    model = here["fp32.mlpackage/Data/com.apple.CoreML/model.mlmodel"]
    for varying in (b"site-packages", str(Path(__file__).parents[2]).encode(), b"coremltools", b"torch"):
        assert varying not in model


def test_an_older_package_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "mini.mlpackage"
    (path / "Data").mkdir(parents=True)
    (path / "Data" / "stale").write_text("old")
    emit(stream_program(), path, Precision.FP32)
    files = sorted(str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file())
    inside = "mini.mlpackage/Data/com.apple.CoreML"
    assert files == [f"{inside}/model.mlmodel", f"{inside}/weights/weight.bin", "mini.mlpackage/Manifest.json"]
    root = json.loads((path / "Manifest.json").read_text())
    assert root["itemInfoEntries"][root["rootModelIdentifier"]]["path"] == "com.apple.CoreML/model.mlmodel"


def test_an_older_package_survives_a_failing_conversion(tmp_path: Path) -> None:
    path = tmp_path / "mini.mlpackage"
    path.mkdir()
    (path / "kept").write_text("old")
    with pytest.raises(ConversionError):
        emit(quantized_program(scale_out=0.005), path, Precision.INT8)
    assert [f.name for f in tmp_path.rglob("*")] == ["mini.mlpackage", "kept"]


class Unknown(nn.Module):
    def forward(self, frame: Tensor) -> tuple[Tensor]:
        return (torch.linalg.svdvals(frame),)


def test_an_operator_without_a_core_ml_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="linalg_svd"):
        emit(make_program(Unknown(), torch.rand(4, 4), {}), tmp_path / "mini.mlpackage", Precision.FP32)


class Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv3d(1, 1, 3)

    def forward(self, frame: Tensor) -> tuple[Tensor]:
        return (self.body(frame[None]).squeeze(0),)


def test_five_axes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="5 axes"):
        emit(make_program(Volume(), torch.rand(1, 4, 4, 4), {}), tmp_path / "mini.mlpackage", Precision.FP32)


class ReshapedConstant(nn.Module):
    gain: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gain", torch.arange(4.0).reshape(1, 4, 1, 1, 1))

    def forward(self, frame: Tensor) -> tuple[Tensor]:
        return (frame * self.gain.squeeze(2),)


def test_a_constant_of_five_axes_that_is_only_reshaped_converts(tmp_path: Path) -> None:
    path = tmp_path / "mini.mlpackage"
    emit(make_program(ReshapedConstant(), torch.zeros(1, 4, 3, 3), {}), path, Precision.FP32)
    got = Evaluator(load_program(path)).run({"frame": np.ones((1, 4, 3, 3), np.float32)})
    np.testing.assert_array_equal(got["logits"][0, :, 1, 2], [0, 1, 2, 3])
    assert all(len(o.outputs[0].type.tensorType.dimensions) <= 4 for o in main_block(specification(path)).operations)


def test_a_scalar_port_is_refused(tmp_path: Path) -> None:
    program = make_program(Counter(), torch.zeros(1, 4), {"n": torch.tensor(0)})
    with pytest.raises(ConversionError, match=r"Port 'n' .* is a scalar"):
        emit(program, tmp_path / "mini.mlpackage", Precision.FP32)


def test_another_extension_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mlpackage"):
        emit(stream_program(), tmp_path / "mini.mlmodel", Precision.FP32)


def test_a_file_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    """Mutant: one weight byte of the written file is changed."""
    program, path = stream_program(), tmp_path / "mini.mlpackage"
    messages: list[str] = []
    manifest = emit(program, path, Precision.FP32, report=messages.append)
    assert "executed by the reference evaluator" in messages[-1]
    blob = path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    data = bytearray(blob.read_bytes())
    data[131] ^= 0x40  # exponent of the first weight: 64 bytes of file header, 64 of record header, then float32
    blob.write_bytes(data)
    with pytest.raises(ConversionError, match="does not compute 'mini'"):
        check_one_step(path, program, manifest)
