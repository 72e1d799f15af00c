"""Drawings of matplotlib as inline SVG: small, without styles of their own, in the colours of the page.

matplotlib writes a document with style attributes and fixed colours. A page under a strict content security policy
takes no style attributes, and a page that follows the reader's colour scheme takes no fixed colours. So every
declaration becomes a presentation attribute, and every colour of `PALETTE` a variable of the style sheet; text stays
text, in the fonts of the page.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

from mvtool.extras import require
from mvtool.plotting import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK: Final = "#1a1b1c"
MUTED: Final = "#6a6b6c"
GRID: Final = "#d9dadb"
PANEL: Final = "#fdfdfc"
ALARM: Final = "#b00021"
PALETTE: Final = {
    INK: "var(--ink)",
    "#000000": "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--rule)",
    PANEL: "var(--page)",
    ALARM: "var(--alarm)",
    **{colour.lower(): f"var(--c{index})" for index, colour in enumerate(COLOURS[:7])},
}
"""Colour in a drawing to the variable of `data/bench_report.css` that replaces it."""

_SETTINGS: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mvtool",
    "path.simplify": False,
    # A `$` in the name of a model begins no formula.
    "text.parse_math": False,
    "font.size": 11.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.unicode_minus": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 10.0,
    "lines.linewidth": 1.4,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 10.0,
    "ytick.labelsize": 10.0,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
}
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_POINT = re.compile(r"M(\S+ [^ML]+)L\1(?=M|$)")
"""A line from a place to itself, which round caps make a point."""
_LONG_PATH = 2000
_KEPT = ("x", "y", "width", "height", "d", "transform", "cx", "cy", "r", "x1", "x2", "y1", "y2")
_DROPPED = ("font-family", "font-style", "font-variant", "font-stretch", "line-height")


def inline(draw: Callable[[], Figure], prefix: str, label: str) -> str:
    """An `<svg>` element to stand in a page.

    Args:
        draw: Makes the figure; its colours are those of `PALETTE`.
        prefix: Letters and digits that no other drawing of the page has; ids begin with it.
        label: What the drawing shows, for readers who do not see it.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "to draw the plots of a report")
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        # The browser draws the text, with its own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        draw().savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    # The document was written above; it holds no entities from outside.
    source = ElementTree.fromstring(text.getvalue())
    return ElementTree.tostring(_page_element(source, prefix, label), encoding="unicode")


def _page_element(source: ElementTree.Element, prefix: str, label: str) -> ElementTree.Element:
    _, _, width, height = source.attrib["viewBox"].split()
    root = ElementTree.Element("svg", {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": label})
    root.attrib.update(width=width, height=height)
    wanted = set(re.findall(r'(?:"|\()#(\w+)', ElementTree.tostring(source, encoding="unicode")))
    for child in source:
        _copy(child, root, prefix, wanted)
    return root


def _copy(source: ElementTree.Element, parent: ElementTree.Element, prefix: str, wanted: set[str]) -> None:
    """Append `source` to `parent` in the form of the page; groups that say nothing are left out."""
    tag = _local(source.tag)
    if tag in ("metadata", "style"):
        return
    attributes = _attributes(source, prefix, wanted)
    is_backdrop = tag == "path" and attributes.get("fill") == "none" and "stroke" not in attributes
    if is_backdrop and "id" not in attributes:
        return
    if (tag == "g" and not attributes) or (tag == "defs" and not len(source)):
        made = parent
    else:
        made = ElementTree.SubElement(parent, tag, attributes)
        made.text = source.text if tag in ("text", "tspan") else None
    for child in source:
        _copy(child, made, prefix, wanted)


def _attributes(source: ElementTree.Element, prefix: str, wanted: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for full, value in source.attrib.items():
        name = _local(full)
        if name == "style":
            found.update(_declarations(value))
        elif name == "id" and value in wanted:
            found["id"] = prefix + value
        elif name == "href":
            found["href"] = f"#{prefix}{value[1:]}"
        elif name == "clip-path":
            found["clip-path"] = value.replace("#", f"#{prefix}")
        elif name in _KEPT:
            found[name] = _shorter(value)
    if found.get("transform", "").startswith("rotate(-0 "):
        del found["transform"]
    return found


def _declarations(style: str) -> dict[str, str]:
    """The declarations of a style attribute as presentation attributes, colours as variables."""
    found = {}
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name and name not in _DROPPED:
            found[name] = PALETTE.get(value.lower(), _shorter(value))
    return found


def _shorter(value: str) -> str:
    """Numbers rounded to a hundredth of a pixel, in long paths to a tenth, and no more blanks than needed."""
    digits = 1 if len(value) > _LONG_PATH else 2
    rounded = _NUMBER.sub(lambda match: f"{float(match[0]):.{digits}f}".rstrip("0").rstrip("."), value)
    tight = re.sub(r" ?([MLCQz]) ?", r"\1", " ".join(rounded.split()))
    return _POINT.sub(r"M\1h0", tight)


def _local(name: str) -> str:
    """A name without its namespace; a page needs none."""
    return name.rpartition("}")[2]
