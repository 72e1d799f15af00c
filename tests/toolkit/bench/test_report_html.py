from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import bench_records
import pytest

from mvtool.bench import comparison_text, report, report_html
from mvtool.bench.markdown_text import clean
from mvtool.bench.record import Moment, Reading, Record
from mvtool.bench.report_markup import breakable, element, json_block

EVIL = "</script><script src=http://evil.example/x.js></script><img src=x onerror=alert(1)>\"'&\u202e"
VOID = {"br", "meta", "wbr"}


class Outline(HTMLParser):
    """Elements, attributes and texts of a page; refuses elements that do not close as they opened."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def evil() -> Record:
    record = bench_records.record(device=bench_records.PHONE, model=EVIL, invokes=20, launches=2, seed=1)
    return record.model_copy(
        update={
            "device": record.device.model_copy(update={"name": EVIL, "serial": EVIL, "build": EVIL}),
            "artifact": record.artifact.model_copy(update={"file": EVIL}),
            "engine": record.engine.model_copy(update={"delegate": EVIL, "library": EVIL}),
            "notes": (EVIL,),
            "tools": {EVIL: EVIL},
            "extra": {EVIL: EVIL, "nested": [EVIL]},
        }
    )


def page_of(*records: Record, baseline: bool = False) -> str:
    rows = [(Path(f"{number}.json"), record, baseline and number == 0) for number, record in enumerate(records)]
    return report_html.page(report.assemble(rows))


@pytest.fixture(scope="module")
def spiteful() -> Outline:
    return Outline(page_of(evil()))


@pytest.fixture(scope="module")
def pair() -> str:
    records = [bench_records.record(base_ms=10.0 + 2 * n, invokes=20, seed=n, artifact=str(n)) for n in range(2)]
    return page_of(*records, baseline=True)


def test_every_element_closes(spiteful: Outline) -> None:
    assert spiteful.open == []


def test_no_text_of_a_record_becomes_markup(spiteful: Outline) -> None:
    assert [attributes.get("type") for attributes in spiteful.all("script")] == ["application/json", None]
    assert spiteful.all("img") == []
    assert not [name for _, attributes in spiteful.tags for name in attributes if name.startswith("on")]
    shown = clean(EVIL)
    assert "".join(spiteful.texts["h2"]).count(shown) == 1
    assert sum(text.endswith(shown) for text in spiteful.texts["li"]) == 1


def test_nothing_is_asked_of_the_network(spiteful: Outline) -> None:
    addresses = {
        value
        for _, attributes in spiteful.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster")
    }
    assert addresses
    assert all(address is not None and address.startswith("#") for address in addresses)
    for sheet in spiteful.texts["style"]:
        assert not re.search(r"url\(|@import|https?:", sheet)
    assert not {"link", "iframe", "object", "embed", "base", "form", "image", "foreignobject"} & {
        n for n, _ in spiteful.tags
    }
    assert not [attributes for _, attributes in spiteful.tags if "style" in attributes]


def test_links_lead_somewhere(pair: str) -> None:
    outline = Outline(pair)
    names = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(names) == len(set(names))
    targets = {a["href"] for tag, a in outline.tags if tag in ("a", "use")}
    assert targets <= {f"#{name}" for name in names}


def test_the_policy_allows_only_what_the_page_holds(spiteful: Outline) -> None:
    (policy,) = [a["content"] for a in spiteful.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    (style,), script = spiteful.texts["style"], spiteful.texts["script"][-1]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert next(iter(spiteful.all("meta"))) == {"charset": "utf-8"}


def test_the_figures_are_there_for_programs(pair: str) -> None:
    block = json.loads(Outline(pair).texts["script"][0])
    assert block["schema"] == "mvtool.report/1"
    assert [row["summary"]["invokes"] for row in block["records"]] == [120, 120]
    (compared,) = block["comparison"]["comparisons"]
    assert block["comparison"]["schema"] == "mvtool.comparison/1"
    assert compared["metrics"]["latency_p50"]["verdict"] == "slower"
    assert block["refusals"] == []


def test_the_page_says_what_was_compared(pair: str) -> None:
    texts = Outline(pair).texts
    assert "Worse: " in texts["strong"]
    assert "slower" in texts["td"]
    assert texts["span"].count("BASELINE") == 1
    assert {"All records", "Verdicts", "Across records"} <= set(texts["h2"])


def test_a_verdict_shows_what_compare_shows(pair: str) -> None:
    (table,) = re.findall(r'<div class="scroll verdicts".*?</table>', pair, re.DOTALL)
    heads = [text for text in Outline(table).texts["th"] if text in comparison_text.HEADS]
    assert tuple(heads) == comparison_text.HEADS
    (median,) = [row for row in table.split("<tr>") if "latency, median" in row]
    assert re.search(r">1\.\d{3}<", median)
    assert '<td class="worse">slower</td>' in median
    assert "launches on their own" in pair


def test_what_was_not_compared_is_on_the_page() -> None:
    text = page_of(
        *(bench_records.record(artifact=name, threads=n, seed=n, invokes=20) for n, name in ((1, "a"), (2, "b"))),
        bench_records.record(artifact="c", seed=3, model="x3d_s", invokes=20),
        baseline=True,
    )
    assert "threads: base 1, new 2" in text
    assert "Not compared, there is no base record: x3d_s" in text


def test_one_launch_has_no_interval() -> None:
    outline = Outline(page_of(bench_records.record(launches=1, invokes=200), bench_records.record(seed=2, invokes=200)))
    small = outline.texts["small"]
    assert "95 %: – (one launch)" in small
    assert "– (one launch)" in small
    assert len([text for text in small if re.search(r"\d to \d", text)]) == 2  # of the other record: table and section
    assert "One launch has no interval: " in " ".join(outline.texts["figcaption"])


def test_the_caption_of_latencies_names_what_is_drawn() -> None:
    several = " ".join(
        Outline(page_of(*(bench_records.record(seed=n, invokes=20) for n in (1, 2)))).texts["figcaption"]
    )
    assert "The grey bar is its 95 % interval." in several
    assert "Orange squares are fp32." in several
    assert not re.search(r"circles|diamonds|One launch", several)
    single = " ".join(
        Outline(page_of(*(bench_records.record(seed=n, invokes=20, launches=1) for n in (1, 2)))).texts["figcaption"]
    )
    assert "grey bar" not in single


def caption(record: Record) -> str:
    return " ".join(Outline(page_of(record)).texts["figcaption"])


def test_calls_beyond_the_axis_are_counted() -> None:
    shown = bench_records.record(launches=1, invokes=600, noise=bench_records.SILENT)
    launch = shown.launches[0]
    slow = (*launch.samples.inference_ns[:-2], 500_000_000, 900_000_000)
    samples = launch.samples.model_copy(update={"inference_ns": slow})
    hidden = shown.model_copy(update={"launches": (launch.model_copy(update={"samples": samples}),)})
    assert "2 calls lie beyond the right end, the slowest at 900.0 ms." in caption(hidden)
    assert "beyond the right end" not in caption(shown)


def test_launches_without_a_strip_are_told_of() -> None:
    assert "each of the first 12 of 14 launches" in caption(bench_records.record(launches=14, invokes=5))
    assert "below, each launch" in caption(bench_records.record(launches=12, invokes=5))


@pytest.mark.parametrize(
    ("base_ms", "fps", "told"),
    [
        (5.0, 30.0, ()),
        (31.0, 30.0, ("The dashed line is the period, 33.33 ms.",)),
        (40.0, 30.0, ("The dashed line is the period, 33.33 ms.", "Red points missed their deadline.")),
        (40.0, None, ()),
    ],
)
def test_the_timeline_speaks_of_what_it_draws(base_ms: float, fps: float | None, told: tuple[str, ...]) -> None:
    said = caption(bench_records.record(base_ms=base_ms, fps=fps, invokes=20, noise=bench_records.SILENT))
    for words in ("The dashed line is the period, 33.33 ms.", "Red points missed their deadline."):
        assert (words in said) is (words in told)
    assert "throttled" not in said


@pytest.mark.parametrize(("times", "drawn"), [((0.0, 60.0), True), ((60.0,), False)])
def test_throttling_is_told_where_it_has_a_length(times: tuple[float, ...], drawn: bool) -> None:
    readings = tuple(Reading(moment=Moment.DURING, time_s=time_s, thermal_status=2) for time_s in times)
    said = caption(bench_records.record(invokes=5, launches=1, readings=readings))
    assert ("throttled where the ground is coloured" in said) is drawn


def test_a_record_whose_calls_took_no_time_has_a_page() -> None:
    idle = bench_records.record(base_ms=0.0, noise=bench_records.SILENT, invokes=20)
    assert Outline(page_of(idle, bench_records.record(seed=1, invokes=20))).open == []


def test_the_table_has_a_row_per_record_and_a_cell_per_column(pair: str) -> None:
    (table,) = re.findall(r'<table id="records">.*?</table>', pair, re.DOTALL)
    outline = Outline(table)
    heads = [a for a in outline.all("th") if a.get("scope") == "col"]
    assert len(heads) == 15
    assert len(outline.all("td")) == 2 * 14
    assert [a["data-value"] for a in outline.all("th") if a.get("scope") == "row"] == ["movinet_a0_stream"] * 2


def test_a_meaningless_record_says_so_everywhere() -> None:
    emulated = bench_records.LOOPBACK.model_copy(update={"emulated": True})
    text = page_of(bench_records.record(device=emulated, invokes=20, launches=2))
    outline = Outline(text)
    assert outline.texts["span"].count("LOOPBACK") == 3  # at the top, in its row, and in its section
    assert "Meaningless." in outline.texts["strong"]
    assert "Stable." not in outline.texts["strong"]
    assert outline.texts["text"].count("LOOPBACK EMULATED") == 4  # on both timelines, the distribution and the tail
    assert "Memory." not in outline.texts["strong"]


def test_no_number_is_invented_for_what_a_device_does_not_tell() -> None:
    silent = bench_records.record(invokes=20, launches=1)
    outline = Outline(page_of(silent))
    captions = " ".join(outline.texts["figcaption"])
    assert "The device told no temperatures. It told no clocks." in captions
    assert "Roofline" not in outline.texts["h2"]
    assert "not paced" in outline.texts["td"]


def test_a_long_run_stays_small() -> None:
    text = page_of(bench_records.record(launches=1, invokes=60_000, base_ms=1.0, profile="sustained"))
    assert len(text.encode()) < 400_000
    assert "the line is their median" in text


def test_elements_escape_what_is_no_element() -> None:
    inner = element("b", "1 < 2")
    assert (
        element("p", "a & b ", inner, class_='x"y', title=None) == '<p class="x&quot;y">a &amp; b <b>1 &lt; 2</b></p>'
    )
    assert breakable("a_b <c/d>") == "a_<wbr>b &lt;c/<wbr>d&gt;"
    assert breakable("lib.so 2.3.0") == "lib.<wbr>so 2.3.0"


def test_a_json_block_cannot_be_ended_from_within() -> None:
    block = json_block({"a": EVIL, "b": "<!--"}, "x")
    inner = block.removeprefix('<script type="application/json" id="x">').removesuffix("</script>")
    assert "<" not in inner
    assert json.loads(inner) == {"a": EVIL, "b": "<!--"}
