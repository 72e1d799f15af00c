"""A conversion replaces builds and nothing else, and says before any work that it will not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from manifests import build_manifest

from mvtool.build import Build
from mvtool.converters import pipeline
from mvtool.converters.destination import check_destination, destination_of, work_folder
from mvtool.errors import UsageError


def make_build(folder: Path) -> Path:
    """The files of a build, empty but for the manifest, and what `mvtool demo` leaves beside them."""
    (folder / "reference" / "program").mkdir(parents=True)
    build = Build(folder, build_manifest())
    for entry in build.manifest.artifacts:
        path = folder / entry.file
        path.mkdir() if path.suffix == ".mlpackage" else path.touch()
    for name in ("golden.npz", "toy_fp32_tflite.png", "toy_int8_coreml.png", "toy_fp32_executorch.jsonl", ".DS_Store"):
        (folder / name).touch()
    build.save()
    return folder


def older(folder: Path) -> None:
    """A manifest of another version of mvtool, which this one would not accept."""
    document = json.loads((folder / "manifest.json").read_text())
    del document["golden"]
    (folder / "manifest.json").write_text(json.dumps({**document, "surprise": 1}))


def others(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"name": "Web app", "icons": [], "artifacts": 3}')


def truncated(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])


def test_a_build_an_empty_folder_and_a_free_name_are_taken(tmp_path: Path) -> None:
    check_destination(make_build(tmp_path / "build"))
    (tmp_path / "empty").mkdir()
    check_destination(tmp_path / "empty")
    check_destination(tmp_path / "not" / "yet" / "there")
    older(tmp_path / "build")
    check_destination(tmp_path / "build")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["build", "empty"], "the probe leaves nothing"


@pytest.mark.parametrize("name", ["notes.txt", "toy_fp32.png", "toy_fp16.tflite", "src"])
def test_what_the_manifest_does_not_name_is_not_replaced(name: str, tmp_path: Path) -> None:
    (make_build(tmp_path / "build") / name).mkdir()
    with pytest.raises(UsageError, match=f"does not name: {name}"):
        check_destination(tmp_path / "build")


@pytest.mark.parametrize("change", [others, truncated], ids=lambda change: change.__name__)
def test_a_manifest_of_something_else_is_no_licence(change: Callable[[Path], None], tmp_path: Path) -> None:
    change(make_build(tmp_path / "build"))
    with pytest.raises(UsageError, match="is not a build folder"):
        check_destination(tmp_path / "build")


def test_the_place_of_an_incomplete_build_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "build.partial" / "diary").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"build\.partial exists and is not a build folder"):
        check_destination(tmp_path / "build")


def test_a_file_is_not_replaced_and_cannot_hold_a_build(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"dear")
    with pytest.raises(UsageError, match="but a file"):
        check_destination(tmp_path / "film.mp4")
    with pytest.raises(UsageError, match=r"film\.mp4/below.*Not a directory"):
        check_destination(tmp_path / "film.mp4" / "below")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_closed_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(UsageError, match=r"closed: Permission denied"):
        check_destination(tmp_path / "closed" / "build")


def test_the_kernels_own_folder_is_named() -> None:
    """Closed to root as well."""
    if not Path("/proc/self").is_dir():
        pytest.skip("there is no /proc")
    with pytest.raises(UsageError, match=r"cannot be written to /proc/.*: /proc"):
        check_destination(Path("/proc/build"))


def test_a_destination_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert destination_of(None, "toy") == Path("build/toy")
    assert destination_of("out", "toy") == Path("out")
    assert destination_of(".", "toy") == tmp_path
    with pytest.raises(UsageError, match="cannot be a build folder"):
        destination_of("/", "toy")


def test_what_a_killed_conversion_left_is_removed_and_one_at_work_is_not(tmp_path: Path) -> None:
    program = f"""
import sys, time
from pathlib import Path
from mvtool.converters.destination import work_folder
with work_folder(Path({str(tmp_path / "build")!r})) as work:
    (work / "part").touch()
    print(work, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        (tmp_path / ".build.work-unknown").mkdir()
        with work_folder(tmp_path / "build") as own:
            assert own.is_dir()
            assert (left / "part").is_file()
        process.kill()
        process.wait()
    with work_folder(tmp_path / "build") as own:
        assert {path.name for path in tmp_path.iterdir()} == {own.name, ".build.work-unknown"}
    assert [path.name for path in tmp_path.iterdir()] == [".build.work-unknown"]


def test_the_work_lies_where_a_link_points(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "build").symlink_to(tmp_path / "disk" / "build")
    with work_folder(tmp_path / "build") as work:
        assert work.parent == tmp_path / "disk"


def test_convert_refuses_before_it_loads_the_model(tmp_path: Path) -> None:
    (make_build(tmp_path / "out") / "holiday.jpg").write_bytes(b"dear")
    with pytest.raises(UsageError, match=r"holiday\.jpg"):
        pipeline.convert("no.such:model", targets=["tflite"], out=tmp_path / "out")
    assert (tmp_path / "out" / "holiday.jpg").read_bytes() == b"dear"


def test_convert_refuses_its_default_place_before_it_captures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rewrite_models import Fifo

    others(make_build(tmp_path / "build" / "Fifo"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is not a build folder"):
        pipeline.convert(Fifo(), targets=["tflite"])
