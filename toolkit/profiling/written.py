"""Operators as a file holds them, the same for every format: what they read, make, compute and weigh."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mvtool.ports import AnyArray, Precision


@dataclass(frozen=True)
class Weight:
    """The weight of an operator.

    Attributes:
        values: As real numbers, in the file's order of axes.
        step: Largest distance of neighbouring values that its type can hold; 0 for float.
    """

    values: AnyArray
    step: float


@dataclass(frozen=True)
class Written:
    """One operator of a file.

    Attributes:
        kind: Name in the format, for example `CONV_2D`.
        label: The same with what tells its cost, for example `CONV_2D 1x1`.
        reads: Tensors that it reads and that are no constants.
        writes: Tensors that it makes.
        shapes: Of the first input and of the result, as text.
        moved_bytes: Bytes of all that it reads and makes, constants included.
        macs: Multiply-adds; None for operators that do not multiply matrices.
        weight: Of convolutions and dense layers.
        arithmetic: What its kernel multiplies in, for those with `macs`.
        dtypes: Types of what it reads and makes.
    """

    kind: str
    label: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    shapes: str
    moved_bytes: int
    macs: int | None = None
    weight: Weight | None = None
    arithmetic: Precision | None = None
    dtypes: tuple[str, ...] = ()


@dataclass(frozen=True)
class WrittenGraph:
    """The operators of a file in order of execution.

    Attributes:
        operators: All of them.
        ports: Tensor of an input or output to the port's name.
    """

    operators: tuple[Written, ...]
    ports: Mapping[int, str]


def shape_text(source: Sequence[int], result: Sequence[int]) -> str:
    """Shapes for people.

    Example:
        >>> shape_text((1, 8, 8, 3), (1, 8))
        '1x8x8x3 -> 1x8'
    """
    return f"{'x'.join(map(str, source))} -> {'x'.join(map(str, result))}"


def convolution_macs(result: Sequence[int], kernel: Sequence[int], inputs_per_output: int) -> int:
    """Multiply-adds of a convolution.

    Args:
        result: Shape of what it makes.
        kernel: Height and width of the kernel.
        inputs_per_output: Channels that one output channel reads.

    Example:
        >>> convolution_macs((1, 4, 4, 8), (3, 3), 2)
        2304
    """
    return math.prod(result) * math.prod(kernel) * inputs_per_output
