"""int8-dynamic and int8-weights end to end: files of all runtimes, their arithmetic, their size, and `mvtool verify`."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mvtool.build import Build
from mvtool.converters import pipeline
from mvtool.converters.capture import capture
from mvtool.converters.inputs import parse_input
from mvtool.converters.recipe import RECIPES
from mvtool.errors import UsageError
from mvtool.ports import Precision, Runtime
from mvtool.program import ModelInfo
from mvtool.quantization.policy import WEIGHTS as WEIGHTS_POLICY
from mvtool.runtimes.pytorch import open_program
from mvtool.session import Session
from mvtool.verification.bounds import FP32_LIMIT
from mvtool.verification.report import Check, Verification
from mvtool.verification.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

SIZE, FEATURES, HIDDEN = 12, 64, 1024
INPUT = parse_input(f"frame=1x3x{SIZE}x{SIZE}@tensor")
LAYERS = ("stem", "depthwise", "mix", "hidden", "head")
TFLITE, COREML, EXECUTORCH = Runtime
DYNAMIC, WEIGHTS = Precision.INT8_DYNAMIC, Precision.INT8_WEIGHTS
ARTIFACTS = ((TFLITE, DYNAMIC), (TFLITE, WEIGHTS), (EXECUTORCH, DYNAMIC), (EXECUTORCH, WEIGHTS), (COREML, WEIGHTS))


class Layers(nn.Module):
    """One layer of each kind, and a state between them."""

    past: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.mix = nn.Conv2d(16, FEATURES, 1)
        self.hidden = nn.Linear(FEATURES, HIDDEN)
        self.head = nn.Linear(HIDDEN, 5)
        self.register_buffer("past", torch.zeros(1, FEATURES))

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        x = F.hardswish(self.depthwise(F.relu(self.stem(frame))))
        pooled = F.relu6(self.mix(x)).mean((2, 3))
        mixed = pooled + 0.5 * self.past
        self.past.copy_(mixed)
        return {"scores": self.head(F.relu(self.hidden(mixed)))}


def layers() -> Layers:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return Layers().eval()


def rounded_weights(weight: Tensor) -> Tensor:
    """127 steps to either side of 0, for each output channel."""
    step = weight.detach().double().abs().flatten(1).amax(1).reshape(-1, *[1] * (weight.dim() - 1)) / 127
    return (torch.round(weight.detach().double() / step) * step).float()


def with_rounded(names: Iterable[str]) -> Layers:
    module = copy.deepcopy(layers())
    for name in names:
        layer = module.get_submodule(name)
        layer.weight = nn.Parameter(rounded_weights(layer.weight))  # type: ignore[arg-type]
    return module


def roll(session: Session, steps: int = 6) -> NDArray[np.float32]:
    generator = np.random.default_rng(5)
    session.reset()
    frames = [generator.random((1, 3, SIZE, SIZE), np.float32) for _ in range(steps)]
    return np.stack(
        [np.concatenate([session.step(f)["scores"].ravel(), session.state()["past"].ravel()]) for f in frames]
    )


def roll_torch(module: Layers) -> NDArray[np.float32]:
    return roll(open_program(capture(module, (INPUT,), ModelInfo("layers"))))


def distance(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    out = tmp_path_factory.mktemp("build") / "layers"
    return pipeline.convert(layers(), inputs=(INPUT,), precisions=("int8-dynamic", "int8-weights"), out=out)


@pytest.fixture(scope="module")
def verified(build: Build) -> Verification:
    return verify(build.folder, save=False)


@pytest.mark.slow
def test_each_runtime_has_the_files_that_it_can_have_and_needs_no_calibration(build: Build) -> None:
    written = {(a.runtime, a.precision) for a in build.manifest.artifacts}
    assert written == set(ARTIFACTS)
    assert build.manifest.calibration is None
    assert {a.file for a in build.manifest.artifacts} >= {"Layers_int8-dynamic.pte", "Layers_int8-weights.mlpackage"}


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "precision"), ARTIFACTS)
def test_ports_and_states_stay_float32(build: Build, runtime: Runtime, precision: Precision) -> None:
    ports = build.artifact(runtime, precision).ports
    assert {port.dtype for port in (*ports.input_ports, *ports.output_ports)} == {"float32"}
    assert not any(port.quantization or port.grid for port in (*ports.input_ports, *ports.output_ports))


@pytest.mark.slow
def test_the_delegates_take_everything(build: Build) -> None:
    for precision in (DYNAMIC, WEIGHTS):
        tflite, executorch = (build.artifact(runtime, precision).delegation for runtime in (TFLITE, EXECUTORCH))
        assert tflite == {"delegates": 1, "fully_accelerated": True}
        assert (executorch["delegates"], executorch["operators_outside"]) == (1, {})


@pytest.mark.slow
def test_weights_that_a_runtime_keeps_in_float_are_named(build: Build) -> None:
    assert build.artifact(EXECUTORCH, DYNAMIC).delegation["float_weights"] == {"depthwise conv2d": 1}
    assert build.artifact(EXECUTORCH, WEIGHTS).delegation["float_weights"] == {"conv2d": 1, "depthwise conv2d": 1}


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "precision"), ARTIFACTS)
def test_files_shrink_to_a_quarter_of_the_weights(build: Build, runtime: Runtime, precision: Precision) -> None:
    weights = 4 * sum(parameter.numel() for parameter in layers().parameters())
    size = build.artifact(runtime, precision).bytes
    assert weights / 4 < size < weights / 4 + 30_000


ROUNDED = {TFLITE: LAYERS, COREML: LAYERS, EXECUTORCH: ("mix", "hidden", "head")}


@pytest.mark.slow
@pytest.mark.parametrize("runtime", Runtime)
def test_int8_weights_is_the_float_program_with_rounded_weights(build: Build, runtime: Runtime) -> None:
    found = roll(build.open(runtime, WEIGHTS))
    assert distance(found, roll_torch(with_rounded(ROUNDED[runtime]))) < 1e-5
    assert distance(found, roll_torch(layers())) > 10 * FP32_LIMIT, "a file with float weights would pass"


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [TFLITE, EXECUTORCH])
def test_int8_dynamic_rounds_activations_too(build: Build, runtime: Runtime) -> None:
    found, exact = roll(build.open(runtime, DYNAMIC)), roll_torch(with_rounded(LAYERS))
    assert 1e-4 < distance(found, exact) < 0.1, "float arithmetic on int8 weights is within 1e-5"


@pytest.mark.slow
def test_every_file_is_verified(verified: Verification) -> None:
    failed = [(r.file, c.check, c.message) for r in verified.artifacts for c in r.checks if c.status != "passed"]
    assert verified.passed, failed
    assert all(Check.SIMULATION_STATES in {c.check for c in report.checks} for report in verified.artifacts)


@pytest.mark.slow
def test_int8_weights_is_held_to_the_bounds_of_fp32(verified: Verification) -> None:
    limits = {
        report.precision: {c.limit for c in report.checks if c.check is Check.SIMULATION_OUTPUTS}
        for report in verified.artifacts
    }
    assert limits == {DYNAMIC: {5e-2}, WEIGHTS: {FP32_LIMIT}}


@pytest.mark.slow
def test_an_app_is_told_the_tolerance_of_each_precision(build: Build) -> None:
    tolerances = build.manifest.golden.tolerances
    assert set(tolerances) == {Precision.FP32, Precision.FP16, DYNAMIC, WEIGHTS}
    assert 0.02 <= tolerances[WEIGHTS] <= tolerances[DYNAMIC] < 0.5


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(24, 6)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


class Convolution(nn.Module):
    def __init__(self, kernel: int = 3, stride: int = 2) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 6, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


def rounded_at_run_time(rows: Tensor) -> Tensor:
    """255 steps between the smallest and the largest value of each row, 0 among them."""
    low, high = rows.amin(1, keepdim=True).clamp(max=0), rows.amax(1, keepdim=True).clamp(min=0)
    step = (high - low) / 255
    zero = torch.round(-128 - low / step)
    return (torch.clamp(torch.round(rows / step) + zero, -128, 127) - zero) * step


def by_picture(x: Tensor) -> Tensor:
    return rounded_at_run_time(x.flatten(1)).reshape(x.shape)


def by_position(x: Tensor) -> Tensor:
    rows = x.permute(0, 2, 3, 1)
    return rounded_at_run_time(rows.reshape(-1, 4)).reshape(rows.shape).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("factory", "shape", "rounding"),
    [
        (Dense, (3, 24), rounded_at_run_time),
        (Convolution, (2, 4, 9, 9), by_picture),
        (partial(Convolution, 1, 2), (2, 4, 9, 9), by_picture),
        (partial(Convolution, 1, 1), (2, 4, 9, 9), by_position),
    ],
    ids=["dense", "3x3", "1x1 with a stride", "1x1"],
)
@pytest.mark.parametrize("runtime", [TFLITE, EXECUTORCH])
def test_activations_are_rounded_as_the_kernels_say(
    factory: Callable[[], nn.Module],
    shape: tuple[int, ...],
    rounding: Callable[[Tensor], Tensor],
    runtime: Runtime,
    emit_one: Callable[..., Session],
) -> None:
    torch.manual_seed(2)
    module = factory().eval()
    session = emit_one(module, shape, runtime)
    x = torch.randn(shape) * torch.arange(1, shape[0] + 1).reshape(-1, *[1] * (len(shape) - 1))
    (found,) = session.step(x.numpy()).values()
    layer = copy.deepcopy(module)
    layer.layer.weight = nn.Parameter(rounded_weights(layer.layer.weight))  # type: ignore[union-attr, arg-type]
    with torch.no_grad():
        expected, unrounded = layer(rounding(x)), layer(x)
    noise = (expected - unrounded).abs().mean()
    assert noise > 0
    assert (torch.from_numpy(found) - expected).abs().mean() < 0.05 * noise


@pytest.fixture
def emit_one(tmp_path: Path) -> Callable[..., Session]:
    from emitted import write

    from mvtool.runtimes import open_file

    def emit(module: nn.Module, shape: Sequence[int], runtime: Runtime) -> Session:
        spec = parse_input(f"x={'x'.join(map(str, shape))}@tensor")
        return open_file(write(capture(module, (spec,), ModelInfo("one")), runtime, DYNAMIC, tmp_path))

    return emit


def test_a_precision_that_core_ml_lacks_is_refused_alone_and_left_out_beside_others(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with pytest.raises(
        UsageError, match=r"No int8-dynamic file is written for coreml.*have fp16, fp32, int8, int8-weights"
    ):
        pipeline.convert(layers(), inputs=(INPUT,), targets=["coreml"], precisions=["int8-dynamic"], out=tmp_path / "x")
    (tmp_path / "photo.jpg").write_bytes(b"kept")
    with caplog.at_level(logging.WARNING), pytest.raises(UsageError, match="not a build folder"):
        pipeline.convert(layers(), inputs=(INPUT,), precisions=["int8-dynamic"], out=tmp_path)
    assert "No int8-dynamic file is written for coreml: Core ML rounds no activations" in caplog.text


def test_the_policy_speaks_of_every_such_recipe() -> None:
    assert set(WEIGHTS_POLICY) == {pair for pair in RECIPES if pair[1] in (DYNAMIC, WEIGHTS)}


def test_calibration_is_refused_where_nothing_is_calibrated(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--calibration is for int8"):
        pipeline.convert(
            layers(),
            inputs=(INPUT,),
            precisions=["int8-dynamic", "int8-weights"],
            calibration="clips",
            out=tmp_path / "x",
        )


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x) * x


@pytest.mark.parametrize("runtime", [TFLITE, EXECUTORCH])
def test_a_model_without_weights_is_refused(runtime: Runtime, emit_one: Callable[..., Session]) -> None:
    with pytest.raises(UsageError, match="one has no weights that this runtime can hold in int8"):
        emit_one(Gate(), (1, 8), runtime)
