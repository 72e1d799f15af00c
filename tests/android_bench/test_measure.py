"""`mvtool bench` on this machine, with the real runner: records that agree with the artifact, and errors as they are."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest

from mvtool import cli
from mvtool.android_bench import measurement
from mvtool.android_bench.batch import Report, State
from mvtool.android_bench.measure import Outcome, measure
from mvtool.android_bench.measurement import Measurement
from mvtool.android_bench.open_device import Tools, open_device, phone_runner
from mvtool.android_bench.toolchain import toolchain_for
from mvtool.bench.profiles import Request
from mvtool.bench.record import Record
from mvtool.bench.subjects import subjects
from mvtool.build import Build
from mvtool.errors import DeviceError, MissingExtraError, MvtoolError, StorageError, ToolchainError, UsageError
from mvtool.ports import Runtime

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


def test_packed_weights_in_a_file_are_those_of_tflite_alone(tiny_build: Build, tmp_path: Path) -> None:
    every = subjects(tiny_build.folder, None, ["fp32"])
    request = Request(quick=True, launches=2, roofline=False, weight_cache=True)
    records = [Record.load(path) for path in measure(every, request, out=tmp_path).records]
    assert [(record.artifact.runtime, record.options.weight_cache) for record in records] == [
        (Runtime.TFLITE, True),
        (Runtime.EXECUTORCH, False),
    ]


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
    outcome = measure([fp32, int8], ONE, out=tmp_path / "out")
    assert [Record.load(path).artifact.precision for path in outcome.records] == ["int8"]
    with pytest.raises(MvtoolError, match=r"1 of 2 measurements were recorded; go on with --resume"):
        outcome.raise_failed()
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
        (["{build}", "--runner", "x"], "--runner names x, which is no file"),
        (["{build}", "--benchmark-model", "x"], "--benchmark-model names x, which is no file"),
        (["{build}", "--lib", "{file}"], "--lib is for phones, and only host is measured"),
        (["{build}", "--device", "android", "--lib", "{file}"], "--runner and --lib are for one runtime"),
        (["{build}", "--device", "host", "--device", "host"], "are the same device"),
        (["{build}", "--threads", "2000"], "expected a number from 1 to 1024"),
        (["--build-runner", "--ndk", "{build}", "--runtime", "executorch"], "give libexecutorch.so with --lib"),
        (["{build}", "--affinity", "first"], "hexadecimal mask"),
    ],
)
def test_refusals(
    words: list[str], message: str, tiny_build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "given.so"
    file.touch()
    filled = [word.format(build=tiny_build.folder, file=file) for word in words]
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


def job(build: Build, out: Path, tools: Tools, source: Path | None = None) -> Measurement:
    subject = subjects(build.folder, ["tflite"], ["fp32"])[0]
    given = None if source is None else str(source)
    return Measurement((subject,), ONE, out, given, tools, None, lambda what, done, total: None)


def test_a_job_is_another_one_with_another_library_or_video(tiny_build: Build, tmp_path: Path) -> None:
    """`--resume` must not give the record of another library for an answer."""
    library, other, video = tmp_path / "a.so", tmp_path / "b.so", tmp_path / "clip.mp4"
    library.write_bytes(b"one")
    other.write_bytes(b"two")
    video.write_bytes(b"first")
    keys = [job(tiny_build, tmp_path, Tools(library=path)).key for path in (None, library, other)]
    keys.append(job(tiny_build, tmp_path, Tools(), video).key)
    video.write_bytes(b"second")
    keys.append(job(tiny_build, tmp_path, Tools(), video).key)
    assert len(set(keys)) == 5
    other.write_bytes(b"one")
    assert job(tiny_build, tmp_path, Tools(library=other)).key == keys[1]


def test_a_cross_check_that_fails_is_a_note(tiny_build: Build, tmp_path: Path) -> None:
    fp32 = subjects(tiny_build.folder, ["tflite"], ["fp32"])
    outcome = measure(fp32, ONE, out=tmp_path, tools=Tools(benchmark_model=Path("/bin/false")))
    record = Record.load(outcome.records[0])
    assert record.cross_checks == ()
    assert any("cross-check failed" in note for note in record.notes)


def test_an_error_with_other_arguments_than_a_text_keeps_its_class(tmp_path: Path) -> None:
    error = MissingExtraError("executorch", "executorch", "to measure .pte files")
    report = Report("host", "a", State.FAILED, message=str(error), error=error)
    other = Report("host", "b", State.DONE, tmp_path)
    with pytest.raises(MissingExtraError, match=r"pip install 'mvtool\[executorch\]' 1 of 2 measurements"):
        Outcome((), (report, other)).raise_failed()
    Outcome((), (other,)).raise_failed()


def test_a_full_disk_is_an_error_of_storage(tiny_build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/x")

    monkeypatch.setattr(measurement, "bench", full)
    with pytest.raises(StorageError, match="No space left"):
        job(tiny_build, tmp_path, Tools()).run(open_device("host", Tools(), tmp_path))


@pytest.mark.parametrize("runtime", [Runtime.TFLITE, Runtime.EXECUTORCH])
def test_a_phone_of_32_bits_needs_a_runner_of_its_own(tmp_path: Path, runtime: Runtime) -> None:
    library = tmp_path / "lib.so"
    library.touch()
    with pytest.raises(ToolchainError, match="the phone has armeabi-v7a"):
        phone_runner(Tools(library=library), tmp_path, runtime, "armeabi-v7a")


def test_other_json_files_in_the_folder_do_no_harm(tiny_build: Build, tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text("{}")
    pair = subjects(tiny_build.folder, ["tflite"])
    outcome = measure(pair, Request(quick=True, launches=1, interleave=True, roofline=False), out=tmp_path)
    records = [Record.load(path) for path in outcome.records]
    assert [record.artifact.precision for record in records] == ["fp32", "int8"]
    assert {record.artifact.build for record in records} == {"build"}
    assert all("_build_" in path.name for path in outcome.records)
