from __future__ import annotations

from pathlib import Path

import bench_records
import pytest

from mvtool.bench import report
from mvtool.bench.comparison import Compared, Verdict
from mvtool.bench.intervals import Estimate
from mvtool.bench.metrics import METRICS
from mvtool.bench.record import Record
from mvtool.bench.report_verdicts import Pair, cells, outcome, pair_document
from mvtool.ports import Precision


def pairs(*records: tuple[Record, bool]) -> tuple[Pair, ...]:
    return report.assemble([(Path("a.json"), record, baseline) for record, baseline in records]).verdicts


def test_a_slower_artifact_is_worse() -> None:
    (pair,) = pairs(
        (bench_records.record(base_ms=10.0, artifact="a", seed=1), True),
        (bench_records.record(base_ms=13.0, artifact="b", seed=2, peak_bytes=20 * 2**20), False),
    )
    word, why = outcome(pair)
    assert word == "Worse"
    assert "latency, median slower" in why
    assert "Better: peak memory smaller." in why
    assert [entry.baseline for entry in (*pair.base, *pair.new)] == [True, False]


def test_records_find_the_baseline_of_their_own_kind() -> None:
    found = pairs(
        (bench_records.record(artifact="a", seed=1), True),
        (bench_records.record(artifact="b", seed=2, precision=Precision.INT8), True),
        (bench_records.record(artifact="c", seed=3, precision=Precision.INT8), False),
        (bench_records.record(artifact="d", seed=4, model="x3d_s"), False),
    )
    assert sorted(outcome(pair)[0] for pair in found) == ["Not compared", "Not compared", "Same"]
    assert {(len(pair.base), len(pair.new)) for pair in found} == {(1, 1), (1, 0), (0, 1)}
    (same,) = [pair for pair in found if pair.comparison is not None]
    assert same.base[0].record.artifact.precision == same.new[0].record.artifact.precision == Precision.INT8


def test_a_refused_comparison_says_why() -> None:
    (pair,) = pairs(
        (bench_records.record(artifact="a", seed=1, device=bench_records.LOOPBACK), True),
        (bench_records.record(artifact="b", seed=2, device=bench_records.LOOPBACK), False),
    )
    assert outcome(pair)[0] == "Not compared"
    assert "no real device" in outcome(pair)[1]


def test_without_a_baseline_only_what_took_turns_is_compared() -> None:
    apart = [(bench_records.record(seed=seed, artifact=str(seed)), False) for seed in (1, 2)]
    assert pairs(*apart) == ()
    turns = [
        (bench_records.record(base_ms=base_ms, seed=int(base_ms), artifact=str(base_ms), session="s"), False)
        for base_ms in (10.0, 14.0)
    ]
    (pair,) = pairs(*turns)
    assert pair.comparison is not None
    assert pair.comparison.paired


@pytest.mark.parametrize(
    ("metric", "change", "shown"),
    [
        ("latency_p50", Estimate(1.031, 1.011, 1.052), ("+3.1 %", "+1.1 to +5.2 %", "10.00 ms", "12.00 ms", "5 %")),
        ("artifact_size", Estimate(0.5, 0.5, 0.5), ("-50.0 %", "-50.0 to -50.0 %", "0.00 MiB", "0.00 MiB", "5 %")),
        ("deadline_misses", Estimate(0.02, -0.01, 0.05), ("+2.0 pp", "-1.0 to +5.0 pp", "1000 %", "1200 %", "5 pp")),
        ("load", None, ("–", "–", "10.00 ms", "12.00 ms", "5 %")),
    ],
)
def test_changes_are_in_percent_and_of_shares_in_points(
    metric: str, change: Estimate | None, shown: tuple[str, ...]
) -> None:
    one = Compared(METRICS[metric], 10.0, 12.0, change, 5.0, True, Verdict.SAME)
    assert cells(one) == (METRICS[metric].title, "same", *shown)


def test_a_reason_stands_beside_its_verdict() -> None:
    one = Compared(METRICS["load"], 10.0, 12.0, None, 5.0, False, Verdict.INCONCLUSIVE, "one launch")
    assert (cells(one)[1], cells(one)[-1]) == ("inconclusive, one launch", "5 %, not gated")


def test_the_document_holds_every_metric() -> None:
    (pair,) = pairs(
        (bench_records.record(artifact="a", seed=1, noise=bench_records.SILENT), True),
        (bench_records.record(artifact="b", seed=2, noise=bench_records.SILENT), False),
    )
    told = pair_document(pair)
    assert (told["base"], told["new"], told["paired"]) == ([pair.base[0].number], [pair.new[0].number], False)
    median = next(row for row in told["metrics"] if row["name"] == "latency_p50")
    assert median["change"] == {name: pytest.approx(1.0) for name in ("value", "low", "high")}
    assert median["verdict"] == "same"
