"""Foreign words in GitHub flavoured markdown: names of files, models and phones, and what a record notes of itself.

Nothing in them may become markup, HTML, a link, or a call of people (`@name`) or issues (`#3`, `GH-3`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

LONGEST: Final = 65_536
"""Characters of a comment that GitHub takes; its own message says so: body is too long (maximum is 65536 characters)."""
_HIDDEN: Final = ("Zl", "Zp")
_MARKS: Final = re.compile(r"([\\`*_{}\[\]|~])")
_CALLS: Final = re.compile(r"(@|#|GH-|:(?=//)|:(?=[\w+-]+:)|www(?=\.))", re.IGNORECASE)
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&dollar;"}
_LEADING: Final = re.compile(r"^(\s*\d*)([-+=.)])(?=[-=\s]|$)")


def clean(text: str) -> str:
    """One line of text in which nothing is hidden: control and formatting characters show as a replacement sign.

    A name with a right-to-left override would else be read as another name.

    Example:
        >>> clean("a0\\u202estream\\n")
        'a0\\ufffdstream\\ufffd'
    """
    return "".join("\N{REPLACEMENT CHARACTER}" if _hidden(char) else char for char in text)


def _hidden(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] == "C" or category in _HIDDEN


def prose(text: str) -> str:
    """Text without markup, HTML, formulas, links and calls, wherever in a line it stands.

    Example:
        >>> prose("a_b <i> $x$"), prose("- a")
        ('a\\\\_b &lt;i&gt; &dollar;x&dollar;', '\\\\- a')
    """
    escaped = "".join(_ENTITIES.get(char, char) for char in clean(text))
    # What begins a list or underlines a heading does so at the begin of a line only.
    marked = _LEADING.sub(r"\1\\\2", _MARKS.sub(r"\\\1", escaped), count=1)
    # A word joiner after the sign ends what GitHub takes for a call or a link, and is not seen.
    return _CALLS.sub("\\1\N{WORD JOINER}", marked)


def row(cells: Sequence[str]) -> str:
    """A row of a table, of cells that are markdown already.

    Example:
        >>> row(["a", "b"])
        '| a | b |'
    """
    return f"| {' | '.join(cells)} |"
