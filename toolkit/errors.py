"""The error tree of mvtool and the exit code of each branch.

    MvtoolError            1   anything below; the CLI prints it without a traceback
    ├── UsageError         2   a command line or call that contradicts itself (click uses 2 as well)
    ├── SourceError        3   the model cannot be found, imported or built
    ├── WeightsError       4   the weight file does not fit the model
    ├── CaptureError       5   the module cannot become a graph with explicit state
    ├── ConversionError    6   a rewrite or an emitter failed, crashed, hung or ran out of memory
    ├── VerificationError  7   an artifact does not compute what the trained model computes
    ├── MissingExtraError  8   an optional package is not installed
    ├── ManifestError      9   a manifest is malformed, or does not belong to the files beside it
    ├── VideoError        10   a video, image folder, camera or calibration input cannot be used
    ├── RuntimeLoadError  11   a runtime refuses to load or execute an artifact
    ├── StorageError      12   the system refuses to read or write a file
    ├── DeviceError       13   a phone cannot be reached, is lost, or is in no state to measure
    ├── RunnerError       14   the native benchmark runner crashed, hung, or gave no complete result
    └── ToolchainError    15   the native benchmark runner cannot be compiled

`mvtool compare` ends with 16 where something got slower or takes more memory, and with 17 where it was asked to be told of
inconclusive comparisons and there are some.

A message says what failed, what was got, what was expected and what to do about it.
"""

from __future__ import annotations

import errno
from typing import ClassVar

_REMEDIES = {
    errno.ENOSPC: "Free space on that disk, or choose another with --out; the folder for temporary files is $TMPDIR.",
    errno.EDQUOT: "Free space within your quota, or choose another disk with --out.",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f), or choose another disk with --out.",
    errno.EROFS: "That disk can only be read; choose a place on another.",
    errno.EACCES: "Change the permissions, or choose another place.",
    errno.EPERM: "Change the permissions, or choose another place.",
    errno.EMFILE: "Raise the limit on open files (ulimit -n), and try again.",
    errno.ENFILE: "Close other programs, and try again.",
    errno.EIO: "The disk or its connection is faulty; choose another place.",
}


class MvtoolError(Exception):
    """Base of every error that mvtool raises on purpose.

    Attributes:
        exit_code: Exit status of the `mvtool` command when this error reaches it.
    """

    exit_code: ClassVar[int] = 1


class UsageError(MvtoolError):
    """Arguments contradict each other or name something unknown."""

    exit_code: ClassVar[int] = 2


class SourceError(MvtoolError):
    """The model cannot be found, imported or built."""

    exit_code: ClassVar[int] = 3


class WeightsError(MvtoolError):
    """A weight file cannot be read or does not cover the model."""

    exit_code: ClassVar[int] = 4


class CaptureError(MvtoolError):
    """A module cannot become a graph whose state is explicit."""

    exit_code: ClassVar[int] = 5


class ConversionError(MvtoolError):
    """A rewrite, a quantization step or an emitter failed."""

    exit_code: ClassVar[int] = 6


class VerificationError(MvtoolError):
    """An artifact does not compute what the trained model computes."""

    exit_code: ClassVar[int] = 7


class ManifestError(MvtoolError):
    """A manifest is malformed or does not describe the files beside it."""

    exit_code: ClassVar[int] = 9


class VideoError(MvtoolError):
    """A video, image folder, camera or calibration input cannot be used."""

    exit_code: ClassVar[int] = 10


class RuntimeLoadError(MvtoolError):
    """A runtime refuses to load or execute an artifact."""

    exit_code: ClassVar[int] = 11


class StorageError(MvtoolError):
    """The system refuses to read or write a file: full disk, permissions, a place that can only be read."""

    exit_code: ClassVar[int] = 12

    @classmethod
    def of(cls, error: OSError) -> StorageError | None:
        """The same in words for the user; None if `error` tells of no file, which is then no matter of storage."""
        if error.errno is None or (error.filename is None and error.errno not in _REMEDIES):
            return None
        where = "A file" if error.filename is None else str(error.filename)
        remedy = _REMEDIES.get(error.errno, "Check that path and the disk it is on, and try again.")
        return cls(f"{where} could not be read or written: {error.strerror}. {remedy}")


class DeviceError(MvtoolError):
    """A phone cannot be reached, was lost on the way, or is in no state to measure."""

    exit_code: ClassVar[int] = 13


class RunnerError(MvtoolError):
    """The native benchmark runner crashed, hung, or gave no complete result; nothing was recorded."""

    exit_code: ClassVar[int] = 14


class ToolchainError(MvtoolError):
    """The native benchmark runner cannot be compiled here."""

    exit_code: ClassVar[int] = 15


class MissingExtraError(MvtoolError):
    """An optional package is not installed.

    Args:
        package: Import name that was not found, for example `"coremltools"`.
        extra: Extra of mvtool that brings it, for example `"coreml"`.
        purpose: What it was needed for, for example `"to write Core ML models"`.
    """

    exit_code: ClassVar[int] = 8

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"The package {package!r} is not installed; it is needed {purpose}. "
            f"Install it with: pip install 'mvtool[{extra}]'"
        )
        self.package = package
        self.extra = extra
        self.purpose = purpose

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        """Made anew from its own arguments where another process raised it."""
        return MissingExtraError, (self.package, self.extra, self.purpose)
