"""Where a build goes: nothing but a build of mvtool is ever replaced, and a place that cannot be written is found early."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mvtool.build import BUILD_SCHEMA, GOLDEN_FILE, MANIFEST_FILE, REFERENCE_FOLDER
from mvtool.errors import UsageError

_FORMAT = BUILD_SCHEMA.partition("/")[0] + "/"
# What `mvtool demo` draws and `mvtool run` logs, named after the artifact and its runtime.
_RUN_SUFFIXES = (".png", ".jsonl")
_LEFT_BY_SYSTEMS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_SHOWN = 5
_LOCK_FILE = "lock"


def destination_of(out: str | os.PathLike[str] | None, model: str) -> Path:
    """The build folder: as the user wrote it, else `build/<model>`. It has a name, also where `out` is `.`.

    Raises:
        UsageError: `out` is the root of the file system.
    """
    path = Path("build") / model if out is None else Path(out)
    path = path if path.name not in ("", "..") else path.resolve()
    if not path.name:
        raise UsageError(f"{path} cannot be a build folder. Give an --out below it.")
    return path


def partial_of(destination: Path) -> Path:
    """Where an incomplete build goes if there is a complete one at `destination`."""
    return destination.with_name(f"{destination.name}.partial")


def check_destination(destination: Path) -> None:
    """Fail before any work is done if the build could not take its place later.

    Raises:
        UsageError: `destination`, or the place of an incomplete build beside it, is something else than a build or
            holds something else too; or the folder around it cannot be made or written.
    """
    for place in (destination, partial_of(destination)):
        check_replaceable(place)
        _probe(place)


def check_replaceable(place: Path) -> None:
    """Fail unless `place` is free, an empty folder, or a build and nothing beside.

    Raises:
        UsageError: It is not; the message names what is in the way.
    """
    if not os.path.lexists(place) or (place.is_symlink() and not place.exists()):
        return
    if not place.is_dir():
        raise UsageError(f"{place} exists and is not a build folder but a file. Give another --out, or remove it.")
    present = {entry.name for entry in place.iterdir()}
    if not present:
        return
    known = _named_by_manifest(place)
    if foreign := sorted(name for name in present if name not in known and name not in _LEFT_BY_SYSTEMS):
        listed = ", ".join(foreign[:_SHOWN]) + (f" and {len(foreign) - _SHOWN} more" if foreign[_SHOWN:] else "")
        raise UsageError(
            f"{place} is a build, but also holds what its {MANIFEST_FILE} does not name: {listed}. A new build would "
            "replace the whole folder. Move these out of it, or give another --out."
        )


def _named_by_manifest(folder: Path) -> set[str]:
    """Names in `folder` that belong to the build; its manifest may be of an older mvtool, or damaged in its values."""
    document = _manifest_of(folder)
    listed = document.get("artifacts")
    artifacts = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    files = [str(entry["file"]) for entry in artifacts if "file" in entry]
    names = {MANIFEST_FILE, GOLDEN_FILE, REFERENCE_FOLDER, *(file.partition("/")[0] for file in files)}
    for entry in artifacts:
        run = f"{Path(str(entry.get('file'))).stem}_{entry.get('runtime')}"
        names.update(run + suffix for suffix in _RUN_SUFFIXES)
    return names


def _manifest_of(folder: Path) -> dict[str, object]:
    try:
        document = json.loads((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict) or not str(document.get("schema")).startswith(_FORMAT):
        raise UsageError(
            f"{folder} exists and is not a build folder: it has no {MANIFEST_FILE} with the schema {BUILD_SCHEMA}. "
            "Give another --out, or remove it."
        )
    return document


@contextmanager
def work_folder(destination: Path) -> Iterator[Path]:
    """A folder beside the build to make it in, removed when the block ends.

    Those of conversions to the same place that were killed are removed first. One that is still at work holds a lock
    in its folder, which ends with its process.
    """
    place = Path(os.path.realpath(destination))
    place.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{place.name}.work-"
    for left in [entry for entry in place.parent.iterdir() if entry.name.startswith(prefix)]:
        _remove_if_dead(left)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=place.parent) as name:
        work = Path(name)
        with (work / f"{_LOCK_FILE}.new").open("w") as stream:
            # The lock gets its name once it is held, so that nobody can take it from a folder just made.
            if _lock(stream):
                (work / f"{_LOCK_FILE}.new").replace(work / _LOCK_FILE)
            yield work


def _remove_if_dead(work: Path) -> None:
    try:
        stream = (work / _LOCK_FILE).open("r+")
    except OSError:
        return
    with stream:
        if _lock(stream):
            shutil.rmtree(work, ignore_errors=True)


def _lock(stream: IO[str]) -> bool:
    """Whether this process now holds the lock on an open file; False also where there are no locks."""
    try:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _probe(place: Path) -> None:
    """Make and remove a folder where the build's own will be made, or in the nearest folder above that exists."""
    place = Path(os.path.realpath(place))
    parent = next(folder for folder in place.parents if os.path.lexists(folder))
    try:
        Path(tempfile.mkdtemp(prefix=f".{place.name}.probe-", dir=parent)).rmdir()
        # To move a folder elsewhere, its own entry `..` is written.
        if place.is_dir() and not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
    except OSError as error:
        raise UsageError(
            f"The build cannot be written to {place}: {error.filename or parent}: {error.strerror or error}. "
            "Give an --out that can be written, or change the permissions."
        ) from error
