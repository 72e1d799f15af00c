"""What the runtimes' C++ code writes to standard error.

ExecuTorch and LiteRT log straight to file descriptor 2: greetings on every load, which hide what a user should
read, and the reason of a failure, which their exceptions lack.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STANDARD_ERROR = 2
_LOG_LINE = re.compile(
    rb"^(\[[\w.-]+\.(?:cpp|cc|h):\d+\] |(?:INFO|WARNING|ERROR): |[IWEF]\d{4} \d\d:\d\d|[IWEF]0000 )(?P<text>.*)"
)
_SHOWN_LINES = 3
_ONE_AT_A_TIME = threading.RLock()
"""The descriptor belongs to the process."""


class NativeLog:
    """Lines that were logged, without their prefixes."""

    def __init__(self) -> None:
        """Nothing was logged yet."""
        self.lines: list[str] = []

    def reason(self) -> str:
        """The last lines as the end of an error message, `""` without any."""
        return f" The runtime said: {'; '.join(self.lines[-_SHOWN_LINES:])}." if self.lines else ""


@contextmanager
def native_log() -> Iterator[NativeLog]:
    """Take up what C++ code logs in a block; all else that was written comes out after it.

    The log is complete when the block ends, with or without an exception.
    """
    log = NativeLog()
    with _ONE_AT_A_TIME, tempfile.TemporaryFile() as taken:
        try:
            saved = os.dup(_STANDARD_ERROR)
        except OSError:  # a service without standard error
            yield log
            return
        _flush()
        os.dup2(taken.fileno(), _STANDARD_ERROR)
        try:
            yield log
        finally:
            _flush()
            os.dup2(saved, _STANDARD_ERROR)
            os.close(saved)
            taken.seek(0)
            _sort(taken.read(), log)


def _sort(data: bytes, log: NativeLog) -> None:
    for line in data.splitlines(keepends=True):
        found = _LOG_LINE.match(line)
        if found:
            log.lines.append(found["text"].decode("utf-8", "replace").strip())
        else:
            os.write(_STANDARD_ERROR, line)


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()
