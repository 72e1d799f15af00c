"""Files and folders of a build: atomic writing, hashes, and paths that stay inside their folder.

Some artifacts are single files (`.tflite`, `.pte`), some are folders (`.mlpackage`, a saved
program). Every function here takes both.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

from mvtool.errors import ManifestError

_CHUNK_BYTES = 1 << 20


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write to; it takes the place of `target` when the block ends well.

    The block may create a file or a folder at the yielded path. If it raises, or creates nothing,
    `target` is left as it was and the partial result is removed. Where `target` is a symbolic link, the link stays
    and what it points at is replaced.

    Raises:
        FileNotFoundError: The block ended without creating anything.
        OSError: The file system refused; the error names a file.
    """
    name, target = Path(target).name, Path(os.path.realpath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    partial, aside = holder / name, holder / f"{name}.previous"
    try:
        yield partial
        if not partial.exists():
            raise FileNotFoundError(f"Nothing was written for {target}.")
        _take_place(partial, target, aside)
    except OSError as error:
        # A full disk is reported by `write`, which knows no name.
        if error.errno is not None and error.filename is None:
            error.filename = str(target)
        raise
    finally:
        _restore(aside, target)
        shutil.rmtree(holder, ignore_errors=True)


def _take_place(partial: Path, target: Path, aside: Path) -> None:
    """Move `partial` to `target`; where one of them is a folder, what stands there is moved to `aside` first."""
    _sync(partial)
    # POSIX renames a folder only onto an empty one.
    if target.exists() and (target.is_dir() or partial.is_dir()):
        target.replace(aside)
    partial.replace(target)


def _restore(aside: Path, target: Path) -> None:
    """Move `aside` back if nothing took the place of `target`: after an error or an interrupt between the two moves.

    Raises:
        OSError: It cannot be moved back; it is left where the message says.
    """
    if not os.path.lexists(aside) or os.path.lexists(target):
        return
    try:
        aside.replace(target)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}; the previous {target.name} is whole and lies here, move it back",
            str(aside),
        ) from error


def _sync(path: Path) -> None:
    """Force a file, or each file of a folder, to disk, so that a power loss cannot leave it empty under its name."""
    for file in [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]:
        with suppress(OSError), file.open("rb") as stream:
            os.fsync(stream.fileno())


def write_atomic(target: Path, data: bytes) -> None:
    """Write `data` to `target` so that a reader sees the old file or the new one, never a part."""
    with atomic_path(target) as partial:
        partial.write_bytes(data)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, or of a folder's names and contents, as 64 hexadecimal digits.

    The hash of a folder is that of one line `<sha256 of the file>  <relative path>\\n` per file, in
    the byte order of the relative POSIX paths: what `sha256sum` prints for the sorted list of files.
    """
    path = Path(path)
    if not path.is_dir():
        return _sha256_of_file(path)
    lines = [f"{_sha256_of_file(path / name)}  {name}\n" for name in _files_below(path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder together."""
    path = Path(path)
    if not path.is_dir():
        return path.stat().st_size
    return sum((path / name).stat().st_size for name in _files_below(path))


def _files_below(folder: Path) -> list[str]:
    names = [entry.relative_to(folder).as_posix() for entry in folder.rglob("*") if not entry.is_dir()]
    return sorted(names, key=str.encode)


def check_relative(name: str) -> str:
    """Return `name` if it is a relative POSIX path that stays below its folder.

    Raises:
        ValueError: It is empty, absolute, has a drive, a backslash, a `.` or a `..` part.
    """
    parts = name.split("/")
    absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive
    if absolute or "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{name!r} is not a relative path inside the build folder")
    return name


def inside(folder: Path, name: str) -> Path:
    """The path of `name` in `folder`.

    Raises:
        ManifestError: `name` leads out of the folder, by `..`, as an absolute path, or through a symbolic link.
    """
    try:
        path = Path(folder) / check_relative(name)
    except ValueError as error:
        raise ManifestError(f"{error}: a manifest may only name files beside it. Do not use this build.") from error
    if not path.resolve().is_relative_to(Path(folder).resolve()):
        raise ManifestError(
            f"{name!r} in {folder} is a link to {path.resolve()}, outside the build folder; a build holds its own "
            "files. Replace the link by the file it points to."
        )
    return path
