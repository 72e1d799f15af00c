"""What must be equal for two benchmarks to be compared, and the refusal where it is not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from mvtool.bench.record import Record
from mvtool.errors import UsageError

MISSING: Final = "missing"
"""Word of `--allow` for base records that have no new ones beside them."""


def shortened(serial: str) -> str:
    """Enough to tell which phone is meant; logs of CI are public, and the whole serial would tell whose phone it is."""
    return f"…{serial[-4:]}"


def _device(record: Record) -> str:
    device = record.device
    name = " ".join(filter(None, (device.kind, device.manufacturer, device.model or device.name, device.soc)))
    return f"{name}, {device.cores} cores, {_memory_gib(device.memory_bytes)} GiB"


def _memory_gib(size_bytes: int) -> str:
    """The memory as it is sold, a power of two or one and a half: what a system leaves of it changes with its version."""
    power = 1 << max(size_bytes - 1, 1).bit_length()
    return f"{(3 * power // 4 if size_bytes <= 3 * power // 4 else power) / 2**30:g}"


def _library(record: Record) -> str:
    engine = record.engine
    return f"{engine.library} {engine.library_version or engine.library_sha256 or 'of unknown version'}"


def _library_build(record: Record) -> str:
    """The library with its hash, for builds that carry one version."""
    engine = record.engine
    build = f" ({engine.library_sha256[:12]})" if engine.library_version and engine.library_sha256 else ""
    return _library(record) + build


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
    "serial": lambda record: record.device.serial,
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
    "device": ("serial", "build"),
    "loopback": ("device", "serial", "build"),
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
    different = {name: of for name, of in _aspects(everything).items() if len(_values(of, everything)) > 1}
    if refused := [name for name in different if name not in may_differ]:
        told = "; ".join(f"{name}: {_shown_sides(name, different[name], base, new)}" for name in refused)
        raise UsageError(
            f"These benchmarks of {base[0].model.name} cannot be compared, they differ in more than the artifact. {told}. "
            f"Measure both under the same conditions, or say what may differ with --allow {','.join(refused)}."
        )
    _check_real(everything, may_differ)
    _check_one_artifact("base", base)
    _check_one_artifact("new", new)
    told_anyway = [f"Different {name}: {_allowed(name, of, base, new)}." for name, of in different.items()]
    return (*told_anyway, *_worth_knowing(base, new))


def _aspects(records: Sequence[Record]) -> Mapping[str, Callable[[Record], str]]:
    """`ASPECTS`; the library with its hash where those that are known differ for one instruction set."""
    builds: dict[str, set[str]] = {}
    for record in records:
        if record.engine.library_sha256 is not None:
            builds.setdefault(record.device.abi, set()).add(record.engine.library_sha256)
    several = any(len(found) > 1 for found in builds.values())
    return {**ASPECTS, "library": _library_build} if several else ASPECTS


def _allowed(name: str, of: Callable[[Record], str], base: Sequence[Record], new: Sequence[Record]) -> str:
    """What differs, for readers of a comment or page; no serial, which would tell whose phone it was."""
    if name == "serial":
        return (
            f"{len(_values(of, [*base, *new]))} devices, which differ among themselves even where they are of one model"
        )
    return _sides(of, base, new)


def _values(of: Callable[[Record], str], records: Sequence[Record]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(of(record)) for record in records))


def _shown_sides(name: str, of: Callable[[Record], str], base: Sequence[Record], new: Sequence[Record]) -> str:
    return _sides((lambda record: shortened(of(record))) if name == "serial" else of, base, new)


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
    for title, of in _MANNERS.items():
        if len(_values(of, [*base, *new])) > 1:
            notes.append(f"{title} differs: {_sides(of, base, new)}.")
    return notes


def _limit(record: Record) -> str:
    limit = record.options.max_temperature_c
    return "none" if limit is None else f"{limit:g} degrees Celsius"


_MANNERS: Final[Mapping[str, Callable[[Record], str]]] = {
    "How states reach their inputs": lambda record: record.engine.state_loop,
    "Packed weights in a file (--weight-cache)": lambda record: "yes" if record.options.weight_cache else "no",
    "What the memory of the process includes": lambda record: (
        ", ".join(record.engine.memory_includes) or "nothing more"
    ),
    "The temperature that launches waited for (--max-temperature)": _limit,
}
"""What does not forbid a comparison, but may explain it."""
