"""A dropped, doubled or unknown check is a failure, whatever the others say."""

from __future__ import annotations

import pytest

from mvtool.ports import Precision, Runtime
from mvtool.verification.report import (
    BUILD_CHECKS,
    ArtifactReport,
    Check,
    CheckResult,
    Status,
    Verification,
    failed,
    passed,
    required_checks,
    settle,
)

STREAM = required_checks(Precision.FP32, stream=True)


def good(checks: tuple[Check, ...]) -> list[CheckResult]:
    return [passed(check, "fine") for check in checks]


def report(checks: tuple[CheckResult, ...]) -> ArtifactReport:
    return ArtifactReport(file="a.tflite", runtime=Runtime.TFLITE, precision=Precision.FP32, checks=checks)


def verification(*artifacts: ArtifactReport) -> Verification:
    checks = settle(BUILD_CHECKS, good(BUILD_CHECKS), "")
    return Verification(model="toy", frames=300, distinct_inputs=300, checks=checks, artifacts=artifacts)


def test_all_checks_once_pass() -> None:
    artifact = report(settle(STREAM, good(STREAM), ""))
    assert artifact.passed
    assert verification(artifact).passed
    assert verification(artifact).failures == ()


@pytest.mark.parametrize("dropped", STREAM)
def test_a_dropped_check_fails(dropped: Check) -> None:
    artifact = report(settle(STREAM, [r for r in good(STREAM) if r.check is not dropped], "the power failed"))
    assert not artifact.passed
    assert {r.check for r in artifact.failures} == {dropped, Check.COMPLETENESS}
    assert "the power failed" in artifact.failures[0].message
    assert not verification(artifact).passed


def test_a_doubled_check_fails_even_if_both_passed() -> None:
    artifact = report(settle(STREAM, [*good(STREAM), passed(Check.ORDER, "again")], ""))
    assert [r.message for r in artifact.failures] == ["order was reported 2 times"]


def test_a_check_of_another_kind_of_artifact_fails() -> None:
    artifact = report(settle(STREAM, [*good(STREAM), passed(Check.SIMULATION_STATES, "?")], ""))
    assert [r.message for r in artifact.failures] == ["simulation_states is not a check of this artifact"]


def test_one_failure_is_enough() -> None:
    results = [failed(r.check, "bad") if r.check is Check.ORDER else r for r in good(STREAM)]
    found = verification(report(settle(STREAM, results, "")), report(settle(STREAM, good(STREAM), "")))
    assert not found.passed
    assert found.failures == ("a.tflite: order: bad",)
    assert "NOT verified: 1 of 2" in found.summary()


def test_a_build_or_an_artifact_without_checks_does_not_pass() -> None:
    assert not verification().passed
    assert verification().failures
    assert not report(()).passed


def test_required_checks_follow_from_precision_and_state() -> None:
    int8 = required_checks(Precision.INT8, stream=True)
    clip = required_checks(Precision.FP16, stream=False)
    assert {Check.SIMULATION_STATES, Check.SIMULATION_ANCHOR} <= set(int8)
    assert Check.REPLAY_STATES not in int8
    assert {Check.TIED_STATES, Check.RESET_VALUE, Check.REPLAY_STATES}.isdisjoint(clip)
    assert Check.REPLAY_OUTPUTS in clip
    for checks in (STREAM, int8, clip):
        assert len(set(checks)) == len(checks)


def test_report_survives_json() -> None:
    whole = verification(report(settle(STREAM, good(STREAM), "")))
    assert Verification.model_validate_json(whole.model_dump_json()) == whole
    assert Status.NOT_RUN.value == "not_run"
