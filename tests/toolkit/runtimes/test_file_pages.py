"""Pages of a mapped file are given back, and what is read afterwards is what the file holds."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import heavy_model
import numpy as np
import pytest

from mvtool.bench.mappings import resident_kb
from mvtool.runtimes import file_pages, open_file

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone tells what is resident")
SIZE = 400 << 10


def held_kb(path: Path) -> int:
    return resident_kb(Path("/proc/self/smaps").read_text()).get(path.name, 0)


@pytest.mark.parametrize("name", ["plain.bin", "with blank.bin", "line\nbreak.bin", "ü.bin"])
def test_pages_go_and_come_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[: SIZE : mmap.PAGESIZE]) == 0
        assert file_pages.release(path) == SIZE
        if "\n" not in name:
            assert held_kb(path) == 0
        assert mapped[:] == path.read_bytes()


def test_a_link_is_followed(tmp_path: Path) -> None:
    path, link = tmp_path / "file.bin", tmp_path / "link.bin"
    path.write_bytes(bytes(SIZE))
    link.symlink_to(path)
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ):
        assert file_pages.release(link) == SIZE


def test_what_was_written_to_a_private_mapping_stays(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(bytes(SIZE))
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[7] = 9
        assert file_pages.release(path) == 0
        assert mapped[7] == 9


def test_a_file_that_is_not_mapped_and_other_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(bytes(SIZE))
    assert file_pages.release(path) == 0
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ):
        monkeypatch.setattr(sys, "platform", "darwin")
        assert file_pages.release(path) == 0


def test_a_session_holds_none_of_its_file_after_loading(tmp_path: Path) -> None:
    path = heavy_model.write(tmp_path / "heavy.tflite")
    session = open_file(path)
    assert held_kb(path) == 0
    given = np.random.default_rng(3).normal(size=(1, heavy_model.WIDTH)).astype(np.float32)
    (answer,) = session.step(given).values()
    np.testing.assert_allclose(answer, given @ heavy_model.WEIGHTS.T, rtol=1e-4, atol=1e-4)
