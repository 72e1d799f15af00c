from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mvtool.cli import convert as module
from mvtool.cli.convert import GATES, STATE_LAYOUTS, chosen_precisions, command, parse_kwargs, parse_resolution
from mvtool.converters import pipeline
from mvtool.converters.inputs import InputSpec
from mvtool.errors import ConversionError, UsageError
from mvtool.ports import Precision, Preprocessing


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asks the pipeline for; the pipeline itself is stopped."""
    seen: dict[str, Any] = {}

    def convert(model: str, **options: Any) -> None:
        seen.update(options, model=model)
        raise ConversionError("stopped here")

    monkeypatch.setattr(pipeline, "convert", convert)
    return seen


def test_every_option_reaches_the_pipeline(asked: dict[str, Any]) -> None:
    words = [
        "net:make",
        "--weights",
        "a.pth",
        "--target",
        "tflite,coreml",
        "--precision",
        "fp16",
        "--int8",
        "--out",
        "o",
        "--calibration",
        "c",
    ]
    words += [
        "--input",
        "1x3x8x8",
        "--input",
        "h=1x4:float32",
        "--state",
        "h=h2",
        "--gate",
        "keras",
        "--num-classes",
        "7",
        "--labels",
        "own.txt",
    ]
    words += ["--resolution", "192x256", "--frames", "8", "--rewrite", "2plus1d:2", "--state-layout", "ring"]
    words += ["--autotune", "--recipe", "tuned"]
    words += ["--max-drop", "0.02", "--evaluation", "motion:clips=100"]
    words += ["--kwargs", '{"width": 64}', "--stage-timeout", "30"]
    words += ["--initial", "h=0.5", "--forward-kwargs", '{"last": true}']
    words += ["--mean", "0.45,0.44,0.43", "--std", "0.2,0.2,0.2"]
    result = CliRunner().invoke(command, words)
    assert isinstance(result.exception, ConversionError)
    asked.pop("listener")
    assert asked == {
        "model": "net:make",
        "weights": Path("a.pth"),
        "targets": ("tflite", "coreml"),
        "precisions": ("fp16", "int8"),
        "out": Path("o"),
        "calibration": "c",
        "inputs": (InputSpec(None, (1, 3, 8, 8)), InputSpec("h", (1, 4))),
        "kwargs": {"width": 64},
        "states": (("h", "h2"),),
        "initial": {"h": 0.5},
        "forward_kwargs": {"last": True},
        "gate": "keras",
        "num_classes": 7,
        "resolution": (192, 256),
        "frames": 8,
        "labels": "own.txt",
        "rewrite": "2plus1d:2",
        "state_layout": "ring",
        "autotune": True,
        "recipe": Path("tuned"),
        "max_drop": 0.02,
        "evaluation": "motion:clips=100",
        "preprocessing": Preprocessing(resize_short_side=8, crop=(8, 8), mean=(0.45, 0.44, 0.43), std=(0.2, 0.2, 0.2)),
        "stage_timeout_s": 30.0,
    }


def test_defaults(asked: dict[str, Any]) -> None:
    CliRunner().invoke(command, ["movinet_a0_stream"])
    assert asked["targets"] == ("tflite", "coreml", "executorch")
    assert asked["precisions"] == ("fp32",)
    assert asked["weights"] is None
    assert asked["out"] is None
    assert asked["stage_timeout_s"] == pipeline.STAGE_TIMEOUT_S


def test_an_ensemble_takes_one_file_per_member(asked: dict[str, Any]) -> None:
    CliRunner().invoke(command, ["movinet_a6_base", "--weights", "a.pth", "--weights", "b.pth"])
    assert asked["weights"] == (Path("a.pth"), Path("b.pth"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--target", "tflite,onnx"], "got 'onnx'; expected a list of tflite, coreml, executorch"),
        (["--target", ","], "got nothing"),
        (["--precision", "int4"], "got 'int4'"),
        (["--num-classes", "0"], "0 is not in the range"),
        (["--gate", "tanh"], "'tanh' is not one of"),
    ],
)
def test_words_that_mean_nothing(asked: dict[str, Any], arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(command, ["movinet_a0_stream", *arguments])
    assert result.exit_code == 2
    assert told in result.output
    assert not asked


@pytest.mark.parametrize("text", ["224x", "1x2x3", "-3", "0", "wide", "2.5"])
def test_resolution_is_pixels_or_height_and_width(text: str) -> None:
    with pytest.raises(UsageError, match="--resolution"):
        parse_resolution(text)


def test_resolution() -> None:
    assert parse_resolution("224") == 224
    assert parse_resolution(None) is None


@pytest.mark.parametrize("text", ["{", "[1, 2]", "3", "width=64"])
def test_kwargs_must_be_an_object(text: str) -> None:
    with pytest.raises(UsageError, match="--kwargs"):
        parse_kwargs(text)


def test_int8_is_short_for_fp32_and_int8() -> None:
    assert chosen_precisions(None, int8=False) == ("fp32",)
    assert chosen_precisions(None, int8=True) == ("fp32", "int8")
    assert chosen_precisions(("int8", "fp32"), int8=True) == ("int8", "fp32")


def test_gates_are_those_of_the_building_blocks() -> None:
    from mvtool.streaming.activations import Gate

    assert tuple(gate.value for gate in Gate) == GATES
    assert module.STAGE_TIMEOUT_S == pipeline.STAGE_TIMEOUT_S


def test_state_layouts_are_those_of_the_manifest() -> None:
    from mvtool.ports import StateLayout

    assert tuple(layout.value for layout in StateLayout) == STATE_LAYOUTS


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["net:make", "--input", "1x3x8x8", "--mean", "0.45,0.45,0.45"], "belong together"),
        (["net:make", "--input", "1x3x8x8", "--mean", "0.45", "--std", "1,1,1"], "--mean got '0.45'"),
        (["net:make", "--input", "5", "--mean", "0,0,0", "--std", "1,1,1"], "the inputs are 5. Leave them out"),
        (["net:make", "--input", "1x3x8x8", "--mean", "0,nan,0", "--std", "1,1,1"], "--mean got '0,nan,0'"),
        (["net:make", "--input", "1x3x8x8", "--mean", "0,0,0", "--std", "1,inf,1"], "--std got '1,inf,1'"),
        (["net:make", "--input", "1x3x8x8", "--mean", "0,0,0", "--std", "1,0,1"], "--std got '1,0,1'"),
        (["movinet_a0_stream", "--mean", "0,0,0", "--std", "1,1,1"], "--mean and --std belong to a model with --input"),
    ],
)
def test_preprocessing_that_does_not_fit_is_refused(asked: dict[str, Any], words: list[str], expected: str) -> None:
    result = CliRunner().invoke(command, words)
    assert isinstance(result.exception, UsageError)
    assert expected in str(result.exception)
    assert not asked


def test_the_picture_is_found_among_all_inputs(asked: dict[str, Any]) -> None:
    words = ["net:make", "--input", "lens=5", "--input", "past=1x3x4x4", "--input", "frame=1x3x16x32"]
    CliRunner().invoke(command, [*words, "--state", "past=1", "--mean", "0,0,0", "--std", "2,2,2"])
    assert asked["preprocessing"] == Preprocessing(resize_short_side=32, crop=(16, 32), std=(2.0, 2.0, 2.0))


def test_forward_kwargs_are_named_in_their_error() -> None:
    with pytest.raises(UsageError, match="--forward-kwargs is a JSON list"):
        parse_kwargs("[1]", "--forward-kwargs")


def test_every_precision_is_listed_and_reaches_the_pipeline(asked: dict[str, Any]) -> None:
    names = [precision.value for precision in Precision]
    for precision in names:
        CliRunner().invoke(command, ["net:make", "--precision", f"fp32,{precision}"])
        assert asked["precisions"] == tuple(dict.fromkeys(["fp32", precision]))
    refused = CliRunner().invoke(command, ["net:make", "--precision", "int4"])
    assert f"expected a list of {', '.join(names)}" in " ".join(refused.output.replace("│", " ").split())
