"""`mvtool bench` on this machine, with the real runner: records that agree with the artifact, and errors as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mvtool import cli
from mvtool.android_bench.measure import Tools, measure, open_device
from mvtool.android_bench.toolchain import toolchain_for
from mvtool.bench.profiles import Request
from mvtool.bench.record import Record
from mvtool.bench.subjects import subjects
from mvtool.build import Build
from mvtool.errors import DeviceError, MvtoolError, UsageError

ONE = Request(quick=True, launches=1, roofline=False)


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", *map(str, words)])
    return int(end.value.code or 0)


def test_records_of_both_runtimes(tiny_build: Build, tmp_path: Path) -> None:
    every = subjects(tiny_build.folder)
    outcome = measure(every, ONE, out=tmp_path)
    records = [Record.load(path) for path in outcome.records]
    assert [record.artifact.sha256 for record in records] == [subject.artifact.sha256 for subject in every]
    assert [record.engine.api for record in records] == ["LiteRt", "LiteRt", "ExecuTorch", "ExecuTorch"]
    for record in records:
        assert record.engine.delegate == "XNNPACK"
        assert record.engine.library_version
        assert all(check.error <= 1e-6 for check in record.correctness.ports if record.artifact.precision == "fp32")
        launch = record.launches[0]
        assert len(launch.samples.inference_ns) >= 20
        assert sum(launch.samples.inference_ns) < launch.samples.start_ns[-1] + launch.samples.inference_ns[-1]
        assert [mark.vm_hwm_bytes for mark in launch.memory] == sorted(mark.vm_hwm_bytes for mark in launch.memory)
    assert [bool(record.engine.memory_includes) for record in records] == [False, False, True, True]


def test_a_batch_goes_on_where_it_was(tiny_build: Build, tmp_path: Path) -> None:
    fp32, int8 = subjects(tiny_build.folder, ["tflite"])
    first = measure([fp32], ONE, out=tmp_path)
    both = measure([fp32, int8], ONE, out=tmp_path, resume=True)
    assert both.records[0] == first.records[0]
    assert [report.resumed for report in both.reports] == [True, False]
    again = measure([fp32], ONE, out=tmp_path)
    assert again.records[0] != first.records[0]
    assert first.records[0].exists()


def test_interleaved_artifacts_share_a_session(tiny_build: Build, tmp_path: Path) -> None:
    pair = subjects(tiny_build.folder, ["tflite"])
    outcome = measure(pair, Request(quick=True, launches=2, interleave=True, roofline=False), out=tmp_path)
    records = [Record.load(path) for path in outcome.records]
    assert {record.artifact.precision for record in records} == {"fp32", "int8"}
    starts = sorted((launch.started_s, r.artifact.precision) for r in records for launch in r.launches)
    order = [precision for _, precision in starts]
    assert order == ["fp32", "int8", "int8", "fp32"]


def test_one_failure_leaves_the_other_records(tiny_build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "build"
    shutil.copytree(tiny_build.folder, folder)
    fp32, int8 = subjects(folder, ["tflite"])
    fp32.path.write_bytes(fp32.path.read_bytes()[:-4000])
    with pytest.raises(MvtoolError, match=r"1 of 2 measurements were recorded; go on with --resume"):
        measure([fp32, int8], ONE, out=tmp_path / "out")
    assert [Record.load(path).artifact.precision for path in (tmp_path / "out").glob("*.json")] == ["int8"]


@pytest.mark.parametrize("name", ["phone", "host:1", "android:", "ANDROID"])
def test_devices_that_do_not_exist(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected host, android, or android:SERIAL"):
        open_device(name, Tools(), tmp_path)


def test_a_phone_without_adb_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="adb"):
        open_device("android", Tools(adb=tmp_path / "no-adb"), tmp_path)


def test_the_command_line(tiny_build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [tiny_build.folder, "--runtime", "tflite", "--precision", "int8", "--out", tmp_path / "new"]
    options = ["--quick", "--launches", "1", "--no-roofline", "--threads", "1", "--fps", "200", "--tag", "commit=1a2b"]
    assert run(*words, *options, "--json") == 0
    (figures,) = json.loads(capsys.readouterr().out)
    record = Record.load(Path(figures["record"]))
    assert record.extra == {"commit": "1a2b"}
    assert record.options.fps == 200
    assert len(record.launches[0].samples.late_ns) == len(record.launches[0].samples.start_ns)
    assert run(*words, *options) == 0
    assert "TinyStream int8 tflite" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Nothing to measure was named"),
        (["{build}", "--quick", "--minutes", "1"], "contradict"),
        (["{build}", "--tag", "commit"], "expected KEY=VALUE"),
        (["{build}", "--device", "toaster"], "expected host, android"),
        (["{build}", "--runner", "x"], "--runner is for one runtime"),
        (["{build}", "--affinity", "first"], "hexadecimal mask"),
    ],
)
def test_refusals(
    words: list[str], message: str, tiny_build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [word.format(build=tiny_build.folder) for word in words]
    assert run(*filled, "--out", tmp_path) == UsageError.exit_code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))


def test_build_runner_says_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    from mvtool.android_bench.toolchain import Target

    toolchain_for(Target.HOST)
    assert run("--build-runner", "--runtime", "tflite", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["target"] == "host"
    assert Path(answer["runners"]["tflite"]).is_file()
