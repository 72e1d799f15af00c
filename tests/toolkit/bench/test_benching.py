"""A run gives whole records or none."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_device import INVOKE_NS, Damage, FakeDevice

from mvtool.bench.benching import CHECK_STEPS, bench, file_name
from mvtool.bench.profiles import Request
from mvtool.bench.record import Moment, Record
from mvtool.bench.subjects import Subject, subjects
from mvtool.build import Build
from mvtool.errors import DeviceError, ManifestError, RunnerError, UsageError, VerificationError

QUICK = Request(quick=True)


def tflite(build: Build, *precisions: str) -> list[Subject]:
    return subjects(build.folder, ["tflite"], precisions or ("fp32",))


def measure(build: Build, device: FakeDevice, request: Request = QUICK) -> Record:
    (record,) = bench(tflite(build), device, request)
    return record


def test_a_record_holds_what_was_measured(tiny_build: Build, tmp_path: Path) -> None:
    device = FakeDevice(tmp_path)
    record = measure(tiny_build, device, Request(quick=True, threads=2, affinity="3", tags=(("commit", "abc"),)))
    assert len(record.launches) == 3
    assert record.launches[0].samples.inference_ns == (INVOKE_NS,) * 20
    assert record.launches[0].first_ns == 3 * INVOKE_NS
    assert [launch.started_s for launch in record.launches] == sorted(launch.started_s for launch in record.launches)
    assert (record.engine.threads, record.engine.affinity, record.engine.library_version) == (2, "3", "1.0")
    assert record.correctness.steps == CHECK_STEPS
    assert {check.port for check in record.correctness.ports} >= {"logits"}
    assert all(check.error == 0 for check in record.correctness.ports)
    moments = [reading.moment for reading in record.readings]
    assert moments == [Moment.BEFORE, *[Moment.DURING] * 3, Moment.AFTER]
    assert record.extra == {"commit": "abc"}
    assert record.artifact.state_bytes > 0
    assert record.model.macs is not None
    assert record.model.macs > 0
    assert device.open_workspaces == 0


def test_a_record_comes_back_from_its_file_and_is_never_overwritten(tiny_build: Build, tmp_path: Path) -> None:
    record = measure(tiny_build, FakeDevice(tmp_path))
    path = tmp_path / file_name(record)
    record.save(path)
    assert Record.load(path) == record
    with pytest.raises(FileExistsError, match="never overwritten"):
        record.save(path)
    path.write_text(path.read_text()[:-200])
    with pytest.raises(ManifestError, match="no record of a benchmark"):
        Record.load(path)


def test_launches_take_turns_when_interleaved(tiny_build: Build, tmp_path: Path) -> None:
    device = FakeDevice(tmp_path)
    pair = tflite(tiny_build, "fp32", "int8")
    records = list(bench(pair, device, Request(quick=True, interleave=True)))
    order = [event.rsplit("-", 1)[1] for event in device.events if event.startswith("execute")]
    assert order == ["1", "2", "2", "1", "1", "2"]
    assert [record.artifact.precision for record in records] == ["fp32", "int8"]
    assert len({record.session for record in records}) == 1
    assert len({record.id for record in records}) == 2
    assert all(record.interleaved for record in records)


def cut_end(result: dict[str, Any], dump: bytearray) -> None:
    del result["end"], dump


def add_key(result: dict[str, Any], dump: bytearray) -> None:
    result["surprise"] = 1
    del dump


def no_invoke(result: dict[str, Any], dump: bytearray) -> None:
    result["samples"] = {name: [] for name in result["samples"]}
    del dump


def short_dump(result: dict[str, Any], dump: bytearray) -> None:
    del result
    dump.pop()


@pytest.mark.parametrize("damage", [cut_end, add_key, no_invoke, short_dump])
def test_an_incomplete_result_gives_no_record(tiny_build: Build, tmp_path: Path, damage: Damage) -> None:
    device = FakeDevice(tmp_path, damage)
    with pytest.raises(RunnerError, match="Nothing was recorded"):
        measure(tiny_build, device)
    assert device.open_workspaces == 0


def shifted_output(result: dict[str, Any], dump: bytearray) -> None:
    del result
    logits = np.frombuffer(bytes(dump[:20]), np.float32) + np.float32(0.01)
    dump[:20] = logits.tobytes()


def lost_state(result: dict[str, Any], dump: bytearray) -> None:
    del result
    dump[-4:] = np.float32(123).tobytes()


def not_a_number(result: dict[str, Any], dump: bytearray) -> None:
    del result
    dump[:4] = np.float32("nan").tobytes()


@pytest.mark.parametrize("damage", [shifted_output, lost_state, not_a_number])
def test_no_latency_of_a_device_that_computes_something_else(tiny_build: Build, tmp_path: Path, damage: Damage) -> None:
    with pytest.raises(VerificationError, match="No latency was recorded"):
        measure(tiny_build, FakeDevice(tmp_path, damage))


def test_launches_on_different_engines_are_refused(tiny_build: Build, tmp_path: Path) -> None:
    seen: list[int] = []

    def damage(result: dict[str, Any], dump: bytearray) -> None:
        del dump
        seen.append(1)
        result["delegate"]["name"] = "XNNPACK" if len(seen) < 3 else "none"

    with pytest.raises(RunnerError, match="different engines"):
        measure(tiny_build, FakeDevice(tmp_path, damage))


@pytest.mark.parametrize("number", [0, 2, 4])
def test_a_device_about_to_shut_down_gives_no_record(tiny_build: Build, tmp_path: Path, number: int) -> None:
    readings: list[dict[str, Any]] = [{"thermal_status": 1}] * number + [{"thermal_status": 5}]
    device = FakeDevice(tmp_path, readings=readings)
    with pytest.raises(DeviceError, match="thermal status 5"):
        measure(tiny_build, device)
    assert device.open_workspaces == 0


def test_an_early_end_and_a_loopback_are_said(tiny_build: Build, tmp_path: Path) -> None:
    def damage(result: dict[str, Any], dump: bytearray) -> None:
        del dump
        result["stopped"] = "time"
        result["memory_includes"] = ["libtorch"]
        result["samples"] = {name: column[:7] for name, column in result["samples"].items()}

    record = measure(tiny_build, FakeDevice(tmp_path, damage))
    assert any("with 7 invokes, fewer than the 20" in note for note in record.notes)
    assert any("libtorch" in note for note in record.notes)


def test_pace_is_calls_not_frames(tiny_build: Build, tmp_path: Path) -> None:
    record = measure(tiny_build, FakeDevice(tmp_path), Request(quick=True, fps=30))
    assert record.options.fps == 30
    assert len(record.launches[0].samples.late_ns) == 20


def test_what_can_be_measured(tiny_build: Build, tmp_path: Path) -> None:
    every = subjects(tiny_build.folder)
    assert [(s.artifact.runtime, s.artifact.precision) for s in every] == [
        ("tflite", "fp32"),
        ("tflite", "int8"),
        ("executorch", "fp32"),
        ("executorch", "int8"),
    ]
    single = subjects(every[0].path)
    assert single[0].artifact == every[0].artifact.model_copy(update={"build": None})
    assert every[0].artifact.build == tiny_build.folder.name
    assert single[0].model.macs is None
    with pytest.raises(UsageError, match="Core ML"):
        subjects(tiny_build.folder, ["coreml"])
    with pytest.raises(UsageError, match="does not exist"):
        subjects(tmp_path / "nothing.tflite")


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(b"other"), Path.unlink])
def test_a_file_that_was_changed_is_not_measured(
    tiny_build: Build, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(tiny_build.folder, folder)
    change(folder / tiny_build.artifact("tflite", "fp32").file)
    with pytest.raises(ManifestError):
        subjects(folder, ["tflite"])


def test_an_emergency_during_a_long_launch_counts_though_it_is_over(
    tiny_build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FakeDevice(tmp_path, readings=[{}, {"thermal_status": 6}, {}])
    # The launch of the fake takes no time, so it is read as soon as it begins, and waits for that.
    monkeypatch.setattr("mvtool.bench.watching.LOOK_EVERY_S", 0.0)

    def until_read(result: dict[str, Any], dump: bytearray) -> None:
        del result, dump
        while device.events.count("reading during") < 1:
            time.sleep(0.01)

    device.damage = until_read
    with pytest.raises(DeviceError, match="thermal status 6"):
        measure(tiny_build, device, Request(minutes=0.001, launches=1))
