from __future__ import annotations

import re
from pathlib import Path

import bench_records
import pytest

import mvtool
from mvtool.bench import report, report_markdown
from mvtool.bench.markdown_text import LONGEST
from mvtool.bench.record import Record
from mvtool.bench.report_markdown import code
from mvtool.ports import Precision

EXACT = f"""### Benchmark

|  | Model | Device | Runtime | Type | Median, ms | p90, ms | Frames, per s | Peak memory, MiB | Figures are |
| ---: | :--- | :--- | :--- | :--- | ---: | ---: | ---: | ---: | :--- |
| 1 | `movinet_a0_stream` | `Google Pixel 8` | TFLite<br>XNNPACK, 2\N{NO-BREAK SPACE}threads | fp32 | **10.00**<br>10.00 to 10.00 \
| 10.00 | 30.0 | 30.0<br>exact | stable |

<details>
<summary>More figures, and what was measured where</summary>

|  | p99, ms | First, ms | Load, ms | File, MiB | Roofline, of peak | Missed, deadlines |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| 1 | 10.00 | 20.00 | 40.00 | 12.0 | – | 0<br>0 % at 30 fps |

**1** `movinet_a0_stream · TFLite fp32 · Google Pixel 8`

- Device: name `Google Pixel 8`; model `Pixel 8`; system on chip `Tensor G3`; processors `9, arm64-v8a`; memory `8.0 GiB`; \
system `Android 14 (API 34)`; build `google/shiba/shiba:14/AP1A.240405.002/11480754:user/release-keys`
- Engine: library `libLiteRt.so 2.3.0`; interface `LiteRt`; delegate `XNNPACK, all operators`; threads `2, not pinned`; \
state loop `swap`; runner `version 1, e2045947eb1e…`
- Run: begun `2026-03-01T12:00:00Z`; profile `default`; launches `6`; timed `at least 2000 calls and 0 s per launch`; \
warm-up `at least 3 calls and 0 s`; pace `30 frames/s`; cool-down `no limit`; video `walking.mp4, 50 different frames or clips`; \
record `{{identifier}}…`

</details>

<sub>mvtool {mvtool.__version__}. Median of one call of the runtime, below it the 95 % interval.</sub>
"""


def page_of(*records: Record, baseline: bool = False) -> str:
    rows = [(Path("a.json"), record, baseline and number == 0) for number, record in enumerate(records)]
    return report_markdown.page(report.assemble(rows))


def test_a_small_comment_in_full() -> None:
    record = bench_records.record(
        noise=bench_records.SILENT, device=bench_records.PHONE, fps=30.0, threads=2, invokes=2000
    )
    assert page_of(record) == EXACT.replace("{identifier}", record.id[:12])


def test_outcomes_stand_above_the_table() -> None:
    slower = [bench_records.record(base_ms=10.0 + 3 * n, seed=n, artifact=str(n)) for n in range(2)]
    text = page_of(*slower, baseline=True)
    above = text.partition("|  | Model")[0]
    title = "`2 against 1: movinet_a0_stream · TFLite fp32 · Intel Xeon E-2288G`"
    assert re.search(
        re.escape(f"- {title} **Worse**: ")
        + r"latency, median slower \(1\.\d{3}\); latency, 90th .*; peak memory same",
        above,
    )
    assert "| latency, median | " in text.partition("<details>")[2]


def test_stamps_are_alerts() -> None:
    text = page_of(bench_records.record(device=bench_records.LOOPBACK, seed=1), bench_records.record(seed=2))
    assert "> [!CAUTION]\n> **LOOPBACK** (record 2): This is no phone" in text
    assert "| `movinet_a0_stream` **LOOPBACK** |" in text


def test_doubts_are_told_in_words() -> None:
    text = page_of(bench_records.record(launches=1, noise=bench_records.NOISY))
    assert "\n- Record 1 is unstable: " in text.partition("<details>")[0]


def test_rows_have_as_many_cells_as_heads_whatever_the_names() -> None:
    record = bench_records.record(model="a|b`c\\|d\n| e |", seed=1)
    text = page_of(record.model_copy(update={"extra": {"a|b": "c|d"}}))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    counts = [line.replace("\\|", "").count("|") for line in rows]
    assert counts == [11] * 3 + [8] * 3


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("plain", "`plain`"),
        ("<b>@team #1</b>", "`<b>@team #1</b>`"),
        ("a`b", "``a`b``"),
        ("``", "``` `` ```"),
        ("two\nlines", "`two\ufffdlines`"),
        ("", "` `"),
    ],
)
def test_code_spans_hold_any_text(text: str, span: str) -> None:
    assert code(text) == span


def many(count: int, **facts: object) -> list[Record]:
    """Baselines and new records of `count` models."""
    found = []
    for number in range(2 * count):
        record = bench_records.record(
            seed=number,
            artifact=str(number),
            model=f"model_{number // 2}",
            invokes=5,
            launches=2,
            device=bench_records.PHONE,
        )
        found.append(record.model_copy(update=facts))
    return found


def comment(records: list[Record]) -> str:
    rows = [(Path("a.json"), record, number % 2 == 0) for number, record in enumerate(records)]
    return report_markdown.page(report.assemble(rows))


@pytest.mark.parametrize("pairs", [1, 20, 60, 120])
def test_a_comment_is_never_longer_than_github_takes(pairs: int) -> None:
    text = comment(many(pairs))
    assert len(text) <= LONGEST == 65_536
    rows = re.findall(r"^\| \d+ \| `model_", text, re.MULTILINE)
    assert len(rows) == 2 * pairs
    assert text.count("**Comparison**") == {1: 1, 20: 20}.get(pairs, text.count("**Comparison**"))
    assert ("Left out here for its length: " in text) is (pairs > 1)
    if pairs > 1:
        # As much as fits stays: the next description or comparison would have been too long.
        assert len(text) > LONGEST - 3000


def test_what_is_left_out_is_counted() -> None:
    text = comment(many(20))
    described = len(re.findall(r"^- Engine: ", text, re.MULTILINE))
    assert 0 < described < 40
    assert f"Left out here for its length: {40 - described} descriptions of what was measured where. The page" in text


def test_no_name_is_too_long_for_a_comment() -> None:
    record = bench_records.record(model="m" * 70_000)
    assert len(page_of(record)) <= LONGEST


def test_a_comparison_is_that_of_compare() -> None:
    records = [bench_records.record(base_ms=10.0 + 3 * n, seed=n, artifact=str(n)) for n in range(2)]
    details = page_of(*records, baseline=True).partition("<details>")[2]
    assert "| metric | base | new | new / base | 95 % interval | threshold | verdict |" in details
    (median,) = re.findall(r"^\| latency, median \|.*", details, re.MULTILINE)
    assert re.search(r"\| 1\.\d{3} \| 1\.\d{3} to 1\.\d{3} \| 5 % \| 🔴 slower \|$", median)
    assert "launches on their own" in details


def test_what_was_not_compared_is_told() -> None:
    records = [bench_records.record(threads=n, seed=n, artifact=str(n)) for n in (1, 2)]
    other = bench_records.record(seed=3, model="x3d_s", precision=Precision.INT8)
    above = page_of(*records, other, baseline=True).partition("|  | Model")[0]
    assert "**Not compared**: These benchmarks of movinet" in above
    assert (
        "- Not compared, there is no base record: x3d\\_s" in above
        or "- Not compared, there is no base record: x3d_s" in above
    )


def test_one_launch_has_no_interval() -> None:
    text = page_of(bench_records.record(launches=1, noise=bench_records.SILENT))
    assert "**10.00**<br>– (one launch) |" in text
    assert "10.00 to 10.00" not in text
