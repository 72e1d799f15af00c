"""The folder format `.mlpackage`: a manifest and a data folder.

    Manifest.json                                 items by identifier; one of them is the root model
    Data/com.apple.CoreML/model.mlmodel           the model specification, a protobuf
    Data/com.apple.CoreML/weights/weight.bin      the constants

Source: packages written by coremltools 9.0 (`fileFormatVersion` 1.0.0).
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from mvtool.errors import ManifestError
from mvtool.extras import require

FORMAT_VERSION = "1.0.0"


def model_path(package: Path) -> Path:
    """Find the model specification of a package.

    Raises:
        ManifestError: No readable manifest, another format version, or a path that leaves the package.
    """
    manifest = _manifest(package)
    if manifest.get("fileFormatVersion") != FORMAT_VERSION:
        found = manifest.get("fileFormatVersion")
        raise ManifestError(f"{package}: package format {found!r}, expected {FORMAT_VERSION!r}.")
    items = manifest.get("itemInfoEntries")
    item = items.get(manifest.get("rootModelIdentifier")) if isinstance(items, dict) else None
    path = item.get("path") if isinstance(item, dict) else None
    if not isinstance(path, str) or not _stays_inside(path):
        raise ManifestError(
            f"{package}: Manifest.json names no root model inside the package. Convert the model again."
        )
    return package / "Data" / PurePosixPath(path)


def read_specification(path: Path) -> Any:
    """Parse the model specification, a `Model_pb2.Model`.

    Raises:
        ManifestError: The file is missing or not a protobuf of that kind.
        MissingExtraError: coremltools, which brings the protobuf classes, is not installed.
    """
    model_pb2 = require("coremltools.proto.Model_pb2", "to read Core ML models")
    message = require("google.protobuf.message", "to read Core ML models")
    try:
        return model_pb2.Model.FromString(path.read_bytes())
    except OSError as error:
        raise ManifestError(f"The model specification {path} cannot be read: {error}.") from error
    except message.DecodeError as error:
        raise ManifestError(f"The model specification {path} is damaged: {error}. Convert the model again.") from error


def _manifest(package: Path) -> dict[str, Any]:
    path = package / "Manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(f"{package} is not an .mlpackage: {path} cannot be read: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path} is not JSON: {error}. Convert the model again.") from error
    if not isinstance(manifest, dict):
        raise ManifestError(f"{path} is not a JSON object. Convert the model again.")
    return manifest


def _stays_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\0" not in path
