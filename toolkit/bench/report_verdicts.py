"""Verdicts of a report: which records are compared with which, and which could not be.

What a comparison says stands in `mvtool.bench.comparison_text`, in the same words as `mvtool compare` uses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from mvtool.bench import comparison_text
from mvtool.bench.comparability import ASPECTS, MISSING, permitted
from mvtool.bench.comparison import Comparison, check_thresholds, check_told
from mvtool.bench.markdown_text import clean
from mvtool.bench.metrics import METRICS, told_by
from mvtool.bench.pairing import Outcome, compare_all
from mvtool.errors import UsageError

if TYPE_CHECKING:
    from mvtool.bench.report import Entry

_IDENTITY: Final = ("model", "runtime", "precision", "device")
"""Words of `ASPECTS` by which a baseline finds what it is compared with; the rest is checked by the comparison."""
_MAY_DIFFER_IN_TURNS: Final = ("runtime", "precision")
"""Whoever lets the runtimes or precisions of one build take turns in a session wants to know which is faster."""

REFUSED: Final = "refused"
"""Standing of records that could not be compared."""


@dataclass(frozen=True)
class Pair:
    """Records of one artifact against those of another.

    Attributes:
        base: The baseline.
        new: What is compared with it.
        comparison: Its outcome; None where the records could not be compared.
        refusal: Why not; empty if they could.
    """

    base: tuple[Entry, ...]
    new: tuple[Entry, ...]
    comparison: Comparison | None
    refusal: str = ""

    @property
    def title(self) -> str:
        """Numbers and names of what was compared."""
        numbers = [", ".join(str(entry.number) for entry in side) for side in (self.new, self.base)]
        builds, kinds = ([_words(side, name) for side in (self.new, self.base)] for name in ("build", "kind"))
        record = self.new[0].record
        alike = [kinds[0]] if kinds[0] == kinds[1] else []
        told = " · ".join([clean(record.model.name), *alike, clean(record.device.name)])
        sides = [
            " ".join(pair) for pair in zip(*(words for words in (builds, kinds) if words[0] != words[1]), strict=True)
        ]
        differing = f", {sides[0]} against {sides[1]}" if sides else ""
        return f"{numbers[0]} against {numbers[1]}: {told}{differing}"

    @property
    def standing(self) -> str:
        """`worse`, `inconclusive`, `better` or `same`, by the worst of the gated metrics; `refused` without a comparison."""
        return REFUSED if self.comparison is None else comparison_text.overall(self.comparison)

    @property
    def word(self) -> str:
        """The standing for people."""
        return "Not compared" if self.comparison is None else self.standing.capitalize()

    @property
    def outcome(self) -> str:
        """The gated metrics in one line, or why there was no comparison."""
        return self.refusal if self.comparison is None else comparison_text.outcome_words(self.comparison)


@dataclass(frozen=True)
class Verdicts:
    """All comparisons of a report.

    Attributes:
        pairs: In the order of the entries of their new sides.
        notes: Records that have no partner, one sentence each.
    """

    pairs: tuple[Pair, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def worst_first(self) -> tuple[Pair, ...]:
        """In the order in which a reader should see them."""
        order = [REFUSED, *comparison_text.SIGNS]
        return tuple(sorted(self.pairs, key=lambda pair: order.index(pair.standing)))

    def document(self) -> dict[str, Any]:
        """Plain JSON: what `mvtool compare --json` would print, and what could not be compared, by numbers of rows."""
        found = tuple(pair.comparison for pair in self.pairs if pair.comparison is not None)
        refusals = [
            {
                "base": [entry.number for entry in pair.base],
                "new": [entry.number for entry in pair.new],
                "reason": pair.refusal,
            }
            for pair in self.pairs
            if pair.comparison is None
        ]
        return {"comparison": comparison_text.document(Outcome(found, self.notes)), "refusals": refusals}


@dataclass
class _Judge:
    """Compares sides under the same conditions and takes down what comes of it."""

    thresholds: Mapping[str, float]
    allow: tuple[str, ...]
    pairs: list[Pair] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def compare(self, base: Sequence[Entry], new: Sequence[Entry], also_allow: Sequence[str] = ()) -> None:
        """Compare two sides that belong together; a refusal becomes part of the report."""
        entries = {entry.record.id: entry for entry in (*base, *new)}
        records = [entry.record for entry in entries.values()]
        thresholds = {name: value for name, value in self.thresholds.items() if told_by(METRICS[name], records)}
        sides = [entry.record for entry in base], [entry.record for entry in new]
        try:
            # A report shows what is there; a baseline without a partner is told beside it, not an error.
            found = compare_all(*sides, thresholds, (*self.allow, *also_allow, MISSING))
        except UsageError as error:
            self.pairs.append(Pair(tuple(base), tuple(new), None, str(error)))
            return
        for one in found.comparisons:
            before, after = (tuple(entries[record.id] for record in side) for side in (one.base, one.new))
            self.pairs.append(Pair(before, after, one))
        self.notes.extend(found.notes)

    def against_baselines(self, entries: Sequence[Entry]) -> None:
        """Compare new records with the baselines of the same model, runtime, precision and device."""
        names = [name for name in _IDENTITY if name not in permitted(self.allow)]
        base, new = (_grouped([entry for entry in entries if entry.baseline is side], names) for side in (True, False))
        if len(base) == len(new) == 1:
            # Two artifacts alone are meant for each other; what differs is told by the comparison.
            return self.compare(next(iter(base.values())), next(iter(new.values())))
        for key in {**new, **base}:
            if key in base and key in new:
                self.compare(base[key], new[key])
            else:
                lacking = "base" if key in new else "new"
                self.notes.append(f"Not compared, there is no {lacking} record: {' '.join(key) or 'anything'}.")
        return None

    def within_sessions(self, entries: Sequence[Entry]) -> None:
        """Compare artifacts of one model that took turns in a session, in the order in which they were named.

        Builds are compared by runtime and precision; where each of these occurs once, with the artifact that began.
        """
        sessions: dict[tuple[str, ...], list[Entry]] = {}
        for entry in sorted(entries, key=lambda entry: (entry.record.created, entry.record.launches[0].started_s)):
            record = entry.record
            if record.interleaved:
                key = record.session, record.device.serial, record.model.name
                sessions.setdefault(key, []).append(entry)
        for together in sessions.values():
            kinds = list(_grouped(together, _MAY_DIFFER_IN_TURNS).values())
            if all(len(alike) == 1 for alike in kinds):
                for other in together[1:]:
                    self.compare(together[:1], [other], _MAY_DIFFER_IN_TURNS)
            for first, *others in kinds:
                for other in others:
                    self.compare([first], [other])


def judged(
    entries: Sequence[Entry], thresholds: Mapping[str, float] | None = None, allow: Collection[str] = ()
) -> Verdicts:
    """Compare with the baselines where there are any, else what took turns in a session.

    Raises:
        UsageError: `thresholds` or `allow` holds what is unknown.
    """
    check_thresholds(thresholds or {})
    check_told(thresholds or {}, [entry.record for entry in entries])
    permitted(allow)
    judge = _Judge(thresholds or {}, tuple(allow))
    baselines = sum(entry.baseline for entry in entries)
    if not baselines:
        judge.within_sessions(entries)
    elif baselines < len(entries):
        judge.against_baselines(entries)
    else:
        judge.notes.append("Not compared, every record was given as a baseline.")
    return Verdicts(tuple(judge.pairs), tuple(judge.notes))


def _grouped(entries: Sequence[Entry], names: Sequence[str]) -> dict[tuple[str, ...], list[Entry]]:
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(tuple(str(ASPECTS[name](entry.record)) for name in names), []).append(entry)
    return groups


def _words(side: Sequence[Entry], name: Literal["build", "kind"]) -> str:
    """What the records of a side are, each word once."""
    return " and ".join(dict.fromkeys(clean(getattr(entry, name)) for entry in side))
