"""What would save most: rules over the measured operators, each with the time it would save here.

A rule speaks only of operators of this profile and counts only their measured times; what it cannot show by a number of this profile it
does not say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from mvtool.ports import Precision
from mvtool.profiling.measured import Measured
from mvtool.profiling.record import NextStep, OperatorTime
from mvtool.profiling.written import Written

BEST = 3
WORTH = 0.01
"""A step that saves less than this part of the latency is not named."""
SHOWN_LAYERS = 3
SLOW = 0.7
"""An operator is slow if it reaches less than this part of the rate of the fastest large one of its type."""
TRANSPOSES = frozenset({"TRANSPOSE", "StaticTranspose"})
MOVES = frozenset(
    [
        "CONCATENATION",
        "EXPAND_DIMS",
        "PAD",
        "PADV2",
        "RESHAPE",
        "SLICE",
        "SPLIT",
        "SQUEEZE",
        "STRIDED_SLICE",
        "Concatenate2",
        "Concatenate3",
        "Concatenate4",
        "EvenSplit2",
        "EvenSplit3",
        "EvenSplit4",
        "StaticConstantPad",
        "StaticReshape",
        "StaticSlice",
    ]
)
CONVERSIONS = frozenset({"QUANTIZE", "DEQUANTIZE", "Convert"})
ELEMENTWISE = frozenset(
    [
        "ABS",
        "ADD",
        "DIV",
        "EXP",
        "HARD_SWISH",
        "LOGISTIC",
        "MAXIMUM",
        "MINIMUM",
        "MUL",
        "NEG",
        "RELU",
        "RELU6",
        "RELU_N1_TO_1",
        "RSQRT",
        "SQRT",
        "SQUARE",
        "SUB",
        "TANH",
        "Abs",
        "Add",
        "Clamp",
        "Div",
        "ELU",
        "Exp",
        "Hardswish",
        "Maximum",
        "Minimum",
        "Multiply",
        "Negate",
        "ReciprocalSquareRoot",
        "Sigmoid",
        "Square",
        "SquareRoot",
        "Subtract",
        "Tanh",
    ]
)


def next_steps(
    rows: Sequence[OperatorTime], measured: Measured, peaks: Mapping[Precision, float], precision: Precision
) -> tuple[NextStep, ...]:
    """At most three steps, the largest saving first.

    Args:
        rows: The operators.
        measured: What they were made of.
        peaks: Multiply-adds per second; empty where they are not known.
        precision: Of the artifact.
    """
    single = [row for row in rows if row.merged == 1]
    found = [
        *_undelegated(rows, measured),
        *_movement(single, measured),
        *_conversions(single, measured),
        *_chains(single, measured),
        *_slow(single),
        *_int8(single, peaks, precision),
    ]
    worth = [step for step in found if step.gain_ms >= WORTH * measured.latency.median_ms]
    return tuple(sorted(worth, key=lambda step: -step.gain_ms)[:BEST])


def _undelegated(rows: Sequence[OperatorTime], measured: Measured) -> list[NextStep]:
    """What no delegate runs, by type and reason; saved is what it takes beyond the delegated operators' time per byte."""
    outside: dict[tuple[str, str], list[OperatorTime]] = {}
    for row in rows:
        if not row.delegated:
            outside.setdefault((row.type, row.reason or "unknown"), []).append(row)
    pace = _pace(rows, measured)
    found = []
    for (kind, reason), members in outside.items():
        inside = sum(pace * _written(row, measured).moved_bytes for row in members if _has(row, measured))
        found.append(
            NextStep(
                rule="undelegated",
                what=f"Bring {_count(members, kind)} into the delegate{_places(members)}: {reason}.",
                gain_ms=max(0.0, _sum(members) - inside),
                estimate="their time, less what delegated elementwise operators of this profile take for as many bytes",
                operators=_positions(members),
            )
        )
    return found


def _movement(rows: Sequence[OperatorTime], measured: Measured) -> list[NextStep]:
    """Operators that compute nothing, by kind."""
    found = []
    for name, kinds in (("transposes", TRANSPOSES), ("data movement", MOVES)):
        by_kind: dict[str, list[OperatorTime]] = {}
        for row in rows:
            if row.delegated and _kind(row, measured) in kinds:
                by_kind.setdefault(_kind(row, measured), []).append(row)
        found += [
            NextStep(
                rule=name,
                what=f"Avoid {_count(members, kind)}{_places(members)}: they move values and compute nothing.",
                gain_ms=_sum(members),
                estimate="all of their time, which is the most that can be saved",
                operators=_positions(members),
            )
            for kind, members in by_kind.items()
        ]
    return found


def _conversions(rows: Sequence[OperatorTime], measured: Measured) -> list[NextStep]:
    members = [row for row in rows if _kind(row, measured) in CONVERSIONS]
    if not members:
        return []
    return [
        NextStep(
            rule="conversions",
            what=f"Keep one type across {_count(members, 'conversion')} between int8 and float{_places(members)}.",
            gain_ms=_sum(members),
            estimate="all of their time, which is the most that can be saved",
            operators=_positions(members),
        )
    ]


def _chains(rows: Sequence[OperatorTime], measured: Measured) -> list[NextStep]:
    """Elementwise operators of which each is the only reader of the one before: one pass over the values could do."""
    readers = Counter(t for operator in measured.written.operators for t in operator.reads)
    made: dict[int, OperatorTime] = {}
    chains: dict[int, list[OperatorTime]] = {}
    for row in rows:
        if _kind(row, measured) not in ELEMENTWISE:
            continue
        operator = _written(row, measured)
        before = next((made[t] for t in operator.reads if t in made and readers[t] == 1), None)
        chain = chains.pop(before.position, [before]) if before is not None else []
        chains[row.position] = [*chain, row]
        made.update(dict.fromkeys(operator.writes, row))
    patterns: dict[str, list[list[OperatorTime]]] = {}
    for chain in chains.values():
        if len(chain) > 1:
            patterns.setdefault(" + ".join(_kind(row, measured) for row in chain), []).append(chain)
    found = []
    for pattern, alike in patterns.items():
        members = [row for chain in alike for row in chain]
        found.append(
            NextStep(
                rule="elementwise chains",
                what=f"Fuse {_times(len(alike))} {pattern}{_places(members)} into one pass each.",
                gain_ms=sum(_sum(chain) - max(row.ms for row in chain) for chain in alike),
                estimate="the time of each chain, less its longest operator",
                operators=_positions(members),
            )
        )
    return found


def _slow(rows: Sequence[OperatorTime]) -> list[NextStep]:
    """Operators far below the rate that others of the same type reach in this profile."""
    by_type: dict[str, list[OperatorTime]] = {}
    for row in rows:
        if row.macs and row.ms > 0:
            by_type.setdefault(f"{row.type}, {row.arithmetic}", []).append(row)
    found = []
    for kind, alike in by_type.items():
        # A rate counts if the operator is no speck: at least a twentieth of the time of its type.
        large = [row for row in alike if row.ms >= 0.05 * _sum(alike)]
        best = max((_rate(row) for row in large), default=0.0)
        members = [row for row in alike if _rate(row) < SLOW * best]
        if not members:
            continue
        peak = "" if members[0].peak_share is None else f" ({_peak_range(members)} of the measured peak)"
        found.append(
            NextStep(
                rule="far below the roofline",
                what=f"Look at {_count(members, kind)}{_places(members)}{peak}: other shapes of this type are faster here.",
                gain_ms=sum(row.ms - (row.macs or 0) / best for row in members),
                estimate=f"all of them at {best / 1e6:.1f} G multiply-adds per second, the rate of the fastest large {kind} of this profile",
                operators=_positions(members),
            )
        )
    return found


def _int8(rows: Sequence[OperatorTime], peaks: Mapping[Precision, float], precision: Precision) -> list[NextStep]:
    """Float products, where int8 has a higher measured peak."""
    slow, fast = peaks.get(Precision.FP32), peaks.get(Precision.INT8)
    members = [row for row in rows if row.macs and row.arithmetic is Precision.FP32]
    if not members or not slow or not fast or fast <= slow or precision is not Precision.FP32:
        return []
    return [
        NextStep(
            rule="int8",
            what=f"Compute {_count(members, 'convolution and product')} in int8, whose measured peak is {fast / slow:.1f} times that of fp32.",
            gain_ms=_sum(members) * (1 - slow / fast),
            estimate="their time at the same part of the int8 peak as now of the fp32 peak",
            operators=_positions(members),
        )
    ]


def _pace(rows: Sequence[OperatorTime], measured: Measured) -> float:
    """Milliseconds per byte of the delegated elementwise operators; 0 where there are none."""
    inside = [row for row in rows if row.delegated and row.merged == 1 and _kind(row, measured) in ELEMENTWISE]
    moved = sum(_written(row, measured).moved_bytes for row in inside)
    return _sum(inside) / moved if moved else 0.0


def _has(row: OperatorTime, measured: Measured) -> bool:
    return measured.timed[row.position].written is not None


def _written(row: OperatorTime, measured: Measured) -> Written:
    place = measured.timed[row.position].written
    assert place is not None
    return measured.written.operators[place]


def _kind(row: OperatorTime, measured: Measured) -> str:
    return _written(row, measured).kind if _has(row, measured) else ""


def _rate(row: OperatorTime) -> float:
    return (row.macs or 0) / row.ms


def _sum(rows: Sequence[OperatorTime]) -> float:
    return sum(row.ms for row in rows)


def _positions(rows: Sequence[OperatorTime]) -> tuple[int, ...]:
    return tuple(sorted(row.position for row in rows))


def _count(rows: Sequence[OperatorTime], kind: str) -> str:
    return f"{_times(len(rows))} {kind}"


def _times(number: int) -> str:
    return f"{number} x"


def _peak_range(rows: Sequence[OperatorTime]) -> str:
    shares = [row.peak_share for row in rows if row.peak_share is not None]
    return f"{min(shares):.0%} to {max(shares):.0%}" if len(shares) > 1 else f"{shares[0]:.0%}"


def _places(rows: Sequence[OperatorTime]) -> str:
    """The layers that take most of some operators' time."""
    times: Counter[str] = Counter()
    for row in rows:
        times[row.layer or "unknown layers"] += row.ms  # type: ignore[assignment]
    first = [name for name, _ in times.most_common(SHOWN_LAYERS)]
    more = f" and {len(times) - len(first)} more" if len(times) > len(first) else ""
    return f" in {', '.join(first)}{more}"
