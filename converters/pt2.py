"""Reading `.pt2` files without running code that a stranger put into them.

A `.pt2` is a zip of a JSON graph and raw weights, but torch also unpickles whatever else the archive holds.
Here the archive is looked through first: pickled objects and compiled libraries are refused, and torch is
told to unpickle tensors only.
"""

from __future__ import annotations

import functools
import os
import typing
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any
from unittest import mock

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
    with _tensors_only(), _quickly():
        try:
            program: ExportedProgram = torch.export.load(path)
        except OSError:
            raise
        except Exception as error:
            raise ValueError(f"torch.export.load refuses it: {type(error).__name__}: {error}") from error
    return program


def save_exported(program: ExportedProgram, stream: IO[bytes]) -> None:
    """Write an exported program; the same program gives the same bytes."""
    torch = require("torch", "to save an exported program")
    with _quickly():
        torch.export.save(program, stream)


@contextmanager
def _quickly() -> Iterator[None]:
    """Spare torch's serializer its needless work; what it reads and writes stays the same to the byte.

    For every value it reads it asks anew for the types of a class, half of its time. To test itself it makes a canonical form of
    what it is about to write, which it throws away, two thirds of its time (torch 2.13).
    """
    from torch._export.serde import schema, serialize

    @functools.cache
    def hints(kind: type) -> dict[str, Any]:
        return typing.get_type_hints(kind, globalns=vars(schema))

    def known(kind: type, globalns: dict[str, Any] | None = None) -> dict[str, Any]:
        return hints(kind) if globalns is vars(schema) else typing.get_type_hints(kind, globalns=globalns)

    with (
        mock.patch.object(serialize, "typing", _Instead(typing, get_type_hints=known)),
        mock.patch.object(serialize, "canonicalize", lambda program, constants=None: program),
    ):
        yield


class _Instead:
    """A module with some of its functions exchanged."""

    def __init__(self, module: ModuleType, **functions: Callable[..., Any]) -> None:
        self._module = module
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


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
