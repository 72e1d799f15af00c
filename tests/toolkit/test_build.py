"""The build manifest: what it refuses, what it chooses, and that it agrees with the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from manifests import artifact_entry, build_manifest
from pydantic import ValidationError

from mvtool.build import MANIFEST_FILE, Build, BuildManifest, artifact_file_name, describe, tool_versions
from mvtool.errors import ManifestError, UsageError
from mvtool.ports import Precision, Runtime


def saved(folder: Path, manifest: BuildManifest) -> Build:
    Build(folder, manifest).save()
    return Build.load(folder)


def test_manifest_survives_writing_and_reading(tmp_path: Path) -> None:
    manifest = build_manifest()
    assert saved(tmp_path, manifest).manifest == manifest
    assert json.loads((tmp_path / MANIFEST_FILE).read_text())["schema"] == "mvtool.build/1"


def test_a_folder_without_manifest_is_no_build(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="not a build folder"):
        Build.load(tmp_path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("surprise",), 1),
        (("schema",), "mvtool.build/2"),
        (("artifacts", 0, "surprise"), 1),
        (("artifacts", 0, "runtime"), "onnx"),
        (("artifacts", 0, "ports", "surprise"), 1),
        (("artifacts", 0, "sha256"), "abc"),
        (("artifacts", 0, "file"), "toy_int8.pte"),
        (("artifacts", 0, "simulation"), "nowhere"),
        (("golden", "bytes"), -1),
    ],
)
def test_unknown_keys_and_inconsistent_values_are_refused(
    tmp_path: Path, path: tuple[str | int, ...], value: object
) -> None:
    document = json.loads(build_manifest().to_json())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(document))
    with pytest.raises(ManifestError, match="not valid"):
        Build.load(tmp_path)


@pytest.mark.parametrize("name", ["../toy.tflite", "/toy.tflite", "a/../../toy.tflite"])
def test_a_manifest_that_points_out_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    document = json.loads(build_manifest().to_json())
    document["artifacts"][0]["file"] = name
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(document))
    with pytest.raises(ManifestError, match="not a relative path inside the build folder"):
        Build.load(tmp_path)


def test_a_link_out_of_the_folder_is_refused_on_load(tmp_path: Path) -> None:
    folder = tmp_path / "build"
    folder.mkdir()
    (tmp_path / "golden").write_bytes(b"")
    (folder / "golden.npz").symlink_to(tmp_path / "golden")
    Build(folder, build_manifest()).save()
    with pytest.raises(ManifestError, match="link"):
        Build.load(folder)


def test_an_artifact_is_listed_once() -> None:
    entry = artifact_entry(Runtime.TFLITE, Precision.FP32)
    with pytest.raises(ValidationError, match="twice"):
        build_manifest(entry, entry)
    with pytest.raises(ValidationError, match=r"tflite fp32 is listed twice"):
        build_manifest(entry, entry.model_copy(update={"file": "other.tflite"}))


def test_default_choice_is_the_first_precision_then_the_first_runtime(tmp_path: Path) -> None:
    build = saved(tmp_path, build_manifest())
    assert build.artifact().file == "toy_fp32.tflite"
    assert build.artifact(precision="int8").file == "toy_int8.tflite"
    assert build.artifact(runtime="coreml").file == "toy_fp32.mlpackage"
    without = saved(
        tmp_path,
        build_manifest(artifact_entry(Runtime.COREML, Precision.FP32), artifact_entry(Runtime.TFLITE, Precision.INT8)),
    )
    assert without.artifact().file == "toy_fp32.mlpackage"


def test_a_choice_that_the_build_lacks_lists_what_it_has(tmp_path: Path) -> None:
    build = saved(tmp_path, build_manifest())
    with pytest.raises(UsageError, match=r"coreml in fp16.*It has: .*tflite int8"):
        build.artifact(Runtime.COREML, Precision.FP16)


def test_hash_check_tells_missing_truncated_and_changed_apart(tmp_path: Path) -> None:
    (tmp_path / "toy_fp32.tflite").write_bytes(b"12345678")
    entry = describe(tmp_path, "toy_fp32.tflite")
    build = Build(tmp_path, build_manifest())
    build.check_hash(entry)
    for content, message in ((b"1234", "is truncated"), (b"123456789", "too long"), (b"1234567x", "has the hash")):
        (tmp_path / "toy_fp32.tflite").write_bytes(content)
        with pytest.raises(ManifestError, match=message):
            build.check_hash(entry)
    (tmp_path / "toy_fp32.tflite").unlink()
    with pytest.raises(ManifestError, match="is missing"):
        build.check_hash(entry)


def test_file_names_follow_the_documented_pattern() -> None:
    names = [artifact_file_name("a0", runtime, Precision.INT8) for runtime in Runtime]
    assert names == ["a0_int8.tflite", "a0_int8.mlpackage", "a0_int8.pte"]


def test_tool_versions_name_mvtool_and_what_is_installed() -> None:
    versions = tool_versions()
    assert {"mvtool", "numpy"} <= set(versions)
