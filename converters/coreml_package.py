"""Writing an `.mlpackage` whose bytes depend on the model alone.

A package is a folder: `Manifest.json` names its items, `Data/com.apple.CoreML/` holds the model
specification and the weight blob (`modelpackage/src/ModelPackage.cpp` of apple/coremltools). The
writer in coremltools draws random identifiers and serialises maps in hash order.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from pathlib import Path

from mvtool.converters.coreml_tools import Specification

AUTHOR = "com.apple.CoreML"
MODEL = f"{AUTHOR}/model.mlmodel"
WEIGHTS = f"{AUTHOR}/weights"


def write_package(specification: Specification, weights: Path | None, path: Path) -> None:
    """Write a package beside `path`, then move it into place; an older one is replaced.

    Args:
        specification: The model.
        weights: Folder with `weight.bin`, None for a model whose constants are all in the specification.
        path: Ends in `.mlpackage`; its parent is made if missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        fresh = Path(scratch) / "new"
        data = fresh / "Data"
        (data / AUTHOR).mkdir(parents=True)
        (data / MODEL).write_bytes(specification.SerializeToString(deterministic=True))
        if weights is not None:
            shutil.copytree(weights, data / WEIGHTS)
        (fresh / "Manifest.json").write_text(_manifest(weights is not None), encoding="utf-8")
        _replace(fresh, path, Path(scratch) / "old")


def _replace(fresh: Path, path: Path, aside: Path) -> None:
    """Move `fresh` to `path`; what was there goes to `aside`, and comes back if the move fails."""
    if path.exists() or path.is_symlink():
        os.rename(path, aside)
    try:
        os.rename(fresh, path)
    except OSError:
        if aside.exists():
            os.rename(aside, path)
        raise


def _manifest(with_weights: bool) -> str:
    model = _identifier("model.mlmodel")
    entries = {model: _entry("model.mlmodel", MODEL, "CoreML Model Specification")}
    if with_weights:
        entries[_identifier("weights")] = _entry("weights", WEIGHTS, "CoreML Model Weights")
    document = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": model}
    return json.dumps(document, indent=4, sort_keys=True) + "\n"


def _entry(name: str, path: str, description: str) -> dict[str, str]:
    return {"author": AUTHOR, "description": description, "name": name, "path": path}


def _identifier(item: str) -> str:
    """Identifiers need only be unique within a package, so they are derived from the item's name."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"mvtool:coreml:{item}"))
