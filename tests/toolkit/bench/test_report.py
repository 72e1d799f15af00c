from __future__ import annotations

import json
from pathlib import Path

import bench_records
import pytest

from mvtool.bench import report, report_html, report_markdown
from mvtool.bench.cross_check import LABEL, CrossCheck, Format, MemoryCounter, Timings
from mvtool.bench.record import DeviceFacts, Record
from mvtool.bench.report_document import document
from mvtool.bench.report_facts import facts
from mvtool.errors import ManifestError, UsageError


def saved(folder: Path, name: str, record: Record) -> Path:
    record.save(folder / name)
    return folder / name


def one(record: Record) -> report.Entry:
    return report.assemble([(Path("a.json"), record, False)]).entries[0]


def test_records_stand_by_model_device_and_median(tmp_path: Path) -> None:
    files = [
        saved(tmp_path, "slow.json", bench_records.record(base_ms=20.0, seed=1)),
        saved(tmp_path, "other.json", bench_records.record(base_ms=1.0, model="x3d_s", seed=2)),
        saved(tmp_path, "fast.json", bench_records.record(base_ms=5.0, seed=3)),
        saved(tmp_path, "phone.json", bench_records.record(base_ms=9.0, device=bench_records.PHONE, seed=4)),
    ]
    entries = report.load(files).entries
    assert [entry.file for entry in entries] == ["phone.json", "fast.json", "slow.json", "other.json"]
    assert [entry.number for entry in entries] == [1, 2, 3, 4]


def test_folders_are_taken_on_both_sides(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "new").mkdir()
    saved(tmp_path / "base", "b.json", bench_records.record(seed=1, artifact="a"))
    saved(tmp_path / "new", "n.json", bench_records.record(seed=2, artifact="b"))
    saved(tmp_path / "new", "m.json", bench_records.record(seed=3, model="x3d_s"))
    found = report.load([tmp_path / "new"], [tmp_path / "base"])
    assert {entry.file: entry.baseline for entry in found.entries} == {"b.json": True, "n.json": False, "m.json": False}
    assert len(found.verdicts.pairs) == 1


def test_a_record_cannot_stand_on_both_sides_or_twice_on_one(tmp_path: Path) -> None:
    base = saved(tmp_path, "base.json", bench_records.record(seed=1))
    new = saved(tmp_path, "new.json", bench_records.record(seed=2))
    with pytest.raises(UsageError, match=r"base\.json was given as new .*cannot be compared with itself"):
        report.load([base, new], [base])
    with pytest.raises(UsageError, match="the same record"):
        report.load([new, new])


def test_a_median_of_no_time_has_no_rate() -> None:
    entry = one(bench_records.record(base_ms=0.0, noise=bench_records.SILENT))
    assert entry.summary.median_ms.value == 0.0
    assert entry.macs_per_second is None


def test_two_builds_of_a_session_are_told_apart(tmp_path: Path) -> None:
    def build(label: str, session: str | None) -> tuple[Path, Record, bool]:
        record = bench_records.record(artifact=label, seed=len(label), session=session)
        artifact = record.artifact.model_copy(update={"build": label})
        return Path("a.json"), record.model_copy(update={"artifact": artifact}), False

    together = report.assemble([build("a0", "s"), build("a0-new", "s")]).entries
    assert {entry.name for entry in together} == {
        f"movinet_a0_stream ({label}) · TFLite fp32 · Intel Xeon E-2288G" for label in ("a0", "a0-new")
    }
    apart = report.assemble([build("a0", None), build("a0-new", None)]).entries
    assert {entry.name for entry in apart} == {"movinet_a0_stream · TFLite fp32 · Intel Xeon E-2288G"}


def test_a_file_that_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"schema": "mvtool.build/1"}')
    good = saved(tmp_path, "good.json", bench_records.record())
    with pytest.raises(ManifestError, match=r"manifest\.json is no record of a benchmark"):
        report.load([good, tmp_path / "manifest.json"])


def test_nothing_is_no_report() -> None:
    with pytest.raises(UsageError, match="nothing to report"):
        report.load([])


def test_stamps_say_what_the_figures_are_worth() -> None:
    record = bench_records.record(device=bench_records.LOOPBACK, profile="quick")
    model = record.model.model_copy(update={"untrained": True})
    device = record.device.model_copy(update={"emulated": True})
    entry = one(record.model_copy(update={"model": model, "device": device}))
    assert [stamp.word for stamp in entry.stamps] == ["LOOPBACK", "EMULATED", "UNTRAINED", "QUICK"]
    assert entry.meaningless
    trained = one(bench_records.record(profile="quick"))
    assert [stamp.word for stamp in trained.stamps] == ["QUICK"]
    assert not trained.meaningless


def test_intensity_counts_states_twice() -> None:
    # 40 million multiply-adds; 12 MiB of weights, 1 MiB of state in and out, half a MiB of other ports.
    entry = one(bench_records.record(noise=bench_records.SILENT))
    assert entry.intensity == pytest.approx(40e6 / (14.5 * 2**20))
    assert entry.macs_per_second == pytest.approx(40e6 / 10e-3)


def test_uncounted_multiply_adds_have_no_intensity() -> None:
    record = bench_records.record()
    entry = one(record.model_copy(update={"model": record.model.model_copy(update={"macs": None})}))
    assert (entry.intensity, entry.macs_per_second) == (None, None)


def test_the_document_is_plain_json_with_every_launch() -> None:
    assembled = report.assemble([(Path("a.json"), bench_records.record(noise=bench_records.SILENT, launches=3), False)])
    (told,) = json.loads(json.dumps(document(assembled), allow_nan=False))["records"]
    assert told["summary"]["median_ms"] == {"value": 10.0, "low": 10.0, "high": 10.0}
    assert (
        told["launches"]
        == [{"invokes": 171, "median_ms": 10.0, "p99_ms": 10.0, "max_ms": 10.0, "first_ms": 20.0, "load_ms": 40.0}] * 3
    )
    assert [mark["at"] for mark in told["memory"]] == ["start", "library", "loaded", "first", "end"]
    assert "launches" not in told["record"]
    assert told["record"]["schema"] == "mvtool.bench/1"


@pytest.mark.parametrize("device", [bench_records.LOOPBACK, bench_records.PHONE], ids=["stand-in", "phone"])
def test_programs_are_told_that_the_figures_of_a_stand_in_are_meaningless(device: DeviceFacts) -> None:
    assembled = report.assemble([(Path("a.json"), bench_records.record(device=device), False)])
    (told,) = document(assembled)["records"]
    assert told["summary"]["stability"]["stable"] is True
    assert told["summary"]["stability"]["meaningless"] is device.loopback


def cross_checked() -> Record:
    timings = Timings(runs=50, avg_ms=10.5, min_ms=9.0, max_ms=14.0, median_ms=10.25)
    check = CrossCheck(
        format=Format.TEXT_2021, threads=2, first_ms=30.0, init_ms=5.0, inference=timings,
        memory_bytes={MemoryCounter.PEAK: 40 * 2**20},
    )  # fmt: skip
    return bench_records.record().model_copy(update={"cross_checks": (check,)})


def test_cross_checks_stand_under_their_label() -> None:
    groups = dict(facts(one(cross_checked())))
    assert groups[LABEL] == [
        ("benchmark_model", "text since 2021, 2 threads"),
        ("inference", "mean 10.50, median 10.25, fastest 9.000, slowest 14.00 ms of 50 runs"),
        ("first", "30.00 ms"),
        ("init", "5.000 ms"),
        ("ru_maxrss_sampled_peak", "40.0 MiB"),
    ]
    assert LABEL not in dict(facts(one(bench_records.record())))


def test_cross_checks_are_shown_on_the_page_and_in_the_comment() -> None:
    assembled = report.assemble([(Path("a.json"), cross_checked(), False)])
    assert f"<h3>{LABEL}</h3>" in report_html.page(assembled)
    comment = report_markdown.page(assembled).partition("<details>")[2]
    assert "\n- cross-check, not the instrument: " in comment
    assert "`mean 10.50, median 10.25, fastest 9.000, slowest 14.00 ms of 50 runs`" in comment
