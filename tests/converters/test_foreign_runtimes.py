"""Models that are not ours go through all three runtimes: capture, lower, emit, and step the written file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from emitted import write
from foreign_models import FOREIGN_MODELS, ForeignModel

import mvtool
from mvtool.converters.capture import capture
from mvtool.ports import AnyArray, InputPort, Precision, Runtime
from mvtool.program import ModelInfo, StreamProgram
from mvtool.runtimes import open_file
from mvtool.runtimes.pytorch import open_program
from mvtool.session import Session

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 12
FP32_LIMIT = 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("model", FOREIGN_MODELS, ids=lambda model: model.name)
def test_a_build_for_all_runtimes_is_verified(model: ForeignModel, tmp_path: Path) -> None:
    build = mvtool.convert(
        model.build(),
        inputs=model.inputs,
        states=model.state_pairs,
        precisions=["fp32", "int8"],
        out=tmp_path / "build",
    )
    verification = mvtool.verify(build.folder)
    assert (len(verification.artifacts), verification.failures) == (6, ())


@pytest.fixture(scope="module", params=FOREIGN_MODELS, ids=lambda model: model.name)
def program(request: pytest.FixtureRequest) -> StreamProgram:
    model: ForeignModel = request.param
    return capture(model.build(), model.inputs, ModelInfo(model.name), state_pairs=model.state_pairs)


def inputs_of(program: StreamProgram) -> list[list[np.ndarray]]:
    generator = np.random.default_rng(5)
    return [[drawn(generator, p) for p in program.inputs] for _ in range(STEPS)]


def drawn(generator: np.random.Generator, port: InputPort) -> AnyArray:
    """Real numbers in 0..1; a flag is set in a quarter of the steps."""
    values = generator.random(port.logical_shape)
    return values < 0.25 if port.dtype == "bool" else values.astype(np.float32)


def outputs(session: Session, steps: list[list[np.ndarray]]) -> list[dict[str, np.ndarray]]:
    session.reset()
    return [dict(session.step(*inputs)) for inputs in steps]


@pytest.mark.parametrize("target", list(Runtime), ids=lambda t: t.value)
def test_fp32_file_computes_the_stream(program: StreamProgram, target: Runtime, tmp_path: Path) -> None:
    session = open_file(write(program, target, Precision.FP32, tmp_path))
    steps = inputs_of(program)
    expected, got = outputs(open_program(program), steps), outputs(session, steps)
    for want, found in zip(expected, got, strict=True):
        for name, value in want.items():
            scale = max(float(np.abs(value).max()), 1e-3)
            assert float(np.abs(found[name] - value).max()) / scale < FP32_LIMIT, name
    assert np.abs(expected[-1][next(iter(expected[-1]))] - expected[0][next(iter(expected[0]))]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("target", list(Runtime), ids=lambda t: t.value)
def test_int8_file_follows_the_stream(
    program: StreamProgram, target: Runtime, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if (program.info.name, target) == ("channel_norms", Runtime.TFLITE):
        request.applymarker(pytest.mark.xfail(reason="6.5 dB; docs/open-points.md", strict=True))
    session = open_file(write(program, target, Precision.INT8, tmp_path))
    steps = inputs_of(program)
    expected, got = outputs(open_program(program), steps), outputs(session, steps)
    name = next(iter(expected[-1]))
    want = np.stack([step[name] for step in expected])
    found = np.stack([step[name] for step in got])
    signal, noise = float(np.square(want).sum()), float(np.square(want - found).sum())
    assert 10 * np.log10(signal / max(noise, 1e-12)) > 15
    assert torch.isfinite(torch.from_numpy(found)).all()
