"""Kinds of work: what the operators of a profile do, told the same for every converter and runtime."""

from __future__ import annotations

from collections.abc import Sequence

from mvtool.profiling.record import OperatorTime, WorkTime
from mvtool.profiling.steps import CONVERSIONS, ELEMENTWISE, MOVES, TRANSPOSES

POINTWISE, CONVOLUTION, DEPTHWISE, DENSE = "1x1 convolution", "other convolution", "depthwise convolution", "dense"
ARITHMETIC, MOVING, CONVERTING = "elementwise", "moves of values", "quantize, dequantize, cast"
OTHERS, BETWEEN = "other operators", "between operators"
KINDS = (POINTWISE, CONVOLUTION, DEPTHWISE, DENSE, ARITHMETIC, MOVING, CONVERTING, OTHERS, BETWEEN)
"""In the order in which they are shown; the last is the latency that no operator accounts for: feeding, and borders of the delegate."""

_EXACT = {
    **dict.fromkeys((*ELEMENTWISE, "RELU_0_TO_1", "PRELU", "LEAKY_RELU", "GELU", "SQUARED_DIFFERENCE"), ARITHMETIC),
    **dict.fromkeys((*MOVES, *TRANSPOSES, "GATHER", "PACK", "UNPACK", "SPLIT_V", "TILE", "BROADCAST_TO"), MOVING),
    **dict.fromkeys(("DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "MIRROR_PAD", "REVERSE_V2", "SELECT", "SELECT_V2"), MOVING),
    **dict.fromkeys((*CONVERSIONS, "CAST"), CONVERTING),
    **dict.fromkeys(("FULLY_CONNECTED", "BATCH_MATMUL", "FullyConnected", "BatchMatrixMultiply"), DENSE),
}
PICTURE_AXES = 4
_CONVOLUTIONS = ("CONV_2D", "CONV_3D", "TRANSPOSE_CONV", "Conv2d", "ConvTranspose2d", "aten::convolution")
_DEPTHWISE = ("DEPTHWISE_CONV_2D", "DepthwiseConv2d")


def kind_of(label: str, shapes: str = "") -> str:
    """The kind of work of an operator; operators timed together count with the convolution among them, a 1x1 convolution of one pixel as dense.

    Args:
        label: Its type in a profile.
        shapes: Of what it reads and makes, as in a profile.

    Example:
        >>> kind_of("CONV_2D 1x1"), kind_of("ADD (as a table)"), kind_of("StaticConstantPad + DepthwiseConv2d 3x3")
        ('1x1 convolution', 'elementwise', 'depthwise convolution')
        >>> kind_of("CONV_2D 1x1", "1x1x1x24 -> 1x1x1x80")
        'dense'
    """
    found = min((_kind_of_one(part) for part in label.split(" + ")), key=KINDS.index)
    made = shapes.rpartition(" -> ")[2].split("x")
    return DENSE if found == POINTWISE and len(made) == PICTURE_AXES and made[1:3] == ["1", "1"] else found


def _kind_of_one(label: str) -> str:
    name, _, rest = label.partition(" ")
    if name.startswith(_DEPTHWISE):
        return DEPTHWISE
    if name.startswith(_CONVOLUTIONS):
        return POINTWISE if rest == "1x1" else CONVOLUTION
    return _EXACT.get(name, OTHERS)


def work(rows: Sequence[OperatorTime], latency_ms: float) -> tuple[WorkTime, ...]:
    """Time per kind of work, in the order of `KINDS`, without kinds that take none.

    Args:
        rows: The operators.
        latency_ms: Of a call without profiling; what the operators do not account for is the last kind.
    """
    members: dict[str, list[OperatorTime]] = {kind: [] for kind in KINDS}
    for row in rows:
        members[kind_of(row.type, row.shapes)].append(row)
    found = [
        WorkTime(
            kind=kind,
            operators=sum(row.merged for row in inside),
            ms=sum(row.ms for row in inside),
            outside_operators=sum(row.merged for row in inside if not row.delegated),
            outside_ms=sum(row.ms for row in inside if not row.delegated),
        )
        for kind, inside in members.items()
        if inside
    ]
    between = latency_ms - sum(row.ms for row in rows)
    if between > 0:
        found.append(WorkTime(kind=BETWEEN, operators=0, ms=between, outside_operators=0, outside_ms=0.0))
    return tuple(found)
