from __future__ import annotations

import json
from pathlib import Path

import bench_records
import pytest

from mvtool.bench import report
from mvtool.bench.record import Record
from mvtool.bench.report_document import document
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


def test_a_record_given_twice_is_shown_once_and_stays_a_baseline(tmp_path: Path) -> None:
    base = saved(tmp_path, "base.json", bench_records.record(seed=1))
    new = saved(tmp_path, "new.json", bench_records.record(seed=2))
    entries = report.load([base, new, new], [base]).entries
    assert {entry.file: entry.baseline for entry in entries} == {"base.json": True, "new.json": False}
    assert len(entries) == 2


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


def test_hidden_characters_show() -> None:
    assert report.clean("a\u202eb\x00\u200bc\N{SNOWMAN} é") == "a\ufffdb\ufffd\ufffdc\N{SNOWMAN} é"


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
