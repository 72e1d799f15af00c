"""Profiles of a real build: every operator timed, named and added up; and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from mvtool.build import Build
from mvtool.cli.profile import command
from mvtool.errors import ManifestError, RunnerError, UsageError
from mvtool.ports import Precision, Runtime
from mvtool.profiling import executorch, tflite
from mvtool.profiling.profile import Options, assemble, chosen, profile
from mvtool.profiling.record import PROFILE_SCHEMA, Profile
from mvtool.profiling.subjects import of_build
from mvtool.schemas import published

pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning"),
    # ExecuTorch's exporter, whose serializer cuts programs, is imported in this process.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]

ALL = [
    ("tflite", "fp32"),
    ("tflite", "int8"),
    ("executorch", "fp32"),
    pytest.param("executorch", "int8", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_operators_have_times_layers_and_work(tiny_build: Build, runtime: str, precision: str) -> None:
    entries = chosen(tiny_build, [runtime], [precision])
    (found,) = profile(tiny_build, entries, Options(calls=40, roofline=False)).profiles
    assert (found.runtime, found.precision, found.file) == (runtime, precision, entries[0].file)
    assert found.method == ("profiler" if runtime == "tflite" else "prefixes")
    assert sum(row.ms for row in found.operators) == pytest.approx(found.agreement.sum_ms)
    assert found.agreement.sum_ms + (found.agreement.call_ms or 0) + found.agreement.rest_ms == pytest.approx(
        found.latency.median_ms
    )
    for groups in (found.types, found.layers):
        assert sum(group.ms for group in groups) == pytest.approx(found.agreement.sum_ms)
        assert sum(group.operators for group in groups) == sum(row.merged for row in found.operators)
    weighted = {row.layer for row in found.operators if row.layer_from == "weights"}
    assert weighted == layers_with_weights(tiny_build)
    assert all(row.macs and row.shapes for row in found.operators if row.layer_from == "weights")
    assert all(row.delegated and row.reason is None for row in found.operators)
    assert not found.peaks
    assert all(row.peak_share is None for row in found.operators)


def layers_with_weights(build: Build) -> set[str]:
    from mvtool.converters.program_io import load_program
    from mvtool.quantization.layers import Layers

    return set(Layers.of(load_program(build.path(build.manifest.program))).of_prefix.values())


@pytest.mark.slow
def test_runtimes_count_the_same_work(tiny_build: Build) -> None:
    counted = set()
    for runtime in ("tflite", "executorch"):
        (found,) = profile(
            tiny_build, chosen(tiny_build, [runtime], ["fp32"]), Options(calls=20, roofline=False, layers=False)
        ).profiles
        counted.add(sum(row.macs or 0 for row in found.operators))
    assert len(counted) == 1
    assert counted.pop() > 0


def test_the_clock_tells_less_than_a_microsecond(tiny_build: Build) -> None:
    entry = tiny_build.artifact("tflite", "fp32")
    measured = tflite.measure(tiny_build.path(entry), 40, 1)
    assert measured.resolution_us == 0.001
    times = [timed.ms[1] for timed in measured.timed]
    assert all(time > 0 for time in times)
    assert any(0 < time < 0.001 for time in times)
    assert sum(times) < 3 * measured.latency.high_ms


def test_without_a_compiler_times_are_coarse_and_say_so(tiny_build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvtool.profiling.fine_clock.library", lambda: None)
    measured = tflite.measure(tiny_build.path(tiny_build.artifact("tflite", "fp32")), 20, 1)
    assert measured.resolution_us == 1.0
    assert measured.notes[0] == tflite.COARSE
    assert all(timed.ms[1] * 1e3 == pytest.approx(round(timed.ms[1] * 1e3), abs=0.51) for timed in measured.timed)


def test_short_of_time_operators_are_timed_together(tiny_build: Build) -> None:
    entry = tiny_build.artifact("executorch", "fp32")
    told: list[tuple[int, int]] = []
    measured = executorch.measure(tiny_build.path(entry), 1, lambda *numbers: told.append(numbers), budget_s=0.5)
    assert len(measured.timed) < len(measured.written.operators)
    assert sum(timed.merged for timed in measured.timed) == len(measured.written.operators)
    assert "instead of behind all" in measured.notes[1]
    assert told[-1] == (len(measured.timed), len(measured.timed))
    from mvtool.profiling.layers import KnownLayers

    (subject,) = of_build(tiny_build, [entry])
    found = assemble(subject, measured, KnownLayers.none(), "not asked for", 1)
    assert {row.layer for row in found.operators} == {None}
    assert any(row.type.startswith("several operators") for row in found.operators)


def test_command_writes_a_record_and_pictures(tiny_build: Build, tmp_path: Path) -> None:
    arguments = [str(tiny_build.folder), "--runtime", "tflite", "--precision", "int8", "--calls", "20", "--no-roofline"]
    result = CliRunner().invoke(command, [*arguments, "--json", "--out", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0
    document = json.loads((tmp_path / "profile.json").read_text())
    jsonschema.validate(document, published(PROFILE_SCHEMA))
    assert json.loads(result.stdout) == document
    (one,) = document["profiles"]
    assert (tmp_path / f"{Path(one['file']).stem}_tflite.png").stat().st_size > 10_000
    shown = CliRunner().invoke(command, [*arguments, "--no-layers", "--out", str(tmp_path)], catch_exceptions=False)
    for words in (
        "without profiling",
        "operators together",
        "slowest operators",
        "outside the delegate: 0",
        "next steps",
    ):
        assert words in shown.stdout


def test_what_cannot_be_profiled_is_refused(tiny_build: Build, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Apple's devices"):
        chosen(tiny_build, ["coreml"])
    with pytest.raises(UsageError, match=r"has nothing to profile for tflite in fp16\. It has: "):
        chosen(tiny_build, ["tflite"], ["fp16"])
    with pytest.raises(UsageError, match="--calls got 5"):
        Options(calls=5)
    with pytest.raises(UsageError, match="--threads got 0"):
        Options(threads=0)
    with pytest.raises(ManifestError, match="not a build folder"):
        CliRunner().invoke(command, [str(tmp_path)], catch_exceptions=False)


def test_a_changed_file_is_refused(tiny_build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "build"
    shutil.copytree(tiny_build.folder, folder)
    build = Build.load(folder)
    entry = build.artifact(Runtime.TFLITE, Precision.FP32)
    data = bytearray(build.path(entry).read_bytes())
    data[-1] ^= 1
    build.path(entry).write_bytes(data)
    with pytest.raises(ManifestError, match="hash"):
        profile(build, [entry], Options(roofline=False))


def test_a_file_that_crashes_the_profiler_is_told(tmp_path: Path) -> None:
    path = tmp_path / "broken.tflite"
    path.write_bytes(b"\x00" * 64)
    with pytest.raises(RunnerError, match=r"profiles broken\.tflite ended with status"):
        tflite.measure(path, 20, 1)


def test_record_is_frozen_and_refuses_unknown_keys() -> None:
    with pytest.raises(ValueError, match="surprise"):
        Profile.model_validate({"surprise": 1})
