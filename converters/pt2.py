"""Reading `.pt2` files without running code that a stranger put into them.

A `.pt2` is a zip of a JSON graph and raw weights, but torch also unpickles whatever else the archive holds.
Here the archive is looked through first: pickled objects and compiled libraries are refused, and torch is
told to unpickle tensors only.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mvtool.extras import require

if TYPE_CHECKING:
    from torch.export import ExportedProgram

# Names inside the archive, torch/csrc/export/pt2_archive_constants.h of torch 2.13.
_PICKLED = ("data/constants/custom_obj_", "data/constants/opaque_obj_")
_COMPILED = "data/aotinductor/"
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def load_exported(path: Path) -> ExportedProgram:
    """Load an exported program that consists of a graph and tensors.

    Raises:
        ValueError: The file is no such archive, or holds pickled objects or compiled code.
        OSError: The file cannot be read.
    """
    torch = require("torch", "to load an exported program")
    _inspect(path)
    with _tensors_only():
        try:
            program: ExportedProgram = torch.export.load(path)
        except OSError:
            raise
        except Exception as error:
            raise ValueError(f"torch.export.load refuses it: {type(error).__name__}: {error}") from error
    return program


def _inspect(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise ValueError("it is not a zip archive, or it is truncated") from error
    for name in names:
        if name.startswith(_PICKLED) or name.startswith(_COMPILED):
            raise ValueError(
                f"it holds {name!r}, a pickled object or compiled code, which could run anything on this machine"
            )


@contextmanager
def _tensors_only() -> Iterator[None]:
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before
