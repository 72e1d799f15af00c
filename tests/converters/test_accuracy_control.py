"""`--max-drop`: layers return to float until the accuracy holds."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from hard_net import CLASSES, INPUT, answered_videos, hard_answer, hard_net

import mvtool
from mvtool.build import BUILD_SCHEMA, AccuracyControl, Build
from mvtool.cli.evaluate import command as evaluate
from mvtool.converters.accuracy_control import Goal, fewest
from mvtool.errors import UsageError, VerificationError
from mvtool.ports import Precision, Runtime
from mvtool.schemas import published

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> str:
    return answered_videos(tmp_path_factory.mktemp("videos") / "all", hard_answer)


def converted(place: Path, videos: str, max_drop: float, *targets: str) -> Build:
    labels = place.parent / "labels.txt"
    labels.write_text("\n".join(CLASSES))
    return mvtool.convert(
        hard_net(),
        inputs=[INPUT],
        targets=targets,
        precisions=["fp32", "int8"],
        out=place,
        labels=str(labels),
        max_drop=max_drop,
        evaluation=videos,
    )


def control_of(build: Build, runtime: Runtime) -> AccuracyControl:
    control = build.artifact(runtime, Precision.INT8).control
    assert control is not None
    return control


@pytest.mark.slow
def test_layers_return_to_float_until_the_drop_holds(tmp_path: Path, videos: str) -> None:
    build = converted(tmp_path / "net", videos, 0.05, "tflite", "coreml")
    control = control_of(build, Runtime.TFLITE)
    assert control.trials[0].float_layers == 0
    assert control.trials[0].drop > 0.2
    assert {layer.name for layer in control.layers} >= {"wide", "narrow"}, control
    assert min(t.drop for t in control.trials) <= 0.05
    assert (control.clips, control.base, control.max_drop) == (40, "tflite fp32", 0.05)
    taken = control_of(build, Runtime.COREML)
    assert (taken.as_in, taken.layers, taken.trials) == (Runtime.TFLITE, control.layers, ())
    verification = mvtool.verify(tmp_path / "net")
    assert verification.passed, verification.failures
    jsonschema.validate(json.loads(build.manifest.to_json()), published(BUILD_SCHEMA))
    # What was written last is what was evaluated: the files lose no more now.
    runner = CliRunner()
    told = runner.invoke(evaluate, [str(tmp_path / "net"), "--dataset", videos, "--jobs", "1", "--json"])
    assert told.exit_code == 0, told.output
    [pair] = json.loads(told.stdout)["comparisons"]
    assert pair["final"]["drop"]["value"] <= 0.05


@pytest.mark.slow
def test_what_holds_is_left_as_it_is(tmp_path: Path, videos: str) -> None:
    control = control_of(converted(tmp_path / "net", videos, 0.99, "tflite"), Runtime.TFLITE)
    assert control.layers == ()
    assert [trial.float_layers for trial in control.trials] == [0]


@pytest.mark.slow
def test_what_cannot_hold_is_not_kept(tmp_path: Path, videos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A float model that is always right and a file that never is.
    monkeypatch.setattr("mvtool.converters.accuracy_control.Judge.drop", lambda *_: mvtool_drop())
    with pytest.raises(VerificationError, match=r"With all 5 layers in float it still loses 30\.00 points"):
        converted(tmp_path / "net", videos, 0.05, "tflite")
    build = Build.load(tmp_path / "net")
    assert [entry.precision for entry in build.manifest.artifacts] == [Precision.FP32]
    assert not list((tmp_path / "net").glob("*int8*"))


def mvtool_drop() -> object:
    from mvtool.evaluation.statistics import paired_drop

    return paired_drop(30, 0, 100)


def test_the_fewest_layers() -> None:
    for most in range(1, 40):
        for first in range(1, most + 1):
            asked: list[int] = []

            def holds(number: int, first: int = first, asked: list[int] = asked) -> bool:
                asked.append(number)
                return number >= first

            assert fewest(most, holds) == first
            assert len(asked) == len(set(asked)) <= 2 * most.bit_length() + 1
        assert fewest(most, lambda number: False) is None


def test_a_goal_has_both_parts(tmp_path: Path, videos: str) -> None:
    assert Goal.of(None, None) is None
    with pytest.raises(UsageError, match="belong together"):
        Goal.of(0.01, None)
    with pytest.raises(UsageError, match=r"got 1\.5; expected a share"):
        Goal.of(1.5, videos)
    with pytest.raises(UsageError, match="--max-drop is for int8 and for"):
        mvtool.convert(hard_net(), inputs=[INPUT], max_drop=0.1, evaluation=videos, out=tmp_path / "x")
