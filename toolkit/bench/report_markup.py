"""Elements of a page from which no text can break out: whatever is not an element is escaped."""

from __future__ import annotations

import html
import json
import re
from typing import Any

from mvtool.bench.markdown_text import clean

_VOID = frozenset({"br", "meta"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def element(tag: str, /, *content: str, **attributes: str | None) -> Html:
    """One element.

    Args:
        tag: Its name.
        content: Elements, and texts, which are escaped.
        attributes: A trailing underscore is dropped (`class_`), others become hyphens; None leaves the attribute out.

    Example:
        >>> element("td", "a < b", class_="wide", data_value="1")
        '<td class="wide" data-value="1">a &lt; b</td>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(clean(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{given}>")
    return Html(f"<{tag}{given}>{joined(*content)}</{tag}>")


def joined(*content: str) -> Html:
    """Elements and texts one after the other; texts are escaped."""
    return Html("".join(part if isinstance(part, Html) else html.escape(clean(part)) for part in content))


def breakable(text: str) -> Html:
    """Text that may go on in the next line after the signs that join words in names."""
    parts = re.split(r"(?<=[_/:])(?=\w)|(?<=[.,-])(?=[^\W\d])", text)
    return Html("<wbr>".join(joined(part) for part in parts))


def json_block(document: Any, identifier: str) -> Html:
    """JSON that a program can read from the page; no text in it can end the block or be taken for markup."""
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Html(f'<script type="application/json" id="{identifier}">{text}</script>')
