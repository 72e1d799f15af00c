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


def replace_folder(target: Path) -> None:
    with atomic_path(target) as partial:
        partial.mkdir()
        (partial / "inner").write_bytes(b"new")


def fail_at_move(monkeypatch: pytest.MonkeyPatch, failures: dict[int, BaseException], late: bool = False) -> None:
    """Let the n-th move of a test, from 1, raise; `late` after it was done, as an interrupt may come."""
    moves = iter(range(1, 100))
    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        number = next(moves)
        if number in failures and not late:
            raise failures[number]
        moved = original(self, target)
        if number in failures:
            raise failures[number]
        return moved

    monkeypatch.setattr(Path, "replace", replace)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), OSError(5, "I/O error")], ids=repr)
@pytest.mark.parametrize(("number", "late"), [(1, False), (1, True), (2, False)])
@pytest.mark.parametrize("name", ["target", "previous"])
def test_an_interrupt_between_the_moves_keeps_the_old_folder(
    name: str, number: int, late: bool, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / name
    target.mkdir()
    (target / "inner").write_bytes(b"old")
    fail_at_move(monkeypatch, {number: error}, late)
    with pytest.raises(type(error)):
        replace_folder(target)
    assert (target / "inner").read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_an_interrupt_after_the_moves_keeps_the_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "target").mkdir()
    fail_at_move(monkeypatch, {2: KeyboardInterrupt()}, late=True)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(tmp_path / "target")
    assert (tmp_path / "target" / "inner").read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize("second", [OSError(13, "Permission denied"), KeyboardInterrupt()], ids=repr)
def test_what_cannot_be_moved_back_is_not_deleted(
    second: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "inner").write_bytes(b"old")
    fail_at_move(monkeypatch, {2: KeyboardInterrupt(), 3: second})
    with pytest.raises(type(second)) as caught:
        replace_folder(target)
    (kept,) = tmp_path.glob(".target.partial-*/target.previous")
    assert (kept / "inner").read_bytes() == b"old"
    if isinstance(second, OSError):
        assert "move it back" in str(caught.value)
        assert str(kept) in str(caught.value)


def test_a_folder_takes_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    replace_folder(tmp_path / "target")
    assert (tmp_path / "target" / "inner").read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
def test_a_link_stays_and_what_it_points_at_is_replaced(tmp_path: Path, kind: str) -> None:
    real, link = tmp_path / "disk" / "real", tmp_path / "link"
    real.parent.mkdir()
    link.symlink_to(real)
    if kind == "folder":
        real.mkdir()
        (real / "old").touch()
        replace_folder(link)
        assert [entry.name for entry in real.iterdir()] == ["inner"]
    else:
        if kind == "file":
            real.write_bytes(b"old")
        write_atomic(link, b"new")
        assert real.read_bytes() == b"new"
    assert link.is_symlink()
    assert [entry.name for entry in real.parent.iterdir()] == ["real"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_full_disk_is_told_with_the_name_of_the_target(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=r"No space left on device.*target"),
        atomic_path(tmp_path / "target"),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(b"x")


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
