"""Which operator of a `.tflite` each operator that XNNPACK timed comes from.

XNNPACK keeps the order and renames: a 1x1 convolution is a `Fully Connected`, two operators on int8 that became one table are an
`Invalid Unary Op`. Some operators vanish, some become several. Aligned is what fits best, in order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ANY_UNARY = "Unary Op"
FUSED = "Clamp"
"""An activation that TFLite fused into the operator before it, where XNNPACK has no fused form."""
MOVES = ("Copy (", "Static Reshape", "Reshape", "Slice", "Concat", "Split", "Expand Dims", "Fuse Dims")
NAMES: dict[str, tuple[str, ...]] = {
    "ADD": ("Add (", ANY_UNARY, FUSED),
    "AVERAGE_POOL_2D": ("Average Pooling", "Global Average"),
    "BATCH_MATMUL": ("Batch Matrix Multiply",),
    "CONCATENATION": MOVES,
    "CONV_2D": ("Convolution (", "Fully Connected"),
    "DEPTHWISE_CONV_2D": ("DWConv", "Convolution ("),
    "DEQUANTIZE": ("Convert",),
    "DIV": ("Divide", FUSED),
    "EXPAND_DIMS": MOVES,
    "FULLY_CONNECTED": ("Fully Connected", "Static Reshape"),
    "HARD_SWISH": ("HardSwish", ANY_UNARY),
    "LOGISTIC": ("Sigmoid", ANY_UNARY),
    "MAX_POOL_2D": ("Max Pooling",),
    "MAXIMUM": ("Maximum", "Clamp", ANY_UNARY),
    "MEAN": ("Mean", "Global Average", "Reduce", "Static Reshape"),
    "MINIMUM": ("Minimum", "Clamp", ANY_UNARY),
    "MUL": ("Multiply (", ANY_UNARY, FUSED),
    "PAD": ("Pad",),
    "PADV2": ("Pad",),
    "QUANTIZE": ("Convert",),
    "RELU": ("Clamp", ANY_UNARY),
    "RELU6": ("Clamp", ANY_UNARY),
    "RELU_N1_TO_1": ("Clamp", ANY_UNARY),
    "RESHAPE": MOVES,
    "RESIZE_BILINEAR": ("Resize",),
    "RSQRT": ("Reciprocal Square Root", "Rsqrt", ANY_UNARY),
    "SLICE": MOVES,
    "SOFTMAX": ("Softmax",),
    "SPLIT": MOVES,
    "SQUARED_DIFFERENCE": ("Squared Difference",),
    "SQUEEZE": MOVES,
    "STRIDED_SLICE": MOVES,
    "SUB": ("Subtract", ANY_UNARY, FUSED),
    "SUM": ("Sum", "Reduce"),
    "TRANSPOSE": ("Transpose",),
    "TRANSPOSE_CONV": ("Deconvolution",),
}
"""Parts of XNNPACK's names for the operators of a file (`xnnpack/operator-type-defs.inc`)."""
VANISHED, AGAIN, ALONE = 1.0, 0.6, 5.0
"""Costs: a written operator that was not timed, a further timed one of the same operator, a timed one that belongs to none."""


def align(written: Sequence[str], timed: Sequence[str], delegated: Sequence[bool]) -> list[int | None]:
    """The written operator of each timed one.

    Args:
        written: Kinds of the file's operators, in order.
        timed: Names of the operators that ran, in order.
        delegated: Of those; one that is not has TFLite's name.

    Returns:
        Index into `written`, None for an operator that fits none in order.
    """
    rows, columns = len(written), len(timed)
    # (row, column, 0): written[:row] and timed[:column] are dealt with; 1: and the last row has an operator and may take more.
    cost = np.full((rows + 1, columns + 1, 2), np.inf)
    step = np.zeros((rows + 1, columns + 1, 2), np.int8)
    cost[0, 0, 0] = 0.0
    fits = [[_fits(kind, name, inside) for name, inside in zip(timed, delegated, strict=True)] for kind in written]
    for row in range(rows + 1):
        for column in range(columns + 1):
            options = _options(cost, fits, row, column)
            for kept, choices in enumerate(options):
                if choices:
                    cost[row, column, kept], step[row, column, kept] = min(choices)
    return _back(cost, step, rows, columns)


FREE, TAKE, MORE, SKIP, LEAVE = range(5)


def _options(
    cost: np.ndarray, fits: Sequence[Sequence[bool]], row: int, column: int
) -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
    """Ways to each of the two states of a cell, with their costs."""
    plain: list[tuple[float, int]] = []
    taking: list[tuple[float, int]] = []
    if row == column == 0:
        plain.append((0.0, FREE))
    if row and column and fits[row - 1][column - 1]:
        taking.append((float(min(cost[row - 1, column - 1])), TAKE))
        taking.append((float(cost[row, column - 1, 1]) + AGAIN, MORE))
    if row:
        plain.append((float(min(cost[row - 1, column])) + VANISHED, SKIP))
    if column:
        plain.append((float(min(cost[row, column - 1])) + ALONE, LEAVE))
    return plain, taking


def _back(cost: np.ndarray, step: np.ndarray, rows: int, columns: int) -> list[int | None]:
    found: list[int | None] = [None] * columns
    row, column = rows, columns
    kept = int(np.argmin(cost[row, column]))
    while row or column:
        move = int(step[row, column, kept])
        if move in (TAKE, MORE):
            found[column - 1] = row - 1
        row -= move in (TAKE, SKIP)
        column -= move in (TAKE, MORE, LEAVE)
        kept = 1 if move == MORE else int(np.argmin(cost[row, column]))
    return found


def _fits(kind: str, name: str, delegated: bool) -> bool:
    if not delegated:
        return name == kind
    parts = NAMES.get(kind)
    if parts is None:
        return kind.replace("_", "").lower() in name.replace(" ", "").lower()
    return any(part in name for part in parts)
