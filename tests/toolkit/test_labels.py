from __future__ import annotations

from pathlib import Path

import pytest

from mvtool import labels
from mvtool.errors import UsageError


@pytest.mark.parametrize(("name", "count"), [("kinetics400", 400), ("kinetics600", 600)])
def test_bundled_lists(name: str, count: int) -> None:
    names = labels.load(name)
    assert len(names) == len(set(names)) == count
    assert names[0] == "abseiling"
    assert names[-1] in {"zumba"}
    assert all(n == n.strip() and n for n in names)


def test_own_list(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("walking\n sitting \nStraße\n\n", encoding="utf-8")
    assert labels.load(str(tmp_path / "own.txt")) == ("walking", "sitting", "Straße")


def test_unknown_list() -> None:
    with pytest.raises(UsageError, match=r"no label list 'kinetics700'\. Known lists: kinetics400, kinetics600"):
        labels.load("kinetics700")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\x00"])
def test_files_that_are_no_list(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.txt").write_bytes(content)
    with pytest.raises(UsageError, match=r"own\.txt"):
        labels.load(str(tmp_path / "own.txt"))


def test_the_number_of_classes_must_fit() -> None:
    assert labels.for_classes(None, 2) == ("class 0", "class 1")
    assert len(labels.for_classes("kinetics600", 600)) == 600
    with pytest.raises(UsageError, match="holds 400 labels, and the model gives 600"):
        labels.for_classes("kinetics400", 600)
