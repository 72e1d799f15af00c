from __future__ import annotations

from pathlib import Path
from typing import Any

import bench_records
import pytest

from mvtool.bench import report
from mvtool.bench.record import Record
from mvtool.bench.report_verdicts import Verdicts
from mvtool.errors import UsageError
from mvtool.ports import Precision, Runtime

INT8, FP32 = Precision.INT8, Precision.FP32


def verdicts(*records: tuple[Record, bool], **options: Any) -> Verdicts:
    return report.assemble([(Path("a.json"), record, baseline) for record, baseline in records], **options).verdicts


def in_turns(*artifacts: tuple[str, Precision], runtime: Runtime = Runtime.TFLITE) -> list[tuple[Record, bool]]:
    """Records of a session: builds and precisions in the order in which they were named; later ones are slower."""
    found = []
    for place, (build, precision) in enumerate(artifacts):
        record = bench_records.record(
            base_ms=10.0 + 5 * place,
            seed=place,
            artifact=f"{build}{precision}",
            precision=precision,
            runtime=runtime,
            session="s",
        )
        launches = tuple(
            launch.model_copy(update={"started_s": launch.started_s + place}) for launch in record.launches
        )
        artifact = record.artifact.model_copy(update={"build": build})
        found.append((record.model_copy(update={"artifact": artifact, "launches": launches}), False))
    return found


def sides(found: Verdicts) -> list[tuple[str, str]]:
    """Build and precision of the new side and of the base of each pair."""
    return [
        (f"{p.new[0].record.artifact.build} {p.new[0].kind}", f"{p.base[0].record.artifact.build} {p.base[0].kind}")
        for p in found.pairs
    ]


def test_a_slower_artifact_is_worse() -> None:
    (pair,) = verdicts(
        (bench_records.record(base_ms=10.0, artifact="a", seed=1), True),
        (bench_records.record(base_ms=13.0, artifact="b", seed=2, peak_bytes=20 * 2**20), False),
    ).pairs
    assert pair.standing == "worse"
    assert "latency, median slower" in pair.outcome
    assert "peak memory smaller" in pair.outcome
    assert [entry.baseline for entry in (*pair.base, *pair.new)] == [True, False]


@pytest.mark.parametrize(("base_ms", "standing"), [(10.0, "same"), (7.0, "better"), (14.0, "worse")])
def test_the_standing_is_that_of_the_gated_metrics(base_ms: float, standing: str) -> None:
    (pair,) = verdicts(
        (bench_records.record(noise=bench_records.SILENT, artifact="a", seed=1), True),
        (bench_records.record(noise=bench_records.SILENT, base_ms=base_ms, artifact="b", seed=2), False),
    ).pairs
    assert pair.standing == standing


def test_records_find_the_baseline_of_their_own_kind() -> None:
    found = verdicts(
        (bench_records.record(artifact="a", seed=1), True),
        (bench_records.record(artifact="b", seed=2, precision=INT8), True),
        (bench_records.record(artifact="c", seed=3, precision=INT8), False),
        (bench_records.record(artifact="d", seed=4, model="x3d_s"), False),
    )
    (same,) = found.pairs
    assert same.base[0].record.artifact.precision == same.new[0].record.artifact.precision == INT8
    assert [note.partition(":")[0] for note in found.notes] == [
        "Not compared, there is no base record", "Not compared, there is no new record",
    ]  # fmt: skip
    assert "x3d_s" in found.notes[0]
    assert "movinet_a0_stream tflite fp32" in found.notes[1]


def test_a_refused_comparison_says_why_and_the_others_go_on() -> None:
    found = verdicts(
        (bench_records.record(artifact="a", seed=1), True),
        (bench_records.record(artifact="b", seed=2, threads=4), False),
        (bench_records.record(artifact="c", seed=3, precision=INT8), True),
        (bench_records.record(artifact="d", seed=4, precision=INT8), False),
    )
    refused, compared = sorted(found.pairs, key=lambda pair: pair.standing != "refused")
    assert refused.comparison is None
    assert "threads: base 1, new 4" in refused.outcome
    assert compared.comparison is not None
    assert found.notes == ()


@pytest.mark.parametrize("change", [{"fps": 30.0}, {"threads": 2}, {"device": bench_records.LOOPBACK}])
def test_the_reason_is_that_of_compare(change: dict[str, Any]) -> None:
    (pair,) = verdicts(
        (bench_records.record(artifact="a", seed=1), True),
        (bench_records.record(artifact="b", seed=2, **change), False),
    ).pairs
    assert "they differ in more than the artifact" in pair.outcome
    assert "There is no" not in pair.outcome


def test_what_may_differ_and_what_matters_can_be_said() -> None:
    records = [
        (bench_records.record(artifact="a", noise=bench_records.SILENT, seed=1), True),
        (bench_records.record(artifact="b", noise=bench_records.SILENT, seed=2, base_ms=10.4, threads=2), False),
    ]
    (loose,) = verdicts(*records, allow=["threads"]).pairs
    (strict,) = verdicts(*records, allow=["threads"], thresholds={"latency_p50": 3.0}).pairs
    assert (loose.standing, strict.standing) == ("same", "worse")


@pytest.mark.parametrize(
    "options", [{"allow": ["everything"]}, {"thresholds": {"speed": 1.0}}, {"thresholds": {"deadline_misses": 1.0}}]
)
def test_unknown_words_are_errors_and_no_refusals(options: dict[str, Any]) -> None:
    records = [(bench_records.record(artifact=name, seed=seed), seed == 1) for seed, name in ((1, "a"), (2, "b"))]
    with pytest.raises(UsageError, match=r"--allow|--threshold"):
        verdicts(*records, **options)


def test_a_threshold_of_paced_runs_does_not_refuse_the_others() -> None:
    found = verdicts(
        (bench_records.record(artifact="a", seed=1), True),
        (bench_records.record(artifact="b", seed=2), False),
        (bench_records.record(artifact="c", seed=3, model="x3d_s", fps=30.0), True),
        (bench_records.record(artifact="d", seed=4, model="x3d_s", fps=30.0), False),
        thresholds={"deadline_misses": 2.0},
    )
    assert [pair.comparison is not None for pair in found.pairs] == [True, True]


def test_the_bad_news_comes_first() -> None:
    records = [
        (
            bench_records.record(
                base_ms=10 + 4 * new * worse,
                artifact=f"{model}{new}",
                seed=seed,
                model=model,
                threads=1 + new * other,
                noise=bench_records.SILENT,
            ),
            not new,
        )
        for seed, (model, worse, other) in enumerate([("a", -1, 0), ("b", 0, 0), ("c", 1, 0), ("d", 0, 1)])
        for new in (0, 1)
    ]
    assert [pair.word for pair in verdicts(*records).worst_first] == ["Not compared", "Worse", "Better", "Same"]


def test_baselines_alone_are_not_compared_and_it_is_said() -> None:
    found = verdicts((bench_records.record(), True))
    assert (found.pairs, found.notes) == ((), ("Not compared, every record was given as a baseline.",))


def test_without_a_baseline_only_what_took_turns_is_compared() -> None:
    apart = [(bench_records.record(seed=seed, artifact=str(seed)), False) for seed in (1, 2)]
    assert verdicts(*apart) == Verdicts()
    (pair,) = verdicts(*in_turns(("a", FP32), ("b", FP32))).pairs
    assert pair.comparison is not None
    assert pair.comparison.paired


def test_builds_of_a_session_are_compared_with_their_like() -> None:
    found = verdicts(*in_turns(("old", FP32), ("old", INT8), ("new", FP32), ("new", INT8)))
    assert sides(found) == [("new TFLite fp32", "old TFLite fp32"), ("new TFLite int8", "old TFLite int8")]
    assert all("Different" not in note for pair in found.pairs if pair.comparison for note in pair.comparison.notes)


def test_the_order_is_that_in_which_artifacts_were_named() -> None:
    found = verdicts(*in_turns(("b", INT8), ("c", INT8), ("a", INT8)))
    assert sides(found) == [("c TFLite int8", "b TFLite int8"), ("a TFLite int8", "b TFLite int8")]


def test_what_occurs_once_beside_two_builds_is_compared_with_nothing() -> None:
    found = verdicts(*in_turns(("old", FP32), ("old", INT8), ("new", INT8)))
    assert sides(found) == [("new TFLite int8", "old TFLite int8")]


def test_precisions_of_one_build_are_compared_with_the_first() -> None:
    found = verdicts(*in_turns(("a", FP32), ("a", INT8), ("a", Precision.FP16)))
    assert sides(found) == [("a TFLite int8", "a TFLite fp32"), ("a TFLite fp16", "a TFLite fp32")]
    assert (
        found.pairs[0].title == "2 against 1: movinet_a0_stream · Intel Xeon E-2288G, TFLite int8 against TFLite fp32"
    )


def test_titles_name_the_builds_where_two_are_alike() -> None:
    (pair,) = verdicts(*in_turns(("a0", FP32), ("a0-new", FP32))).pairs
    assert pair.title == ("2 against 1: movinet_a0_stream · TFLite fp32 · Intel Xeon E-2288G, a0-new against a0")


def test_the_document_is_that_of_compare() -> None:
    found = verdicts(
        (bench_records.record(artifact="a", seed=1, noise=bench_records.SILENT), True),
        (bench_records.record(artifact="b", seed=2, noise=bench_records.SILENT), False),
        (bench_records.record(artifact="c", seed=3, precision=INT8), True),
        (bench_records.record(artifact="d", seed=4, precision=INT8, threads=2), False),
    )
    told = found.document()
    assert told["comparison"]["schema"] == "mvtool.comparison/1"
    (compared,) = told["comparison"]["comparisons"]
    assert compared["base"]["records"] == [pair.base[0].record.id for pair in found.pairs if pair.comparison]
    assert compared["metrics"]["latency_p50"]["ratio"] == {n: pytest.approx(1.0) for n in ("value", "low", "high")}
    (refused,) = told["refusals"]
    assert "threads" in refused["reason"]
    assert [len(refused[side]) for side in ("base", "new")] == [1, 1]
