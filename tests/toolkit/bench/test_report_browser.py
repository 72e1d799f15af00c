"""The page in a real browser: nothing is complained of, nothing is fetched, the table sorts, no width breaks it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import bench_records
import numpy as np
import pytest
from browser import Page, browsing
from PIL import Image

from mvtool.bench import report, report_html
from mvtool.bench.record import Roofline
from mvtool.ports import Precision

SPITEFUL = "<script>document.title='broken'</script>\"'&amp;</th>"
PEAKS = Roofline(macs_per_second={Precision.FP32: 20e9, Precision.INT8: 60e9}, bytes_per_second=10e9, method="product")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [
        bench_records.record(base_ms=20.0, model="slow_stream", roofline=PEAKS, seed=1),
        bench_records.record(base_ms=3.0, model="fast_stream", device=bench_records.LOOPBACK, fps=30.0, seed=2),
        bench_records.record(base_ms=9.0, model=SPITEFUL, precision=Precision.INT8, roofline=PEAKS, seed=3),
    ]
    file = tmp_path_factory.mktemp("report") / "report.html"
    assembled = report.assemble([(Path(f"{number}.json"), record, False) for number, record in enumerate(records)])
    file.write_text(report_html.page(assembled), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def page(page_file: Path) -> Iterator[Page]:
    with browsing() as opened:
        yield opened


def rows(page: Page) -> list[str]:
    """Medians in the order of the table."""
    cells = page.evaluate("[...document.querySelectorAll('#records tbody tr')].map(row => row.cells[4].dataset.value)")
    return [f"{float(value):.0f}" for value in cells]


def press(page: Page, column: str) -> str:
    """Press the head of a column with the keyboard; its `aria-sort` afterwards."""
    head = f"document.querySelector('th[data-column=\"{column}\"]')"
    page.evaluate(f"{head}.querySelector('button').focus()")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    page.call("Input.dispatchKeyEvent", type="keyUp", key="Enter", code="Enter", windowsVirtualKeyCode=13)
    return str(page.evaluate(f"{head}.getAttribute('aria-sort')"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width_px", [400, 1400])
def test_it_fits_its_window_and_is_not_blank(page: Page, page_file: Path, width_px: int, dark: bool) -> None:
    page.open(page_file, width_px, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth") == width_px
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"))
    assert picture.shape[1] == width_px
    paper = np.median(picture)
    assert bool(paper < 60) is dark
    # Plots and text reach every part of the page, top to bottom.
    assert all(np.abs(part - paper).max() > 80 for part in np.array_split(picture.astype(float), 12))
    shown = page.evaluate(
        "[...document.querySelectorAll('svg')].filter(svg => svg.getBoundingClientRect().width > 300)"
    )
    assert len(shown) == len(page.evaluate("[...document.querySelectorAll('figure')]"))


def test_no_column_of_a_verdict_is_hidden(page: Page, tmp_path: Path) -> None:
    """With the widest cells: percentage points of missed deadlines, and `inconclusive`."""
    paced = [
        bench_records.record(
            base_ms=9.5 + 5 * n, fps=100.0, seed=n, artifact=str(n), invokes=20, noise=bench_records.HOPELESS
        )
        for n in range(4)
    ]
    models = [record.model.model_copy(update={"name": f"model_{n // 2}"}) for n, record in enumerate(paced)]
    rows = [
        (Path("a.json"), record.model_copy(update={"model": model}), n % 2 == 0)
        for n, (record, model) in enumerate(zip(paced, models, strict=True))
    ]
    page_file = tmp_path / "verdicts.html"
    page_file.write_text(report_html.page(report.assemble(rows)), encoding="utf-8")
    page.open(page_file, 1400)
    widths = page.evaluate("[...document.querySelectorAll('.verdicts')].map(one => [one.scrollWidth, one.clientWidth])")
    assert len(widths) == 2
    assert all(inner <= outer for inner, outer in widths)


def test_nothing_is_fetched_and_nothing_goes_wrong(page: Page, page_file: Path) -> None:
    page.requests.clear()
    page.open(page_file, 1400)
    assert page.evaluate("document.title").startswith("Benchmark report: ")
    assert page.requests == [page_file.as_uri()]
    assert page.complaints == []


def test_the_browser_tells_of_what_the_policy_forbids(page: Page, page_file: Path, tmp_path: Path) -> None:
    """The two tests above can fail: a script and a picture that do not belong to the page are refused, and told."""
    foreign = "<script>document.title = 'broken'</script><img src='picture.png' style='color: red'></body>"
    (tmp_path / "foreign.html").write_text(page_file.read_text(encoding="utf-8").replace("</body>", foreign))
    page.open(tmp_path / "foreign.html", 1400)
    told, page.complaints[:] = list(page.complaints), []
    assert page.evaluate("document.title").startswith("Benchmark report: ")
    assert {word for word in ("script", "img", "style") if any(f"{word}-src" in line for line in told)} == {
        "script", "img", "style",
    }  # fmt: skip


def test_a_column_sorts_both_ways_by_the_keyboard(page: Page, page_file: Path) -> None:
    page.open(page_file, 1400)
    assert rows(page) == ["9", "3", "20"]
    assert press(page, "Median") == "ascending"
    assert rows(page) == ["3", "9", "20"]
    assert press(page, "Median") == "descending"
    assert rows(page) == ["20", "9", "3"]


def test_records_without_a_figure_come_last_both_ways(page: Page, page_file: Path) -> None:
    page.open(page_file, 1400)
    for order in ("ascending", "descending"):
        assert press(page, "Missed") == order
        assert rows(page)[0] == "3"


def test_programs_can_read_the_figures(page: Page, page_file: Path) -> None:
    page.open(page_file, 1400)
    figures = json.loads(page.evaluate("document.getElementById('figures').textContent"))
    assert [row["record"]["model"]["name"] for row in figures["records"]] == [SPITEFUL, "fast_stream", "slow_stream"]
    assert page.evaluate("document.querySelector('#record-1 h2').textContent") == f"1\N{NO-BREAK SPACE} {SPITEFUL}"
