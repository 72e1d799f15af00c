from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from bench_records import HOPELESS, SILENT, record

from mvtool.bench.comparison import Comparison, compare
from mvtool.bench.comparison_text import (
    COMPARISON_SCHEMA,
    HEADS,
    LIMIT,
    cells,
    comparison_document,
    document,
    markdown,
    markdown_details,
    markdown_table,
    overall,
    reasons,
    sides,
    worst_first,
)
from mvtool.bench.markdown_text import LONGEST
from mvtool.bench.pairing import Outcome

STANDINGS = {"same": (10.0, SILENT), "better": (8.0, SILENT), "worse": (12.0, SILENT), "inconclusive": (10.0, HOPELESS)}


def compared(standing: str, model: str = "a0", noted: Sequence[str] = ()) -> Comparison:
    base_ms, noise = STANDINGS[standing]
    base = record(model=model, noise=SILENT, invokes=30, seed=1)
    new = record(model=model, noise=noise, base_ms=base_ms, invokes=30, artifact="b", seed=3)
    return compare([base], [new.model_copy(update={"notes": tuple(noted)})])


SIXTY = Outcome(
    tuple(compared(("same", "better", "inconclusive", "worse")[i % 4], f"model_{i}") for i in range(60)), ("A note.",)
)


@pytest.mark.parametrize("standing", STANDINGS)
def test_the_worst_of_the_gated_metrics_is_the_outcome(standing: str) -> None:
    found = compared(standing)
    assert overall(found) == standing
    assert comparison_document(found)["outcome"] == standing
    assert (found.worse, found.inconclusive) == (standing == "worse", standing == "inconclusive")


def test_what_is_worse_comes_first() -> None:
    found = [overall(one) for one in worst_first([compared(standing) for standing in STANDINGS])]
    assert found == ["worse", "inconclusive", "better", "same"]


def test_sixty_pairs_fit_a_comment() -> None:
    text = markdown(SIXTY)
    assert 0.8 * LIMIT < len(text) <= LIMIT < LONGEST
    lines = [line for line in text.splitlines() if "**model" in line]
    assert [line[0] for line in lines] == [*"🔴" * 15, *"🟡" * 15, *"🟢" * 15, *"⚪" * 15]
    assert {line.split("**")[1].split(" ")[0] for line in lines} == {rf"model\_{i}" for i in range(60)}
    tables = text.count("\n| :--- |")
    assert f"The tables of {60 - tables} comparisons are left out here" in text
    # The details that stand are those of the worst.
    assert text.index("🔴") < text.index("\n| :--- |") < text.index("🟡 **")
    assert text.endswith("- A note.\n")


def test_a_few_pairs_are_told_whole() -> None:
    text = markdown(Outcome(SIXTY.comparisons[:4]))
    assert text.count("\n| :--- |") == 4
    assert "left out" not in text


@pytest.mark.parametrize("limit", [1_000, 5_000, 20_000])
def test_a_limit_too_small_for_all_lines_keeps_the_worst(limit: int) -> None:
    text = markdown(SIXTY, limit)
    assert len(text) <= limit
    lines = [line for line in text.splitlines() if "**model" in line]
    assert lines[0].startswith("🔴")
    left_out = 60 - len(lines)
    assert (f"{left_out} more comparisons, none of them worse than these" in text) == (left_out > 0)


def test_parts_for_a_report() -> None:
    found = compared("worse", noted=["See https://evil.example @all GH-3 \u202e"])
    rows = markdown_table(found).splitlines()
    assert len(rows) == 2 + len(found.metrics)
    assert rows[0] == f"| {' | '.join(HEADS)} |"
    assert all(len(cells(one)) == len(HEADS) for one in found.metrics)
    details = markdown_details(found)
    assert details.startswith("\n".join(rows))
    for forbidden in ("https://", "@all", "GH-3", "\u202e"):
        assert forbidden not in details
    assert "a0" in sides(found)


def test_metrics_that_share_a_reason_share_its_sentence() -> None:
    one = record(launches=1, invokes=200)
    (sentence,) = reasons(compare([one], [record(launches=1, invokes=200, artifact="b")]))
    assert sentence.startswith("latency, median; latency, 90th percentile; ")


def test_json_has_units_in_its_keys() -> None:
    found = document(Outcome((compared("worse"),)))
    assert found["schema"] == COMPARISON_SCHEMA
    (one,) = json.loads(json.dumps(found, allow_nan=False))["comparisons"]
    assert {"base_ms", "new_ms", "ratio"} <= one["metrics"]["latency_p50"].keys()
    assert {"base_bytes", "new_bytes"} <= one["metrics"]["peak_memory"].keys()
