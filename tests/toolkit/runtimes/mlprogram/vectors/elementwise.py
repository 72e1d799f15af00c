"""Elementwise operators: expectations by hand or by Python's `math`, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

A = np.array([[-2.5, -0.5, 0.0], [0.5, 1.5, 7.0]], np.float32)
B = np.array([[2.0, -0.5, 3.0], [-0.25, 1.5, 2.0]], np.float32)
ROW = np.array([1.0, 2.0, -4.0], np.float32)
I = np.array([-7, -1, 0, 5, 7], np.int32)
J = np.array([2, -3, 4, -2, 7], np.int32)


def each(function: Callable[..., Any], *arrays: Any) -> Any:
    return np.array([function(*values) for values in zip(*(a.reshape(-1).tolist() for a in arrays), strict=True)])


def unary(kind: str, function: Callable[[float], float], values: list[float], **parameters: Any) -> Any:
    x = np.array(values, np.float32)
    expected = each(function, x).astype(np.float32)
    return kind, [x], lambda mb, x: getattr(mb, kind)(x=x, **parameters), expected


def binary(kind: str, x: Any, y: Any, expected: Any) -> Any:
    return kind, [x, y], lambda mb, x, y: getattr(mb, kind)(x=x, y=y), np.array(expected)


def logical(kind: str, expected: list[int]) -> Any:
    x, y = np.array([0, 0, 1, 1], np.int32), np.array([0, 1, 0, 1], np.int32)

    def build(mb: Any, x: Any, y: Any) -> Any:
        return getattr(mb, kind)(x=mb.cast(x=x, dtype="bool"), y=mb.cast(x=y, dtype="bool"))

    return kind, [x, y], build, np.array(expected)


CASES: list[Any] = [
    binary("add", A, B, [[-0.5, -1.0, 3.0], [0.25, 3.0, 9.0]]),
    binary("add", A, ROW, [[-1.5, 1.5, -4.0], [1.5, 3.5, 3.0]]),
    binary("add", np.array([2147483647], np.int32), np.array([1], np.int32), [-2147483648]),
    binary("sub", A, B, [[-4.5, 0.0, -3.0], [0.75, 0.0, 5.0]]),
    binary("sub", I, J, [-9, 2, -4, 7, 0]),
    binary("mul", A, B, [[-5.0, 0.25, 0.0], [-0.125, 2.25, 14.0]]),
    binary("real_div", A, B, [[-1.25, 1.0, 0.0], [-2.0, 1.0, 3.5]]),
    binary("floor_div", A, B, [[-2.0, 1.0, 0.0], [-2.0, 1.0, 3.0]]),
    binary("floor_div", I, J, [-4, 0, 0, -3, 1]),
    binary("mod", I, J, [1, -1, 0, -1, 0]),
    binary("mod", np.array([-2.5, 5.5], np.float32), np.array([2.0, -2.0], np.float32), [1.5, -0.5]),
    binary("pow", np.array([2.0, 9.0, 4.0], np.float32), np.array([3.0, 0.5, -1.0], np.float32), [8.0, 3.0, 0.25]),
    binary("maximum", A, B, [[2.0, -0.5, 3.0], [0.5, 1.5, 7.0]]),
    binary("minimum", A, B, [[-2.5, -0.5, 0.0], [-0.25, 1.5, 2.0]]),
    binary("equal", A, B, [[0, 1, 0], [0, 1, 0]]),
    binary("not_equal", A, B, [[1, 0, 1], [1, 0, 1]]),
    binary("less", A, B, [[1, 0, 1], [0, 0, 0]]),
    binary("less_equal", A, B, [[1, 1, 1], [0, 1, 0]]),
    binary("greater", A, B, [[0, 0, 0], [1, 0, 1]]),
    binary("greater_equal", A, B, [[0, 1, 0], [1, 1, 1]]),
    logical("logical_and", [0, 0, 0, 1]),
    logical("logical_or", [0, 1, 1, 1]),
    logical("logical_xor", [0, 1, 1, 0]),
    (
        "logical_not",
        [np.array([0, 1], np.int32)],
        lambda mb, x: mb.logical_not(x=mb.cast(x=x, dtype="bool")),
        np.array([1, 0]),
    ),
    (
        "select",
        [
            np.array([1, 0, 1], np.int32),
            np.array([1.0, 2.0, 3.0], np.float32),
            np.array([-1.0, -2.0, -3.0], np.float32),
        ],
        lambda mb, c, a, b: mb.select(cond=mb.cast(x=c, dtype="bool"), a=a, b=b),
        np.array([1.0, -2.0, 3.0]),
    ),
    ("abs", [A], lambda mb, x: mb.abs(x=x), np.array([[2.5, 0.5, 0.0], [0.5, 1.5, 7.0]])),
    ("abs", [I], lambda mb, x: mb.abs(x=x), np.array([7, 1, 0, 5, 7])),
    ("ceil", [A], lambda mb, x: mb.ceil(x=x), np.array([[-2.0, 0.0, 0.0], [1.0, 2.0, 7.0]])),
    ("floor", [A], lambda mb, x: mb.floor(x=x), np.array([[-3.0, -1.0, 0.0], [0.0, 1.0, 7.0]])),
    ("round", [A], lambda mb, x: mb.round(x=x), np.array([[-2.0, 0.0, 0.0], [0.0, 2.0, 7.0]])),
    ("sign", [A], lambda mb, x: mb.sign(x=x), np.array([[-1.0, -1.0, 0.0], [1.0, 1.0, 1.0]])),
    ("identity", [A], lambda mb, x: mb.identity(x=x), A),
    ("clip", [A], lambda mb, x: mb.clip(x=x, alpha=-1.0, beta=1.0), np.array([[-1.0, -0.5, 0.0], [0.5, 1.0, 1.0]])),
    ("threshold", [A], lambda mb, x: mb.threshold(x=x, alpha=0.25), np.array([[0.25, 0.25, 0.25], [0.5, 1.5, 7.0]])),
    unary("acos", math.acos, [-1.0, -0.3, 0.0, 0.9]),
    unary("asin", math.asin, [-1.0, -0.3, 0.0, 0.9]),
    unary("atan", math.atan, [-10.0, -0.3, 0.0, 2.0]),
    unary("atanh", math.atanh, [-0.9, -0.3, 0.0, 0.5]),
    unary("cos", math.cos, [-3.0, 0.0, 1.0]),
    unary("cosh", math.cosh, [-3.0, 0.0, 1.0]),
    unary("erf", math.erf, [-2.0, -0.1, 0.0, 0.7]),
    unary("exp", math.exp, [-5.0, 0.0, 1.0]),
    unary("exp2", lambda x: 2.0**x, [-5.0, 0.0, 0.5]),
    unary("sin", math.sin, [-3.0, 0.0, 1.0]),
    unary("sinh", math.sinh, [-3.0, 0.0, 1.0]),
    unary("sqrt", math.sqrt, [0.0, 0.25, 2.0]),
    unary("square", lambda x: x * x, [-3.0, 0.0, 1.5]),
    unary("tan", math.tan, [-1.0, 0.0, 0.5]),
    unary("tanh", math.tanh, [-1.0, 0.0, 0.5]),
    unary("inverse", lambda x: 1 / (x + 0.5), [-1.0, 0.0, 1.5], epsilon=0.5),
    unary("inverse", lambda x: 1 / (x + 1e-4), [0.01, 4.0]),
    unary("log", lambda x: math.log(x + 0.5), [0.0, 1.5], epsilon=0.5),
    unary("rsqrt", lambda x: 1 / math.sqrt(x + 0.25), [0.0, 2.0], epsilon=0.25),
    (
        "cast",
        [np.array([-2.7, -0.5, 0.0, 2.9], np.float32)],
        lambda mb, x: mb.cast(x=x, dtype="int32"),
        np.array([-2, 0, 0, 2]),
    ),
    ("cast", [np.array([0, -3], np.int32)], lambda mb, x: mb.cast(x=x, dtype="bool"), np.array([0, 1])),
    ("cast", [np.array([7], np.int32)], lambda mb, x: mb.cast(x=x, dtype="fp32"), np.array([7.0])),
    # 1/3 in fp16 is 1365 / 4096.
    ("cast", [np.array([1 / 3], np.float32)], lambda mb, x: mb.cast(x=x, dtype="fp16"), np.array([1365 / 4096])),
    (
        "cast",
        [np.array([300, -1, 65537], np.int32)],
        lambda mb, x: (mb.cast(x=x, dtype="uint8"), mb.cast(x=x, dtype="int8"), mb.cast(x=x, dtype="uint16")),
        [np.array([44, 255, 1]), np.array([44, -1, 1]), np.array([300, 65535, 1])],
    ),
]
