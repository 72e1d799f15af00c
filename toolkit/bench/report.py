"""What a report is made of: records with their derived figures, in the order of the page, and the verdicts on pairs.

`mvtool.bench.report_html` makes a page of it, `mvtool.bench.report_markdown` a comment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mvtool.bench import pairing
from mvtool.bench.markdown_text import clean
from mvtool.bench.record import Record
from mvtool.bench.report_verdicts import Verdicts, judged
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
        build: Label of its build folder where its session measured another build of the same model, runtime and
            precision; empty where nothing has to be told apart.
    """

    number: int
    file: str
    record: Record
    summary: Summary
    baseline: bool
    build: str = ""

    @property
    def kind(self) -> str:
        """Runtime and precision."""
        return f"{RUNTIME_NAMES[self.record.artifact.runtime]} {self.record.artifact.precision}"

    @property
    def model(self) -> str:
        """Name of the model, and the build where there are two of it."""
        return f"{self.record.model.name} ({self.build})" if self.build else self.record.model.name

    @property
    def name(self) -> str:
        """Model, runtime, precision and device in one line."""
        return clean(f"{self.model} · {self.kind} · {self.record.device.name}")

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
        """Multiply-adds per second of the median call; None where they could not be counted, or it took no time."""
        macs, median_ms = self.record.model.macs, self.summary.median_ms.value
        return None if macs is None or not median_ms else macs / (median_ms / 1e3)

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
    verdicts: Verdicts


def load(
    paths: Sequence[Path],
    base_paths: Sequence[Path] = (),
    thresholds: Mapping[str, float] | None = None,
    allow: Collection[str] = (),
) -> Report:
    """Read records and derive what is shown of them.

    Args:
        paths: Records, or folders of them.
        base_paths: Records, or folders of them, that the others are compared with.
        thresholds: As `pairing.compare_all` takes them.
        allow: The same.

    Raises:
        UsageError: There is nothing to report, a record was given twice, or `thresholds` or `allow` holds what is unknown.
        ManifestError: A file is no record; the message names it.
    """
    if not paths and not base_paths:
        raise UsageError("There is nothing to report. Name the records that `mvtool bench` wrote, or their folder.")
    rows = [(*row, True) for row in _loaded(base_paths)] + [(*row, False) for row in _loaded(paths)]
    places: dict[str, Path] = {}
    for path, record, _ in rows:
        if record.id in places:
            raise UsageError(
                f"{path} was given as new and {places[record.id]} as baseline, and they are the same record. A record cannot "
                "be compared with itself; name it on one side."
            )
        places[record.id] = path
    return assemble(rows, thresholds, allow)


def _loaded(paths: Sequence[Path]) -> list[tuple[Path, Record]]:
    return list(zip(pairing.files_of(paths), pairing.load(paths), strict=True))


def assemble(
    records: Sequence[tuple[Path, Record, bool]],
    thresholds: Mapping[str, float] | None = None,
    allow: Collection[str] = (),
) -> Report:
    """Derive, order and compare; each record comes with its file and whether it is a baseline.

    Raises:
        UsageError: `thresholds` or `allow` holds what is unknown.
    """
    derived = [(path.name, record, summarise(record), baseline) for path, record, baseline in records]
    derived.sort(key=lambda row: (row[1].model.name, row[1].device.name, row[2].median_ms.value, row[1].id))
    alike = Counter(_alike(record) for _, record, _ in records)
    entries = tuple(
        Entry(number, *row, build=(row[1].artifact.build or "") if alike[_alike(row[1])] > 1 else "")
        for number, row in enumerate(derived, start=1)
    )
    return Report(entries, judged(entries, thresholds, allow))


def _alike(record: Record) -> tuple[str, ...]:
    """What two builds of a session have in common where only the name of the build tells them apart."""
    artifact = record.artifact
    return record.session, record.device.serial, record.model.name, artifact.runtime, artifact.precision
