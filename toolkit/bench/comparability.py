"""What must be equal for two benchmarks to be compared, and the refusal where it is not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from mvtool.bench.record import Record
from mvtool.errors import UsageError

MISSING: Final = "missing"
"""Word of `--allow` for base records that have no new ones beside them."""


def _device(record: Record) -> str:
    device = record.device
    return " ".join(filter(None, (device.kind, device.manufacturer, device.model or device.name, device.soc)))


def _library(record: Record) -> str:
    engine = record.engine
    return f"{engine.library} {engine.library_version or engine.library_sha256 or 'of unknown version'}"


def _frames(record: Record) -> str:
    options = record.options
    return f"{options.frames} of {options.video}, {record.model.frames_per_call} per call"


def _stand_in(record: Record) -> str:
    words = [word for word in ("loopback", "emulated") if getattr(record.device, word)]
    return " and ".join(words) or "real device"


ASPECTS: Final[Mapping[str, Callable[[Record], str]]] = {
    "model": lambda record: record.model.name,
    "runtime": lambda record: record.artifact.runtime,
    "precision": lambda record: record.artifact.precision,
    "device": _device,
    "build": lambda record: f"{record.device.os} {record.device.os_version} ({record.device.build})",
    "api": lambda record: record.engine.api,
    "library": _library,
    "delegate": lambda record: record.engine.delegate,
    "threads": lambda record: str(record.engine.threads),
    "affinity": lambda record: record.engine.affinity or "none",
    "pacing": lambda record: "flat out" if record.options.fps is None else f"{record.options.fps:g} fps",
    "profile": lambda record: record.options.profile,
    "frames": _frames,
    "loopback": _stand_in,
}
"""Word of `--allow` to what must be equal; the artifact itself may differ, for that is what is compared."""

_FOLLOW: Final[Mapping[str, tuple[str, ...]]] = {
    "runtime": ("api", "library", "delegate"),
    "device": ("build",),
    "loopback": ("device", "build"),
}
"""Allowing the first alone would be no use: the others differ with it."""

ALLOWED_WORDS: Final = (*ASPECTS, MISSING)


def permitted(allow: Collection[str]) -> frozenset[str]:
    """Aspects that may differ.

    Raises:
        UsageError: A word of `allow` is unknown.
    """
    if unknown := sorted(set(allow) - set(ALLOWED_WORDS)):
        raise UsageError(f"--allow got {', '.join(map(repr, unknown))}; expected words of {', '.join(ALLOWED_WORDS)}.")
    return frozenset(allow).union(*(_FOLLOW.get(word, ()) for word in allow))


def check(base: Sequence[Record], new: Sequence[Record], allow: Collection[str] = ()) -> tuple[str, ...]:
    """Refuse records that cannot be compared.

    Returns:
        What differs and was allowed to, or is worth knowing, one sentence each.

    Raises:
        UsageError: They differ in what must be equal, are of no real device, or one side holds several artifacts.
    """
    may_differ = permitted(allow)
    everything = [*base, *new]
    different = {name: values for name, of in ASPECTS.items() if len(values := _values(of, everything)) > 1}
    if refused := [name for name in different if name not in may_differ]:
        told = "; ".join(f"{name}: {_sides(ASPECTS[name], base, new)}" for name in refused)
        raise UsageError(
            f"These benchmarks of {base[0].model.name} cannot be compared, they differ in more than the artifact. {told}. "
            f"Measure both under the same conditions, or say what may differ with --allow {','.join(refused)}."
        )
    _check_real(everything, may_differ)
    _check_one_artifact("base", base)
    _check_one_artifact("new", new)
    told_anyway = [f"Different {name}: {_sides(ASPECTS[name], base, new)}." for name in different]
    return (*told_anyway, *_worth_knowing(base, new))


def _values(of: Callable[[Record], str], records: Sequence[Record]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(of(record)) for record in records))


def _sides(of: Callable[[Record], str], base: Sequence[Record], new: Sequence[Record]) -> str:
    return f"base {' and '.join(_values(of, base))}, new {' and '.join(_values(of, new))}"


def _check_real(records: Sequence[Record], may_differ: frozenset[str]) -> None:
    if "loopback" in may_differ:
        return
    if found := next((record for record in records if record.device.loopback or record.device.emulated), None):
        raise UsageError(
            f"A benchmark of {found.model.name} is of no real device ({found.device.name}: {_stand_in(found)}), so its times and "
            "memory mean nothing. Measure on a phone or with --device host, or add --allow loopback to try the command."
        )


def _check_one_artifact(side: str, records: Sequence[Record]) -> None:
    hashes = {record.artifact.sha256[:12]: record.artifact.file for record in records}
    if len(hashes) > 1:
        listed = ", ".join(f"{file} {digest}" for digest, file in hashes.items())
        raise UsageError(
            f"The {side} records are of {len(hashes)} different artifacts ({listed}); the launches of one side are taken together, "
            "so they must be of one file. Keep the records of each commit in a folder of their own."
        )


def _worth_knowing(base: Sequence[Record], new: Sequence[Record]) -> list[str]:
    notes = []
    if base[0].artifact.sha256 == new[0].artifact.sha256:
        notes.append("Both sides measured the same file.")
    if len(_values(lambda record: record.engine.runner_sha256, [*base, *new])) > 1:
        notes.append("The runners are different builds.")
    if len(serials := _values(lambda record: record.device.serial, [*base, *new])) > 1:
        notes.append(f"Measured on {len(serials)} devices of one model, which differ among themselves.")
    return notes
