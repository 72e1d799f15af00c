"""Forms of operators are found, timed in the runtime, chosen only beyond chance, and used again from a build."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from lowered import captured
from torch import Tensor, nn

from mvtool import convert
from mvtool.build import Build
from mvtool.cli.convert import command as convert_command
from mvtool.cli.verify import command as verify_command
from mvtool.converters import autotune
from mvtool.converters.autotune import Times, Tuning
from mvtool.converters.jobs import Job
from mvtool.converters.recipe import Forms, recipe_for
from mvtool.converters.spots import spots
from mvtool.converters.targets import Emitted
from mvtool.converters.worker import Made, Stages
from mvtool.errors import ConversionError, UsageError
from mvtool.ports import Precision, Runtime, StateLayout
from mvtool.program import StreamProgram
from mvtool.streaming.conv import StreamConv3d

TFLITE = recipe_for(Runtime.TFLITE, Precision.INT8)


class Net(nn.Module):
    """A stem with few channels, two equal convolutions over time and one of another size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.first = StreamConv3d(8, 8, (3, 1, 1), groups=8, causal=True, input_shape=(1, 32, 32))
        self.second = StreamConv3d(8, 8, (3, 1, 1), groups=8, causal=True, input_shape=(1, 32, 32))
        self.third = StreamConv3d(8, 8, (5, 1, 1), groups=8, causal=True, input_shape=(1, 32, 32))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.stem(x))
        return self.head(self.third(self.second(self.first(x))).mean((2, 3, 4)))


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.mark.parametrize("layout", list(StateLayout))
def test_spots_of_a_stream(layout: StateLayout) -> None:
    found = spots(captured(net(), "1x3x1x64x64"), TFLITE, layout)
    assert [(spot.kind, spot.layer, spot.forms) for spot in found] == [
        ("temporal", "first", ("depthwise", "taps")),
        ("temporal", "second", ("depthwise", "taps")),
        ("temporal", "third", ("depthwise", "taps")),
        ("pixels", "stem", ("1", "2", "4")),
    ]
    assert found[0].key == found[1].key != found[2].key
    assert [spec.shape for spec in found[2].inputs] == [(1, 8, 1, 32, 32), (1, 8, 4, 32, 32)]
    assert found[0].states == (("past", "output1"),)


def test_a_form_must_win_beyond_chance() -> None:
    slow, fast = Times([10.0] * 20), Times([9.0] * 20)
    assert fast.beats(slow)
    assert not slow.beats(fast)
    assert not Times([9.9] * 20).beats(slow)
    # Faster in the median, but not in most of the rounds.
    assert not Times([9.0] * 11 + [30.0] * 9).beats(Times([10.0] * 20))


class Emitting:
    """Stands for the conversion: a file tells the forms that it was asked for; `refused` cannot be converted."""

    def __init__(self, refused: str = "") -> None:
        self._refused = refused

    def __call__(self, job: Job, program: StreamProgram, stages: Stages) -> Made:
        if self._refused in job.forms.temporal.values():
            raise ConversionError("this form has no kernel")
        Path(str(job.output)).write_text(job.forms.model_dump_json())
        return Made(program, Emitted(ports=None), job.forms)  # type: ignore[arg-type]


def tuned(
    folder: Path, monkeypatch: pytest.MonkeyPatch, micros: dict[str, float], refused: str = ""
) -> tuple[Made, str]:
    """Tune the net with files that take `micros` by what they hold, and the notes."""

    def race(files: Sequence[Path]) -> list[Times]:
        return [
            Times([next((us for key, us in micros.items() if key in file.read_text()), 10.0)] * 24) for file in files
        ]

    monkeypatch.setattr(autotune, "race", race)
    output = str(folder / "net.tflite")
    job = Job(kind="emit", program="", target=Runtime.TFLITE, precision=Precision.FP32, output=output, tune=True)
    stages = Stages(io.StringIO())
    made = Tuning(job, captured(net(), "1x3x1x64x64"), Emitting(refused), stages).run()
    return made, " ".join(stages.notes)


def test_the_fastest_forms_are_kept_where_the_whole_is_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = tuned(tmp_path, monkeypatch, {"taps": 8.0, ":4": 9.0, ":2": 5.0})
    assert list(made.forms.pixels.values()) == [2]
    assert len(made.forms.temporal) == 3
    assert (tmp_path / "net.tflite").read_text() == made.forms.model_dump_json()
    assert [(t.form, t.chosen) for t in made.trials if t.kind == "whole"] == [("recipe's", False), ("chosen", True)]
    assert [p.name for p in tmp_path.iterdir()] == ["net.tflite"]


def test_forms_that_do_not_pay_in_the_whole_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Alone two pixels are faster; the whole artifact, whose file names its convolution as well, is not.
    made, _ = tuned(tmp_path, monkeypatch, {'"conv3d":2': 11.0, ":2": 5.0})
    assert not made.forms
    assert (tmp_path / "net.tflite").read_text() == Forms().model_dump_json()
    assert [t.chosen for t in made.trials if t.kind == "whole"] == [True, False]


def test_a_form_that_cannot_be_converted_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, notes = tuned(tmp_path, monkeypatch, {}, refused="taps")
    assert not made.forms
    assert "first was timed in depthwise only: this form has no kernel" in notes
    assert {t.form for t in made.trials if t.kind == "temporal"} == {"depthwise"}


@pytest.mark.slow
def test_autotune_chooses_what_it_timed_and_a_build_lends_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    common = [
        "test_autotune:net",
        "--input",
        "1x3x1x64x64",
        "--precision",
        "int8",
        "--target",
        "tflite,executorch",
        "--json",
    ]
    runner = CliRunner()
    tuned = runner.invoke(convert_command, [*common, "--autotune", "--out", str(tmp_path / "tuned")])
    assert tuned.exit_code == 0, tuned.output
    manifest = json.loads(tuned.stdout)
    assert manifest["options"]["autotune"] is True
    for entry in manifest["artifacts"]:
        _check_trials(entry)
    again = runner.invoke(convert_command, [*common, "--recipe", str(tmp_path / "tuned"), "--out", str(tmp_path / "2")])
    assert again.exit_code == 0, again.output
    # Differences of rewrites may differ in the last bits: the builds had other numbers of threads.
    first, second = (
        {
            e.runtime: (e.recipe, [(r.name, r.details) for r in e.rewrites])
            for e in Build.load(folder).manifest.artifacts
        }
        for folder in (tmp_path / "tuned", tmp_path / "2")
    )
    assert first == second
    verified = runner.invoke(verify_command, [str(tmp_path / "tuned")])
    assert verified.exit_code == 0, verified.output


def _check_trials(entry: dict[str, Any]) -> None:
    trials, forms = entry["trials"], entry["recipe"]["forms"]
    kinds = [trial["kind"] for trial in trials]
    assert (kinds.count("temporal"), kinds.count("pixels")) == (4, 3)
    for kind in ("temporal", "pixels"):
        chosen = [t["operators"] for t in trials if t["kind"] == kind and t["chosen"]]
        assert len({operators[0] for operators in chosen}) == len(chosen)
    whole = [trial["chosen"] for trial in trials if trial["kind"] == "whole"]
    # The forms stand in the recipe only if the whole artifact became faster by them.
    assert bool(forms["pixels"] or forms["temporal"]) == (whole == [False, True])


def test_autotune_and_a_recipe_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give one of them"):
        convert(net(), autotune=True, recipe=tmp_path)
