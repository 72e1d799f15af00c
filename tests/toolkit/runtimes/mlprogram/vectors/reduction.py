"""Reductions, sorting and running sums: expectations by hand or by Python's `math`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

X = np.array([[1.0, 4.0, 2.0], [3.0, 0.5, 2.0]], np.float32)


def reduce(kind: str, function: Callable[[list[float]], float]) -> Any:
    rows = np.array([function(row) for row in X.tolist()])
    columns = np.array([[function(column) for column in X.T.tolist()]])
    everything = np.array(function(X.reshape(-1).tolist()))

    def build(mb: Any, x: Any) -> Any:
        make = getattr(mb, kind)
        return make(x=x, axes=[-1]), make(x=x, axes=[0], keep_dims=True), make(x=x, keep_dims=False)

    return kind, [X], build, [rows, columns, everything]


def norm(values: list[float]) -> float:
    return math.sqrt(sum(v * v for v in values))


TIES = np.array([3.0, 1.0, 3.0, 2.0], np.float32)

CASES: list[Any] = [
    reduce("reduce_sum", sum),
    reduce("reduce_mean", lambda v: sum(v) / len(v)),
    reduce("reduce_max", max),
    reduce("reduce_min", min),
    reduce("reduce_prod", math.prod),
    reduce("reduce_sum_square", lambda v: sum(x * x for x in v)),
    reduce("reduce_l1_norm", lambda v: sum(abs(x) for x in v)),
    reduce("reduce_l2_norm", norm),
    reduce("reduce_log_sum", lambda v: math.log(sum(v))),
    reduce("reduce_log_sum_exp", lambda v: math.log(sum(math.exp(x) for x in v))),
    (
        "reduce_sum",
        [np.array([[1, -2], [3, 4]], np.int32)],
        lambda mb, x: mb.reduce_sum(x=x, axes=[0]),
        np.array([4, 2]),
    ),
    (
        "reduce_argmax",
        [X, TIES],
        lambda mb, x, t: (mb.reduce_argmax(x=x, axis=1), mb.reduce_argmax(x=t, axis=0, keep_dims=True)),
        [np.array([1, 0]), np.array([0])],
    ),
    ("reduce_argmin", [X], lambda mb, x: mb.reduce_argmin(x=x, axis=0, keep_dims=True), np.array([[0, 1, 0]])),
    (
        "topk",
        [X],
        lambda mb, x: (*mb.topk(x=x, k=2, axis=1), *mb.topk(x=x, k=1, axis=0, ascending=True)),
        [
            np.array([[4.0, 2.0], [3.0, 2.0]]),
            np.array([[1, 2], [0, 2]]),
            np.array([[1.0, 0.5, 2.0]]),
            np.array([[0, 1, 0]]),
        ],
    ),
    ("topk", [TIES], lambda mb, x: mb.topk(x=x, k=4, axis=0, output_indices_dtype="uint16")[1], np.array([0, 2, 3, 1])),
    (
        "argsort",
        [TIES],
        lambda mb, x: (mb.argsort(x=x, axis=0, ascending=True), mb.argsort(x=x, axis=0)),
        [np.array([1, 3, 0, 2]), np.array([0, 2, 3, 1])],
    ),
    (
        "cumsum",
        [X],
        lambda mb, x: (
            mb.cumsum(x=x, axis=1),
            mb.cumsum(x=x, axis=1, exclusive=True),
            mb.cumsum(x=x, axis=1, reverse=True),
            mb.cumsum(x=x, axis=1, exclusive=True, reverse=True),
        ),
        [
            np.array([[1.0, 5.0, 7.0], [3.0, 3.5, 5.5]]),
            np.array([[0.0, 1.0, 5.0], [0.0, 3.0, 3.5]]),
            np.array([[7.0, 6.0, 2.0], [5.5, 2.5, 2.0]]),
            np.array([[6.0, 2.0, 0.0], [2.5, 2.0, 0.0]]),
        ],
    ),
]
