"""JSON lines of a run: one header record, one record per step, one closing record.

The file appears under its name when the run ends, whole or not; the closing record says which. A file
without a closing record was not written by this module.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mvtool.errors import MvtoolError
from mvtool.files import atomic_path
from mvtool.running import RunHeader, Step


class RunLog:
    """Writes the records of one run to an open text file."""

    def __init__(self, stream: IO[str], header: RunHeader) -> None:
        """Write the header record."""
        self._stream = stream
        self._steps = 0
        self._write(header.to_record())

    def add(self, step: Step) -> None:
        """Write the record of `step`."""
        self._steps += 1
        self._write(step.to_record())

    def close(self, reason: str | None) -> None:
        """Write the closing record.

        Args:
            reason: Why the run ended early; None if it reached the end of the source.
        """
        self._write({"kind": "end", "steps": self._steps, "complete": reason is None, "reason": reason})

    def _write(self, record: dict[str, Any]) -> None:
        self._stream.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._stream.flush()


@contextmanager
def to_stream(stream: IO[str], header: RunHeader) -> Iterator[RunLog]:
    """A log on an open stream; the closing record is written also when the block ends with an error."""
    log = RunLog(stream, header)
    try:
        yield log
    except (MvtoolError, KeyboardInterrupt) as error:
        log.close(str(error) or "interrupted")
        raise
    log.close(None)


@contextmanager
def to_file(target: Path, header: RunHeader) -> Iterator[RunLog]:
    """A log that becomes the file `target` when the block ends, also with an error of mvtool or Ctrl-C."""
    failure: MvtoolError | KeyboardInterrupt | None = None
    with atomic_path(target) as partial, partial.open("w", encoding="utf-8") as stream:
        try:
            with to_stream(stream, header) as log:
                yield log
        except (MvtoolError, KeyboardInterrupt) as error:
            # Kept back until the file stands under its name: the steps so far are worth having.
            failure = error
    if failure is not None:
        raise failure
