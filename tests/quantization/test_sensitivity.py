from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from hard_net import INPUT, hard_net

import mvtool
from mvtool.cli.quantize import command
from mvtool.converters.capture import capture
from mvtool.errors import UsageError
from mvtool.preprocessing import plain
from mvtool.program import ModelInfo, StreamProgram
from mvtool.quantization.sensitivity import SENSITIVITY_SCHEMA, Sensitivity, lowered_for_it, measure, plot
from mvtool.quantization.sources import load_calibration
from mvtool.schemas import published

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


def measured(program: StreamProgram) -> Sensitivity:
    clips = load_calibration(None, program.info, program.inputs)
    return measure(program, lowered_for_it(program), clips)


@pytest.fixture(scope="module")
def found() -> Sensitivity:
    return measured(capture(hard_net(), [INPUT], ModelInfo("hard", preprocessing=plain(16, 16))))


def test_the_layers_at_the_hard_map_cost_most(found: Sensitivity) -> None:
    names = [layer.name for layer in found.layers]
    assert set(names[:2]) == {"wide", "narrow"}
    assert set(names[2:]) == {"stem", "blend", "head"}
    assert found.layers[1].snr_db < 15
    assert found.layers[2].snr_db > 30
    by_name = {layer.name: layer for layer in found.layers}
    assert (by_name["stem"].activations, by_name["stem"].weights) == ("int8", 8 * 3 * 9)
    assert (by_name["head"].activations, by_name["head"].weights) == ("float32", 8 * 4)


def test_all_layers_cost_about_what_the_worst_does(found: Sensitivity) -> None:
    assert found.layers[0].snr_db - 6 < found.snr_db < found.layers[0].snr_db + 6
    assert found.rest_snr_db > 25


def test_the_picture(found: Sensitivity, tmp_path: Path) -> None:
    plot(found, tmp_path / "bars.png")
    assert (tmp_path / "bars.png").stat().st_size > 10_000


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sensitivity") / "hard"
    mvtool.convert(hard_net(), inputs=[INPUT], targets=["tflite"], precisions=["int8"], out=place)
    return place


def test_the_command(build: Path) -> None:
    told = CliRunner().invoke(command, [str(build), "--sensitivity"])
    assert told.exit_code == 0, told.output
    assert "5 layers, one at a time in int8" in told.output
    assert told.output.index("wide") < told.output.index("stem")
    assert (build / "sensitivity.png").stat().st_size > 10_000
    told = CliRunner().invoke(command, [str(build), "--sensitivity", "--json"])
    document = json.loads(told.stdout)
    jsonschema.validate(document, published(SENSITIVITY_SCHEMA))
    assert {layer["name"] for layer in document["layers"][2:]} == {"stem", "blend", "head"}


def test_one_thing_at_a_time(build: Path) -> None:
    for options in ([], ["--ranges", "--sensitivity"]):
        told = CliRunner().invoke(command, [str(build), *options])
        assert isinstance(told.exception, UsageError)
        assert "Ask for one thing" in str(told.exception)
    told = CliRunner().invoke(command, [str(build), "--ranges", "--calibration", "x"])
    assert "--calibration is for --sensitivity" in str(told.exception)


def test_clips_that_only_the_user_knows_are_asked_for(build: Path, tmp_path: Path) -> None:
    document = json.loads((build / "manifest.json").read_text())
    document["options"]["calibration"] = "holiday"
    copy = tmp_path / "copy"
    shutil.copytree(build, copy)
    (copy / "manifest.json").write_text(json.dumps(document))
    told = CliRunner().invoke(command, [str(copy), "--sensitivity"])
    assert "was calibrated on holiday; say where that is with --calibration" in str(told.exception)
