"""Writing a package folder: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mvtool.converters.coreml_package import write_package


class Specification:
    """What the writer needs of a protobuf message."""

    def SerializeToString(self, deterministic: bool) -> bytes:
        assert deterministic
        return b"new"


def files(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def test_a_model_without_weights_has_one_item(tmp_path: Path) -> None:
    write_package(Specification(), None, tmp_path / "deep" / "m.mlpackage")
    found = files(tmp_path / "deep" / "m.mlpackage")
    assert found.pop("Manifest.json").count(b'"path"') == 1
    assert found == {"Data/com.apple.CoreML/model.mlmodel": b"new"}


def test_a_failed_move_brings_the_older_package_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.mlpackage"
    path.mkdir()
    (path / "kept").write_bytes(b"old")
    rename = os.rename

    def fail_on_new(source: Path, target: Path) -> None:
        if Path(source).name == "new":
            raise OSError("disk full")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_on_new)
    with pytest.raises(OSError, match="disk full"):
        write_package(Specification(), None, path)
    assert files(tmp_path) == {"m.mlpackage/kept": b"old"}
