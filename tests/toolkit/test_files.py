"""Atomic writing, hashes of files and folders, and names that stay inside."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mvtool.errors import ManifestError
from mvtool.files import atomic_path, check_relative, inside, sha256_of, size_of, write_atomic


def test_write_replaces_a_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    write_atomic(target, b"old")
    write_atomic(target, b"new")
    assert target.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def break_off(target: Path) -> None:
    with atomic_path(target) as partial:
        partial.mkdir()
        (partial / "inner").write_bytes(b"new")
        raise RuntimeError("midway")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_failure_leaves_the_old_content(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "folder":
        target.mkdir()
        (target / "inner").write_bytes(b"old")
    else:
        target.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="midway"):
        break_off(target)
    assert (target / "inner" if kind == "folder" else target).read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["target"]


def test_folder_takes_the_place_of_a_full_folder(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").write_bytes(b"1")
    with atomic_path(target) as partial:
        partial.mkdir()
        (partial / "new").write_bytes(b"2")
    assert [entry.name for entry in target.iterdir()] == ["new"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["target"]


def test_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "target"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_hash_of_a_folder_is_that_of_the_sorted_sha256sum_lines(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"one")
    (tmp_path / "a").write_bytes(b"two")
    lines = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in (("a", b"two"), ("b/x", b"one")))
    assert sha256_of(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()
    assert size_of(tmp_path) == 6


def test_hash_of_a_folder_depends_on_names_and_on_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"one")
    first = sha256_of(tmp_path)
    (tmp_path / "f").rename(tmp_path / "g")
    second = sha256_of(tmp_path)
    (tmp_path / "g").write_bytes(b"onf")
    assert len({first, second, sha256_of(tmp_path)}) == 3


@pytest.mark.parametrize("name", ["", "/etc/passwd", "..", "a/../b", "a//b", "./a", "a\\b", "C:/x", "a/.", "a\0b"])
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a relative path"):
        check_relative(name)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    folder = tmp_path / "build"
    folder.mkdir()
    (folder / "a.tflite").symlink_to(outside)
    with pytest.raises(ManifestError, match="link"):
        inside(folder, "a.tflite")
    (folder / "b.tflite").write_bytes(b"")
    assert inside(folder, "b.tflite") == folder / "b.tflite"
