"""Which records are compared with which, where there are many in a folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mvtool.bench.comparability import ASPECTS, MISSING, permitted, shortened
from mvtool.bench.comparison import Comparison, check_thresholds, check_told, compare
from mvtool.bench.metrics import METRICS, told_by
from mvtool.bench.record import Record
from mvtool.errors import UsageError

_IDENTITY: Final = ("model", "runtime", "precision", "device")
"""Always told apart, unless it may differ."""
_MANNER: Final = ("serial", "pacing", "profile", "threads", "affinity")
"""Told apart only where one side measured the same artifact in several manners; else a difference is refused."""

Key = tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """All comparisons of one call.

    Attributes:
        comparisons: One per artifact.
        notes: Records that have no partner, one sentence each.
    """

    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()

    @property
    def worse(self) -> bool:
        """Some gated metric of some artifact got worse."""
        return any(one.worse for one in self.comparisons)

    @property
    def inconclusive(self) -> bool:
        """Some gated metric of some artifact cannot be told."""
        return any(one.inconclusive for one in self.comparisons)


def load(paths: Sequence[Path]) -> list[Record]:
    """Records of files, and of all `.json` files of folders.

    Raises:
        UsageError: A path does not exist, a folder holds no `.json` file, or a record is named twice.
        ManifestError: A file is no record.
    """
    files = files_of(paths)
    records: dict[str, Path] = {}
    loaded = []
    for file in files:
        record = Record.load(file)
        if record.id in records:
            raise UsageError(f"{file} and {records[record.id]} are the same record; one side may hold it only once.")
        records[record.id] = file
        loaded.append(record)
    return loaded


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The files that `load` reads, in the same order.

    Raises:
        UsageError: A path does not exist, or a folder holds no `.json` file.
    """
    return [file for path in paths for file in _files(path)]


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise UsageError(f"{path} does not exist. Expected a record of `mvtool bench`, or a folder of records.")
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.json"))
    if not found:
        raise UsageError(f"{path} holds no .json file. Expected a folder of records of `mvtool bench`.")
    return found


def compare_all(
    base: Sequence[Record],
    new: Sequence[Record],
    thresholds: Mapping[str, float] | None = None,
    allow: Collection[str] = (),
) -> Outcome:
    """Compare each artifact of `base` with that of `new` of the same model, runtime, precision and device.

    Raises:
        UsageError: Records cannot be compared, or have no partner; or a threshold is of a metric that none of them has.
    """
    check_thresholds(thresholds or {})
    check_told(thresholds or {}, [*base, *new])
    if both := sorted({record.id for record in base} & {record.id for record in new}):
        raise UsageError(f"Record {both[0]} stands on both sides; a record cannot be compared with itself.")
    may_differ = permitted(allow)
    names = [name for name in _IDENTITY if name not in may_differ]
    before, after = _grouped(base, names), _grouped(new, names)
    if len(before) == len(after) == 1:
        # Two artifacts that were named one by one are meant; why they cannot be compared is told by the comparison.
        after = dict(zip(before, after.values(), strict=True))
    if several := (_several_manners(before) | _several_manners(after)) - may_differ:
        names += [name for name in _MANNER if name in several]
        before, after = _grouped(base, names), _grouped(new, names)
    lost = [_words(names, key) for key in before if key not in after]
    others = " and ".join(_words(names, key) for key in after)
    if (lost and MISSING not in allow) or not before.keys() & after.keys():
        raise UsageError(
            f"There is no new record for {' or '.join(lost)}; the new ones are of {others}. Measure "
            f"what is missing, or add --allow {MISSING} where it is no longer wanted."
        )
    partners = [(before[key], after[key]) for key in before if key in after]
    compared = tuple(compare(*sides, _bounds(sides, thresholds or {}), allow) for sides in partners)
    notes = [f"Not compared, there is no new record: {words}." for words in lost]
    notes += [f"Not compared, there is no base record: {_words(names, key)}." for key in after if key not in before]
    return Outcome(compared, tuple(notes))


def _bounds(sides: tuple[Sequence[Record], Sequence[Record]], thresholds: Mapping[str, float]) -> dict[str, float]:
    """Those of `thresholds` that these records can be held to: a folder may hold paced and unpaced runs."""
    records = [record for side in sides for record in side]
    return {name: percent for name, percent in thresholds.items() if told_by(METRICS[name], records)}


def _grouped(records: Sequence[Record], names: Sequence[str]) -> dict[Key, list[Record]]:
    groups: dict[Key, list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(str(ASPECTS[name](record)) for name in names), []).append(record)
    return groups


def _several_manners(groups: Mapping[Key, Sequence[Record]]) -> frozenset[str]:
    """Manners in which one side measured the same artifact more than once."""
    return frozenset(name for name in _MANNER for records in groups.values() if len(_grouped(records, (name,))) > 1)


def _words(names: Sequence[str], key: Key) -> str:
    """A group in words; a serial by its end, since this may be posted where everybody reads it."""
    words = (shortened(value) if name == "serial" else value for name, value in zip(names, key, strict=True))
    return " ".join(words) or "anything"
