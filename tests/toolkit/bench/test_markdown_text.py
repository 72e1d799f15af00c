from __future__ import annotations

import re

import pytest

from mvtool.bench.markdown_text import clean, prose, row

JOINER = "\N{WORD JOINER}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b, 10.00 ms", "a b, 10.00 ms"),
        ("-1.5 pp", "-1.5 pp"),
        ("<img src=x> & $a$", "&lt;img src=x&gt; &amp; &dollar;a&dollar;"),
        ("[a](b) *x* `y` ~z~ | {q} \\", r"\[a\](b) \*x\* \`y\` \~z\~ \| \{q\} \\"),
        ("https://evil.example", f"https:{JOINER}//evil.example"),
        ("www.evil.example", f"www{JOINER}.evil.example"),
        ("WWW.evil.example", f"WWW{JOINER}.evil.example"),
        ("GH-3 and gh-4", f"GH-{JOINER}3 and gh-{JOINER}4"),
        ("o/r#3", f"o/r#{JOINER}3"),
        ("@all a@b.example", f"@{JOINER}all a@{JOINER}b.example"),
        (":tada:", f":{JOINER}tada:"),
        ("a\nb", "a\ufffdb"),
        ("- a", r"\- a"),
        ("1. a", r"1\. a"),
        ("2) a", r"2\) a"),
        ("---", r"\---"),
        ("===", r"\==="),
        ("# a", f"#{JOINER} a"),
    ],
)
def test_prose_is_only_text(text: str, shown: str) -> None:
    assert prose(text) == shown


@pytest.mark.parametrize(
    "hidden", ["\u202e", "\u2066", "\u200b", "\u2060", "\u2028", "\x00", "\x1b", "\t", "\ud800", "\ufeff"]
)
def test_what_cannot_be_seen_is_shown(hidden: str) -> None:
    assert clean(f"a{hidden}b") == "a\ufffdb"
    assert prose(f"@{hidden}b") == f"@{JOINER}\ufffdb"


def test_a_cell_cannot_end_its_column() -> None:
    assert len(re.findall(r"(?<!\\)\|", row([prose("a|b"), prose("c")]))) == 3
