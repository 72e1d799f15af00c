"""What the two ways of measuring hand over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mvtool.profiling.record import Latency
from mvtool.profiling.written import WrittenGraph


@dataclass(frozen=True)
class Timed:
    """One operator that was executed, or several that were timed together.

    Attributes:
        executed: The runtime's name.
        written: Index of the operator of the file, of the first of several; None where it is unknown.
        ms: Lower quartile, median and upper quartile of its time.
        delegated: Whether the accelerated path ran it.
        reason: Why not.
        merged: Operators of the file that were timed together, in order from `written`.
    """

    executed: str
    written: int | None
    ms: tuple[float, float, float]
    delegated: bool = True
    reason: str | None = None
    merged: int = 1


@dataclass(frozen=True)
class Measured:
    """Times of one artifact, see `mvtool.profiling.record.Profile` and `Agreement` for the fields."""

    written: WrittenGraph
    timed: tuple[Timed, ...]
    latency: Latency
    method: Literal["profiler", "prefixes"]
    resolution_us: float | None
    notes: tuple[str, ...] = ()
    call_ms: float | None = None
    delegate_nodes: int | None = None
