from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mvtool.cli.zoo import command
from mvtool.converters import pipeline
from mvtool.errors import ConversionError, ManifestError, MissingExtraError, StorageError, UsageError, VideoError
from mvtool.ports import Precision, Runtime
from mvtool.survey import ArtifactRecord, ModelRecord, Survey, fingerprint, macs_of
from mvtool.survey_markdown import page, whole
from mvtool.verification import verify as verifying
from mvtool.verification.report import Check, Status, Verification
from mvtool.zoo import registry
from mvtool.zoo.entry import InputRule, ModelEntry, Reported

TINY = ModelEntry(
    name="tiny_zoo_clip",
    family="tiny",
    description="for tests",
    factory="tiny_models:zoo_clip",
    arguments={},
    stream=False,
    resolution=16,
    resize_short_side=18,
    frames=4,
    frame_rate=5.0,
    parameters=6 * 3 * 27 + 6 + 5 * 6 + 5,
    num_classes=5,
    labels=None,
    rule=InputRule(resolution_min=8),
    reported=Reported("A paper, table 1", 1.5e6, 2e6, "12.5 % top-1", "printed without the head"),
)
MACS = 27 * 3 * 6 * 4 * 8 * 8 + 6 * 5


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> ModelEntry:
    monkeypatch.setitem(registry._ENTRIES, TINY.name, TINY)
    return TINY


def survey_of(folder: Path, *precisions: Precision) -> Survey:
    return Survey(folder / "zoo", folder / "builds", (Runtime.COREML,), precisions or (Precision.FP32,))


def run(survey: Survey, entry: ModelEntry) -> ModelRecord:
    (record,) = survey.run([entry], lambda event: None, lambda what, done, total: None)
    return record


@pytest.mark.slow
def test_a_model_is_converted_executed_and_written_down(tiny: ModelEntry, tmp_path: Path) -> None:
    survey = survey_of(tmp_path, Precision.FP32, Precision.INT8)
    record = run(survey, tiny)
    assert (record.parameters, record.macs, record.states) == (tiny.parameters, MACS, 0)
    assert (record.steps, record.step) == (2, "clip")
    assert [(a.precision, a.status) for a in record.artifacts] == [("fp32", "verified"), ("int8", "verified")]
    fp32, int8 = record.artifacts
    assert fp32.size_bytes
    assert fp32.snr_db is None
    assert int8.snr_db is not None
    assert int8.snr_db > 10.0
    assert survey.load(tiny) == record


@pytest.mark.slow
def test_a_record_is_not_made_twice(tiny: ModelEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survey = survey_of(tmp_path)
    first = run(survey, tiny)

    def forbidden(*arguments: Any, **options: Any) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(pipeline, "convert", forbidden)
    assert run(survey, tiny) == first
    # A model that has changed since is surveyed anew, and so is one that lacks a precision.
    assert survey.load(replace(tiny, frames=8)) is None
    assert survey.load(replace(tiny, std=(0.5, 0.5, 0.5))) is None
    assert survey.load(replace(tiny, description="other words")) == first
    assert survey_of(tmp_path, Precision.FP32, Precision.INT8).load(tiny) is None
    assert not (survey.builds / tiny.name).exists()


def test_what_is_refused_is_said(tiny: ModelEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise ConversionError("no form\nfor this")

    monkeypatch.setattr(pipeline, "convert", refuse)
    (artifact,) = run(survey_of(tmp_path), tiny).artifacts
    assert (artifact.status, artifact.reason) == ("refused", "no form for this")
    assert artifact.size_bytes is None


@pytest.mark.slow
def test_an_older_build_is_never_taken_for_the_result(
    tiny: ModelEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = replace(survey_of(tmp_path), keep=True)
    assert run(survey, tiny).artifacts[0].status == "verified"
    assert (survey.builds / tiny.name).is_dir()
    survey.path(tiny).unlink()

    def refuse(*arguments: Any, **options: Any) -> None:
        raise ConversionError("Nothing was written.")

    monkeypatch.setattr(pipeline, "convert", refuse)
    assert run(survey, tiny).artifacts[0].status == "refused"


@pytest.mark.parametrize("error", [StorageError("disk full"), MissingExtraError("coremltools", "coreml", "to write")])
def test_faults_of_the_machine_make_no_record(
    error: Exception, tiny: ModelEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(pipeline, "convert", fail)
    survey = survey_of(tmp_path)
    with pytest.raises(type(error)):
        run(survey, tiny)
    assert survey.load(tiny) is None


@pytest.mark.slow
def test_a_check_of_the_whole_build_counts(tiny: ModelEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = verifying.verify

    def doubtful(*arguments: Any, **options: Any) -> Verification:
        found = real(*arguments, **options)
        checks = tuple(
            c.model_copy(update={"status": Status.FAILED, "message": "too few"}) if c.check is Check.INPUTS else c
            for c in found.checks
        )
        return found.model_copy(update={"checks": checks})

    monkeypatch.setattr(verifying, "verify", doubtful)
    (artifact,) = run(survey_of(tmp_path), tiny).artifacts
    assert (artifact.status, artifact.reason) == ("failed", "inputs: too few")


def test_an_unforeseen_error_costs_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is written all the same, and the command fails at its end."""
    other = replace(TINY, name="other_zoo_clip")
    monkeypatch.setattr(registry, "_ENTRIES", {TINY.name: TINY, other.name: other})

    def survey_one(self: Survey, entries: list[ModelEntry], *rest: Any) -> list[ModelRecord]:
        if entries[0] is TINY:
            raise RuntimeError("unforeseen")
        found = recorded(
            *(artifact(runtime=r, precision=p) for r in Runtime for p in (Precision.FP32, Precision.INT8)),
            name=other.name,
            fingerprint=fingerprint(other),
        )
        self.records.mkdir(exist_ok=True)
        self.path(other).write_text(json.dumps(found.model_dump(mode="json")))
        return [found]

    monkeypatch.setattr(Survey, "run", survey_one)
    result = CliRunner().invoke(command, ["*", "--markdown", "--records", str(tmp_path / "zoo")])
    assert isinstance(result.exception, ConversionError)
    assert TINY.name in str(result.exception)
    assert "| `other_zoo_clip` | verified" in (tmp_path / "zoo.md").read_text()


@pytest.mark.slow
def test_one_refused_artifact_leaves_the_others(
    tiny: ModelEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """int8 without calibration data that can be read, told as a conversion that failed."""
    real = pipeline.convert

    def half(*arguments: Any, **options: Any) -> Any:
        try:
            return real(*arguments, **options, calibration=tmp_path / "nothing")
        except VideoError as error:
            raise ConversionError(str(error)) from error

    monkeypatch.setattr(pipeline, "convert", half)
    fp32, int8 = run(survey_of(tmp_path, Precision.FP32, Precision.INT8), tiny).artifacts
    assert fp32.status == "verified"
    assert int8.status == "refused"
    assert "nothing" in int8.reason


def test_a_broken_record_is_an_error(tiny: ModelEntry, tmp_path: Path) -> None:
    survey = survey_of(tmp_path)
    survey.records.mkdir()
    survey.path(tiny).write_text('{"format": "mvtool.zoo/1"}')
    with pytest.raises(ManifestError, match=r"(?s)tiny_zoo_clip\.json is no record.*Delete it"):
        survey.load(tiny)


def artifact(**values: Any) -> ArtifactRecord:
    known = {"runtime": Runtime.TFLITE, "precision": Precision.FP32, "status": "verified", "size_bytes": 2_500_000}
    return ArtifactRecord(**{**known, **values})


def recorded(*artifacts: ArtifactRecord, **values: Any) -> ModelRecord:
    known: dict[str, Any] = {"name": TINY.name, "fingerprint": fingerprint(TINY), "parameters": TINY.parameters}
    known |= {"macs": MACS, "resolution": 16, "frames_per_call": 4}
    return ModelRecord(**{**known, **values}, artifacts=artifacts, seconds=1.0)


def test_the_page_says_what_was_executed_and_nothing_else() -> None:
    found = recorded(
        artifact(delegation={"delegates": 1, "fully_accelerated": True}),
        artifact(precision=Precision.INT8, delegation={"operators_outside": {"SOFTMAX": 3}}, snr_db=31.4),
        artifact(runtime=Runtime.COREML, status="failed", reason="replay_outputs: too far"),
        artifact(runtime=Runtime.COREML, precision=Precision.INT8, status="refused", reason="no form"),
    )
    text = page([TINY], {TINY.name: found}, {TINY.name: MACS}, "zoo")
    assert "| verified, 2.5 MB | verified +, 2.5 MB, 31 dB | failed | refused | not run | not run |" in text
    assert "coreml fp32 failed: replay_outputs: too far" in text
    assert "coreml int8 refused: no form" in text
    assert "tflite int8: outside the delegate: 3 x SOFTMAX" in text
    assert "12.5 % top-1" in text
    assert "printed without the head" in text
    unseen = page([TINY], {}, {TINY.name: MACS}, "zoo")
    assert "verified," not in unseen
    assert "| `tiny_zoo_clip` | not run | not run | not run | not run | not run | not run |" in unseen


def test_operators_outside_are_not_whole() -> None:
    assert whole(artifact(delegation={}))
    assert whole(artifact(delegation={"operators_outside": {}}))
    assert not whole(artifact(delegation={"operators_outside": {"aten.amax.default": 1}}))


def test_macs_of_an_entry() -> None:
    assert macs_of(TINY) == MACS


def test_the_command_writes_the_page_from_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "zoo"
    folder.mkdir()
    entry = registry.get("x3d_xs")
    monkeypatch.setattr(registry, "_ENTRIES", {entry.name: entry, TINY.name: TINY})
    known = recorded(
        *(artifact(runtime=r, precision=p) for r in Runtime for p in (Precision.FP32, Precision.INT8)),
        name=entry.name,
        fingerprint=fingerprint(entry),
        parameters=entry.parameters,
        resolution=entry.resolution,
        frames_per_call=entry.frames_per_call,
    )
    (folder / "x3d_xs.json").write_text(json.dumps(known.model_dump(mode="json")))
    words = ["x3d_xs", "--markdown", "--recorded", "--records", str(folder)]
    result = CliRunner().invoke(command, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert "1 of 2 models have a record" in " ".join(result.output.split())
    assert "| `x3d_xs` | verified, 2.5 MB | verified, 2.5 MB |" in (tmp_path / "zoo.md").read_text()
    result = CliRunner().invoke(command, [*words, "--json"], catch_exceptions=False)
    assert json.loads(result.stdout) == [known.model_dump(mode="json")]


def test_options_of_the_page_need_the_page() -> None:
    result = CliRunner().invoke(command, ["--recorded"])
    assert isinstance(result.exception, UsageError)
