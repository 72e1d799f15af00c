"""What `mvtool.convert` makes of its options before anything is written: the captured program tells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from mvtool.cli.convert import command
from mvtool.converters import pipeline
from mvtool.converters.inputs import InputSpec, parse_initial, parse_input
from mvtool.errors import CaptureError, UsageError
from mvtool.program import StreamProgram
from mvtool.quantization.sources import load_calibration


class Past(nn.Module):
    """Takes and returns its state, which looks like two pictures; `scale` is no tensor."""

    def forward(self, lens: Tensor, frame: Tensor, past: Tensor, *, scale: float) -> tuple[Tensor, Tensor]:
        now = 0.5 * past + frame
        return now.mean(dim=(2, 3)) * lens * scale, now


class Stopped(Exception):
    """Carries the program out of the pipeline."""

    def __init__(self, program: StreamProgram) -> None:
        super().__init__("captured")
        self.program = program


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversion ends where the workers would begin."""

    def stop(request: Any, program: StreamProgram, *rest: Any) -> None:
        raise Stopped(program)

    monkeypatch.setattr(pipeline, "_run_jobs", stop)


def captured(tmp_path: Path, model: nn.Module | str, **options: Any) -> StreamProgram:
    with pytest.raises(Stopped) as caught:
        pipeline.convert(model, out=tmp_path / "build", **options)
    return caught.value.program


PAST: Mapping[str, Any] = {
    "inputs": (InputSpec("lens", (3,)), InputSpec("frame", (1, 3, 6, 8)), InputSpec("past", (2, 3, 6, 8))),
    "states": (("past", "1"),),
    "forward_kwargs": {"scale": 2.0},
}


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("start", [0.5, np.full((2, 3, 6, 8), 0.5)], ids=["number", "array"])
def test_initial_values_and_constants_reach_the_program(start: Any, tmp_path: Path) -> None:
    program = captured(tmp_path, Past(), initial={"past": start}, **PAST)
    np.testing.assert_array_equal(program.states[0].initial, np.full((2, 3, 6, 8), 0.5, np.float32))
    with torch.no_grad():
        scores = program.exported.module()(torch.ones(3), torch.zeros(1, 3, 6, 8), torch.ones(2, 3, 6, 8))[0]
    np.testing.assert_allclose(scores, np.ones((2, 3)))


@pytest.mark.usefixtures("stopped")
def test_the_picture_is_found_behind_other_inputs_and_beside_states(tmp_path: Path) -> None:
    contract = captured(tmp_path, Past(), **PAST).info.preprocessing
    assert contract is not None
    assert (contract.resize_short_side, contract.crop) == (8, (6, 8))


def test_a_missing_constant_is_asked_for_by_option(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"--forward-kwargs '\{\"scale\": true\}'"):
        pipeline.convert(Past(), out=tmp_path / "build", **{**PAST, "forward_kwargs": {}})


@pytest.mark.usefixtures("stopped")
def test_the_command_passes_initial_values_and_constants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "past.npy", np.full((2, 3, 6, 8), 0.25, np.float32))
    (tmp_path / "own_past.py").write_text(
        "from torch import nn\n\n\nclass Past(nn.Module):\n    def forward(self, frame, past, scale):\n"
        "        now = 0.5 * past + frame\n        return now.mean() * scale, now\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["own_past:Past", "--input", "frame=1x3x6x8", "--input", "past=2x3x6x8", "--state", "past=1"]
    result = CliRunner().invoke(command, [*words, "--initial", "past=past.npy", "--forward-kwargs", '{"scale": 3.0}'])
    assert isinstance(result.exception, Stopped), result.output
    assert float(result.exception.program.states[0].initial.max()) == 0.25


@pytest.mark.usefixtures("stopped")
def test_a_tensor_that_looks_like_a_picture(tmp_path: Path) -> None:
    class Sum(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            return points.sum(dim=(2, 3))

    inputs = [parse_input("points=2x3x4x4@tensor")]
    program = captured(tmp_path, Sum(), inputs=inputs)
    assert (program.inputs[0].image, program.info.preprocessing) == (False, None)
    with pytest.raises(CaptureError, match="points=2x3x4x4@tensor"):
        pipeline.convert(Sum(), out=tmp_path / "build", inputs=[parse_input("points=2x3x4x4")])


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("size", [(16, 32), (32, 16)], ids=["wide", "tall"])
def test_the_bundled_clip_calibrates_pictures_of_any_shape(size: tuple[int, int], tmp_path: Path) -> None:
    class Mean(nn.Module):
        def forward(self, frame: Tensor) -> Tensor:
            return frame.mean(dim=(2, 3))

    program = captured(tmp_path, Mean(), inputs=[InputSpec(None, (1, 3, *size))])
    found = load_calibration(None, program.info, program.inputs, stream=False)
    assert found.clips[0][0][0].shape == (1, 3, *size)


def test_an_argument_that_is_given_twice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="resolution is given twice"):
        pipeline.convert("movinet_t0_stream", out=tmp_path / "build", resolution=64, kwargs={"resolution": 96})


def test_a_model_of_the_zoo_refuses_shapes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"movinet_t0_stream says .* 1x3x1x172x172.*--resolution.*--frames"):
        pipeline.convert("movinet_t0_stream", out=tmp_path / "build", inputs=[parse_input("1x3x8x172x172")])


@pytest.mark.parametrize("text", ["h", "=1", "h=", "h=zero", "h=nowhere.npy"])
def test_initial_values_that_mean_nothing(text: str) -> None:
    with pytest.raises(UsageError, match="initial value"):
        parse_initial(text)
