from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from mvtool.bench.plots import canvas, dots, place
from mvtool.bench.report_svg import ALARM, INK, MUTED, inline
from mvtool.plotting import COLOURS

HOSTILE = "</text><script>alert(1)</script> $\\frac{1}{2}$ & \u65e5\u672c \N{GRINNING FACE}"


def drawing() -> Figure:
    import numpy as np

    figure = canvas(300, 200)
    axes = place(figure, 40, 10, 10, 160)
    axes.plot([0, 1, 2], [3, 1, 2], color=COLOURS[1], marker="o", label=HOSTILE)
    axes.fill_between([0, 1], [1, 2], color=COLOURS[0], alpha=0.3)
    dots(axes, np.array([0.5, 1.5]), np.array([2.0, 2.5]), COLOURS[2])
    axes.set_xlabel(HOSTILE)
    axes.legend()
    return figure


@pytest.fixture(scope="module")
def svg() -> str:
    return inline(drawing, "p1", 'label "<')


def test_it_is_well_formed_and_has_its_size(svg: str) -> None:
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert root.attrib == {
        "viewBox": "0 0 300 200", "width": "300", "height": "200", "role": "img", "aria-label": 'label "<',
    }  # fmt: skip


def test_it_holds_no_style_and_no_address(svg: str) -> None:
    assert not re.search(r"<style|style=|font-family|xmlns|http|url\((?!#)", svg)
    assert set(re.findall(r'href="([^"]*)', svg)) <= {f"#{name}" for name in re.findall(r' id="([^"]*)', svg)}


def test_colours_are_variables_of_the_page(svg: str) -> None:
    assert {"var(--c0)", "var(--c1)", "var(--c2)", "var(--muted)"} <= set(re.findall(r"var\(--\w+\)", svg))
    assert not re.search(r"#[0-9a-fA-F]{6}", svg)
    assert len({INK, MUTED, ALARM, *COLOURS}) == 3 + len(COLOURS)


def test_ids_are_those_of_this_drawing(svg: str) -> None:
    names = re.findall(r' id="([^"]*)', svg)
    assert names
    assert all(name.startswith("p1") for name in names)
    assert set(re.findall(r"url\(#(\w+)\)", svg)) <= set(names)


def test_text_stays_text_whatever_it_says(svg: str) -> None:
    texts = [text.text for text in ElementTree.fromstring(svg).iter("text")]
    assert texts.count(HOSTILE) == 2


def test_the_same_drawing_is_the_same_text(svg: str) -> None:
    assert inline(drawing, "p1", 'label "<') == svg


def test_points_are_one_path(svg: str) -> None:
    (path,) = [p for p in ElementTree.fromstring(svg).iter("path") if p.get("stroke") == "var(--c2)"]
    assert re.fullmatch(r"(M[\d.]+ [\d.]+h0){2}", path.attrib["d"])
    assert path.get("stroke-linecap") == "round"
