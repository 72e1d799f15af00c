"""What a report is made of: records with their derived figures, in the order of the page, and the verdicts on pairs.

`mvtool.bench.report_html` makes a page of it, `mvtool.bench.report_markdown` a comment.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mvtool.bench.record import Record
from mvtool.bench.report_verdicts import Pair, pairs
from mvtool.bench.statistics import Summary, summarise
from mvtool.errors import UsageError

RUNTIME_NAMES: Final = {"tflite": "TFLite", "coreml": "Core ML", "executorch": "ExecuTorch"}


@dataclass(frozen=True)
class Stamp:
    """What a reader must not overlook.

    Attributes:
        word: For the table and the plots.
        sentence: What it means.
        meaningless: The figures themselves mean nothing.
    """

    word: str
    sentence: str
    meaningless: bool


LOOPBACK: Final = Stamp("LOOPBACK", "This is no phone but a stand-in for tests: its figures mean nothing.", True)
EMULATED: Final = Stamp("EMULATED", "Instructions were interpreted: neither time nor memory means anything.", True)
UNTRAINED: Final = Stamp(
    "UNTRAINED",
    "The weights are a fill, not trained: time and memory are real, what the model recognises is not.",
    False,
)
QUICK: Final = Stamp("QUICK", "Measured with the quick profile, a glance: too short to compare versions by.", False)


@dataclass(frozen=True)
class Entry:
    """One record of a report.

    Attributes:
        number: Of the row in the table, from 1.
        file: Name of the record's file.
        record: As measured.
        summary: Derived from it.
        baseline: It was given with `--base`.
    """

    number: int
    file: str
    record: Record
    summary: Summary
    baseline: bool

    @property
    def name(self) -> str:
        """Model, runtime, precision and device in one line."""
        record = self.record
        runtime = RUNTIME_NAMES[record.artifact.runtime]
        return clean(f"{record.model.name} · {runtime} {record.artifact.precision} · {record.device.name}")

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        """What a reader must not overlook, the worst first."""
        record = self.record
        holds = (
            (LOOPBACK, record.device.loopback),
            (EMULATED, record.device.emulated),
            (UNTRAINED, record.model.untrained),
            (QUICK, record.options.profile == "quick"),
        )
        return tuple(stamp for stamp, holding in holds if holding)

    @property
    def meaningless(self) -> bool:
        """The figures say nothing about any device."""
        return any(stamp.meaningless for stamp in self.stamps)

    @property
    def macs_per_second(self) -> float | None:
        """Multiply-adds per second of the median call; None where they could not be counted."""
        macs = self.record.model.macs
        return None if macs is None else macs / (self.summary.median_ms.value / 1e3)

    @property
    def intensity(self) -> float | None:
        """Multiply-adds per byte that a call must move at least: weights once, states in and out, other ports once."""
        artifact, macs = self.record.artifact, self.record.model.macs
        moved = artifact.bytes + 2 * artifact.state_bytes + artifact.port_bytes
        return None if macs is None or not moved else macs / moved


@dataclass(frozen=True)
class Report:
    """Everything that is shown.

    Attributes:
        entries: By model, device and median latency.
        verdicts: On pairs of records.
    """

    entries: tuple[Entry, ...]
    verdicts: tuple[Pair, ...] = ()


def clean(text: str) -> str:
    """One line of text in which nothing is hidden: control and formatting characters show as a replacement sign.

    A name with a right-to-left override would else be read as another name.

    Example:
        >>> clean("a0\\u202estream\\n")
        'a0\\ufffdstream\\ufffd'
    """
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(char)[0] == "C" else char for char in text)


def load(files: Sequence[Path], base_files: Sequence[Path] = ()) -> Report:
    """Read records and derive what is shown of them; a record that is given twice is shown once.

    Args:
        files: Records.
        base_files: Records that the others are compared with.

    Raises:
        UsageError: No file was given.
        ManifestError: A file is no record; the message names it.
    """
    if not files and not base_files:
        raise UsageError("There is nothing to report. Name the records that `mvtool bench` wrote.")
    found: dict[str, tuple[Path, Record, bool]] = {}
    for path, baseline in [*((path, True) for path in base_files), *((path, False) for path in files)]:
        record = Record.load(path)
        found.setdefault(record.id, (path, record, baseline))
    return assemble(list(found.values()))


def assemble(records: Sequence[tuple[Path, Record, bool]]) -> Report:
    """Derive and order; each record comes with its file and whether it is a baseline."""
    derived = [(path.name, record, summarise(record), baseline) for path, record, baseline in records]
    derived.sort(key=lambda row: (row[1].model.name, row[1].device.name, row[2].median_ms.value, row[1].id))
    entries = tuple(Entry(number, *row) for number, row in enumerate(derived, start=1))
    return Report(entries, pairs(entries))
