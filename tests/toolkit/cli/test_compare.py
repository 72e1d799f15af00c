from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench_records import CALM, HOPELESS, LOOPBACK, MIB, PHONE, SILENT, record

from mvtool import cli
from mvtool.bench.record import Moment, Reading, Record
from mvtool.ports import Precision


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(["compare", *map(str, arguments)])
    assert isinstance(end.value.code, int)
    return end.value.code


def saved(path: Path, record: Record) -> Path:
    path.parent.mkdir(exist_ok=True)
    record.save(path)
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return saved(tmp_path / "base.json", record())


@pytest.fixture
def slower(tmp_path: Path) -> Path:
    return saved(tmp_path / "slower.json", record(base_ms=11.5, artifact="b", seed=1))


@pytest.fixture
def same(tmp_path: Path) -> Path:
    return saved(tmp_path / "same.json", record(artifact="c", seed=2))


@pytest.fixture
def unclear(tmp_path: Path) -> Path:
    return saved(tmp_path / "unclear.json", record(artifact="d", seed=3, noise=HOPELESS))


def test_exit_codes(base: Path, slower: Path, same: Path, unclear: Path) -> None:
    assert run(base, same) == 0
    assert run(slower, base) == 0  # faster
    assert run(base, slower) == 16
    assert run(base, unclear) == 0
    assert run(base, unclear, "--fail-on", "inconclusive") == 17
    assert run(base, same, "--fail-on", "inconclusive") == 0
    assert run(base, slower, "--fail-on", "inconclusive") == 16


def test_larger_memory_fails_too(base: Path, tmp_path: Path) -> None:
    larger = saved(tmp_path / "larger.json", record(artifact="b", peak_bytes=40 * MIB))
    assert run(base, larger) == 16


def test_the_table(base: Path, slower: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(base, slower)
    out = capsys.readouterr().out
    assert out.startswith("movinet_a0_stream · tflite fp32 · Intel Xeon E-2288G")
    (median,) = [line for line in out.splitlines() if line.startswith("latency, median")]
    assert median.split()[-3:] == ["5", "%", "slower"]
    assert "1.1" in median
    (size,) = [line for line in out.splitlines() if line.startswith("artifact")]
    assert "1.000 to 1.000" in size
    assert "1 %, not gated" in size


def test_json(base: Path, slower: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(base, slower, "--json") == 16
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["worse"], document["inconclusive"]) == ("mvtool.comparison/1", True, False)
    (one,) = document["comparisons"]
    assert one["base"]["artifact"]["sha256"] != one["new"]["artifact"]["sha256"]
    median = one["metrics"]["latency_p50"]
    assert (median["verdict"], median["gated"], median["threshold_percent"]) == ("slower", True, 5.0)
    assert median["ratio"]["low"] < median["ratio"]["value"] < median["ratio"]["high"]
    assert median["new_ms"] / median["base_ms"] == pytest.approx(median["ratio"]["value"])
    assert one["metrics"]["peak_memory"]["base_bytes"] == pytest.approx(30 * MIB)


def test_markdown(base: Path, slower: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(base, slower, "--markdown") == 16
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "### Benchmark comparison"
    assert lines[2].startswith(
        "🔴 **movinet\\_a0\\_stream · tflite fp32 · Intel Xeon E-2288G**: latency, median slower (1.1"
    )
    table = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in table} == {8}
    assert table[2].endswith("| 🔴 slower |")


def test_nothing_in_a_record_becomes_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = record()
    device = base.device.model_copy(update={"name": "<img src=x> | @all [a](b) *x* \n# y"})
    files = [
        saved(tmp_path / f"{i}.json", one.model_copy(update={"device": device}))
        for i, one in enumerate((base, record(artifact="b", seed=1)))
    ]
    assert run(*files, "--markdown") == 0
    out = capsys.readouterr().out
    assert "<" not in out
    assert "@all" not in out
    assert r"\[a\](b) \*x\*" in out
    assert "\n# y" not in out
    assert {line.count("|") for line in out.splitlines() if line.startswith("|")} == {8}


def test_thresholds(base: Path, slower: Path) -> None:
    assert run(base, slower, "--threshold", "latency_p50=30", "--threshold", "latency_p90=30%") == 0
    assert run(base, slower, "--threshold", "latency_p50=3") == 16


def test_a_gated_metric_cannot_go_missing(
    base: Path, same: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    misses = ("--threshold", "deadline_misses=1", "--fail-on", "inconclusive")
    assert run(base, same, *misses) == 2
    assert "no record tells it: missed deadlines need a pace" in capsys.readouterr().err
    paced = saved(tmp_path / "paced.json", record(fps=50, artifact="p", seed=4))
    assert run(base, paced, *misses, "--allow", "pacing") == 17
    assert "missed deadlines: the base side does not tell it" in capsys.readouterr().out


def test_a_folder_may_hold_paced_and_unpaced_runs(tmp_path: Path) -> None:
    for side, seed in (("base", 0), ("new", 10)):
        for i, fps in enumerate((None, 30.0)):
            saved(tmp_path / side / f"{i}.json", record(fps=fps, seed=seed + i, artifact=side, noise=SILENT))
    assert (
        run(tmp_path / "base", tmp_path / "new", "--threshold", "deadline_misses=1", "--fail-on", "inconclusive") == 0
    )


def test_two_phones_of_one_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [PHONE.model_copy(update={"serial": f"3A091FDJH00{i}ZZ"}) for i in range(2)]
    files = {
        (side, i): saved(tmp_path / side / f"{i}.json", record(device=device, artifact=side, seed=seed + i))
        for side, seed in (("base", 0), ("new", 10))
        for i, device in enumerate(others)
    }
    assert run(files["base", 0], files["new", 1]) == 2
    assert "--allow serial" in capsys.readouterr().err
    assert run(files["base", 0], files["new", 1], "--allow", "serial") == 0
    assert "Different serial: 2 devices" in capsys.readouterr().out
    # Each phone is compared with itself.
    assert run(tmp_path / "base", tmp_path / "new", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["comparisons"]) == 2
    files["new", 1].unlink()
    assert run(tmp_path / "base", tmp_path / "new", "--allow", "missing") == 0
    out = capsys.readouterr().out
    assert "…01ZZ." in out
    assert others[1].serial not in out


def test_a_throttled_phone_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hot = (Reading(moment=Moment.DURING, time_s=1, thermal_status=4),)
    base = saved(tmp_path / "base.json", record(device=PHONE))
    new = saved(tmp_path / "new.json", record(device=PHONE, base_ms=20, artifact="b", readings=hot))
    assert run(base, new) == 0
    assert run(base, new, "--fail-on", "inconclusive") == 17
    out = capsys.readouterr().out
    assert "a device was throttled (thermal status 4" in out
    assert "New: The device was throttled" in out


@pytest.mark.parametrize("word", ["latency_p50", "latency_p50=", "latency_p50=fast", "speed=3", "latency_p50=-1"])
def test_thresholds_that_mean_nothing(base: Path, same: Path, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(base, same, "--threshold", word) == 2
    assert "--threshold" in capsys.readouterr().err


def test_a_refusal_names_the_word_that_allows_it(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = saved(tmp_path / "threads.json", record(threads=4, artifact="b", seed=1))
    assert run(base, threads) == 2
    assert "threads: base 1, new 4" in capsys.readouterr().err
    assert run(base, threads, "--allow", "threads, library") == 0
    assert "Different threads: base 1, new 4." in capsys.readouterr().out


def test_a_loopback_phone_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        saved(tmp_path / f"{name}.json", record(device=LOOPBACK, artifact=name, seed=i)) for i, name in enumerate("ab")
    ]
    assert run(*files) == 2
    assert "--allow loopback" in capsys.readouterr().err
    assert run(*files, "--allow", "loopback") == 0
    assert "(no real device)" in capsys.readouterr().out


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two artifacts each, of which the int8 one got slower."""
    base, new = tmp_path / "base", tmp_path / "new"
    for i, precision in enumerate((Precision.FP32, Precision.INT8)):
        saved(base / f"{precision}.json", record(precision=precision, seed=i, artifact=f"a{i}"))
        after = record(precision=precision, seed=i + 5, artifact=f"b{i}", base_ms=10 + 2 * i)
        saved(new / f"{precision}.json", after)
    return base, new


def test_folders_pair_what_belongs_together(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*folders, "--json") == 16
    found = json.loads(capsys.readouterr().out)["comparisons"]
    assert [(one["precision"], one["worse"]) for one in found] == [("fp32", False), ("int8", True)]
    assert run("--base", folders[0], "--new", folders[1]) == 16


def test_a_lost_artifact_is_no_success(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    (folders[1] / "int8.json").unlink()
    assert run(*folders) == 2
    assert "no new record for movinet_a0_stream tflite int8" in capsys.readouterr().err
    assert run(*folders, "--allow", "missing") == 0
    assert "there is no new record: movinet_a0_stream tflite int8" in capsys.readouterr().out


def test_a_new_artifact_is_told(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    (folders[0] / "int8.json").unlink()
    assert run(*folders) == 0
    assert "there is no base record: movinet_a0_stream tflite int8" in capsys.readouterr().out


def test_runs_of_several_manners_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for side, seed in (("base", 0), ("new", 10)):
        for i, fps in enumerate((None, 30.0)):
            found = record(fps=fps, seed=seed + i, artifact=side, base_ms=10.0)
            saved(tmp_path / side / f"{i}.json", found)
    assert run(tmp_path / "base", tmp_path / "new", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["comparisons"]) == 2


def test_several_records_of_a_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = []
    for side, seed in (("base", 0), ("new", 10)):
        for i in range(2):
            found = saved(tmp_path / f"{side}{i}.json", record(seed=seed + i, artifact=side, noise=CALM))
            arguments += [f"--{side}", found]
    assert run(*arguments) == 0
    assert "12 launches of 2 records" in capsys.readouterr().out


def test_two_models_that_were_named_are_refused_and_not_lost(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = saved(tmp_path / "other.json", record(model="x3d_s", artifact="b"))
    assert run(base, other) == 2
    assert "model: base movinet_a0_stream, new x3d_s" in capsys.readouterr().err


def test_too_few_launches_are_inconclusive_in_every_form(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = saved(tmp_path / "one.json", record(launches=1, invokes=500, artifact="b"))
    assert run(base, one, "--fail-on", "inconclusive") == 17
    assert (
        "first invoke; load; peak memory: one launch does not show how much launches differ" in capsys.readouterr().out
    )
    assert run(base, one, "--json") == 0
    median = json.loads(capsys.readouterr().out)["comparisons"][0]["metrics"]["latency_p50"]
    assert (median["verdict"], median["ratio"]) == ("inconclusive", None)
    assert run(base, one, "--markdown") == 0
    assert "| – | – | 5 % | 🟡 inconclusive |" in capsys.readouterr().out


def test_missed_deadlines_are_shown_in_percentage_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        saved(tmp_path / f"{i}.json", record(fps=50, base_ms=ms, artifact=str(i))) for i, ms in enumerate((10.0, 30.0))
    ]
    assert run(*files, "--threshold", "deadline_misses=2") == 16
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missed deadlines")]
    assert " ".join(line.split()) == "missed deadlines 0 % 100 % +100.0 pp +100.0 pp to +100.0 pp 2 pp more"


def test_precisions_on_purpose(base: Path, tmp_path: Path) -> None:
    int8 = saved(tmp_path / "int8.json", record(precision=Precision.INT8, artifact="b", base_ms=5))
    assert run(base, int8) == 2
    assert run(base, int8, "--allow", "precision") == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Got 0 path(s)"),
        (("base.json",), "Got 1 path(s)"),
        (("--base", "base.json"), "--new 0 times"),
        (("base.json", "same.json", "--new", "same.json"), "Got 2 path(s)"),
        (("base.json", "gone.json"), "gone.json does not exist"),
        (("base.json", "empty"), "holds no .json file"),
        (("base.json", "base.json"), "stands on both sides"),
        (("--base", "base.json", "--base", "base.json", "--new", "same.json"), "are the same record"),
        (("base.json", "same.json", "--json", "--markdown"), "contradict"),
        (("base.json", "same.json", "--allow", "color"), "--allow got 'color'"),
    ],
)
def test_command_lines_that_make_no_sense(
    arguments: tuple[str, ...],
    told: str,
    base: Path,
    same: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(base.parent)
    Path("empty").mkdir()
    assert run(*arguments) == 2
    assert told in capsys.readouterr().err


def test_a_file_that_is_no_record(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.json").write_text('{"schema": "mvtool.bench/1"}')
    assert run(base, tmp_path / "bad.json") == 9
    assert "bad.json is no record of a benchmark" in capsys.readouterr().err


def test_no_framework_is_imported(base: Path, same: Path) -> None:
    program = (
        "import sys\nfrom mvtool.cli.compare import command\n"
        "try:\n    command([*sys.argv[1:]])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "bad = {'torch', 'tensorflow', 'ai_edge_litert', 'executorch', 'coremltools', 'matplotlib', 'scipy', 'av'}\n"
        "assert not bad & set(sys.modules), bad & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(base), str(same)], check=True, capture_output=True)
