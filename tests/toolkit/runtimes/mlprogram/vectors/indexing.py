"""Gathering, scattering and resizing: expectations by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
DATA = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)
UPDATES = np.array([[5.0, 6.0, 7.0], [8.0, 9.0, 10.0]], np.float32)
RAMP = np.array([[[0.0, 1.0], [2.0, 3.0]]], np.float32)  # (1, 2, 2)


def scattered(mode: str, expected: Any) -> Any:
    def build(mb: Any, data: Any, updates: Any) -> Any:
        return mb.scatter(
            data=data, indices=np.array([1, 0], np.int32), updates=updates, axis=0, mode=mode, validate_indices=False
        )

    return "scatter", [DATA, UPDATES], build, np.array(expected)


def widened(points: list[float]) -> Any:
    """Sample the ramp at the same points of both axes: its value is 2 * row + column."""
    return np.array([[[2 * row + column for column in points] for row in points]])


CASES: list[Any] = [
    (
        "gather",
        [X, np.array([2, -3], np.int32)],
        lambda mb, x, i: (mb.gather(x=x, indices=i, axis=1), mb.gather(x=x, indices=np.int32(1), axis=0)),
        [np.array([[3, 1], [6, 4]]), np.array([4, 5, 6])],
    ),
    (
        "gather",
        [X, np.array([[2, 0], [1, 1]], np.int32)],
        lambda mb, x, i: mb.gather(x=x, indices=mb.cast(x=i, dtype="uint16"), axis=1, batch_dims=1),
        np.array([[3, 1], [5, 5]]),
    ),
    (
        "gather_along_axis",
        [X, np.array([[1, 0, -1]], np.int32)],
        lambda mb, x, i: mb.gather_along_axis(x=x, indices=i, axis=0),
        np.array([[4, 2, 6]]),
    ),
    (
        "gather_nd",
        [X, np.array([[1, 0], [0, -1]], np.int32)],
        lambda mb, x, i: (
            mb.gather_nd(x=x, indices=i),
            mb.gather_nd(x=x, indices=mb.slice_by_size(x=i, begin=[0, 0], size=[2, 1]), batch_dims=1),
        ),
        [np.array([4, 3]), np.array([2, 4])],
    ),
    (
        "one_hot",
        [np.array([2, 0], np.int32)],
        lambda mb, i: (
            mb.one_hot(indices=i, one_hot_vector_size=3),
            mb.one_hot(indices=i, one_hot_vector_size=3, axis=0, on_value=5.0, off_value=-1.0),
        ),
        [np.array([[0, 0, 1], [1, 0, 0]]), np.array([[-1, 5], [-1, -1], [5, -1]])],
    ),
    scattered("update", [[8, 9, 10], [5, 6, 7]]),
    scattered("add", [[9, 11, 13], [9, 11, 13]]),
    scattered("sub", [[-7, -7, -7], [-1, -1, -1]]),
    scattered("mul", [[8, 18, 30], [20, 30, 42]]),
    scattered("div", [[1 / 8, 2 / 9, 3 / 10], [4 / 5, 5 / 6, 6 / 7]]),
    scattered("max", [[8, 9, 10], [5, 6, 7]]),
    scattered("min", [[1, 2, 3], [4, 5, 6]]),
    (
        "scatter_along_axis",
        [DATA, np.array([[0, 1, 0], [0, 0, 0]], np.int32), UPDATES],
        lambda mb, d, i, u: mb.scatter_along_axis(
            data=d, indices=i, updates=u, axis=0, mode="add", validate_indices=False
        ),
        np.array([[14, 11, 20], [4, 11, 6]]),
    ),
    (
        "scatter_nd",
        [DATA, np.array([[0, 2], [1, -3]], np.int32), np.array([7.0, 8.0], np.float32)],
        lambda mb, d, i, u: mb.scatter_nd(data=d, indices=i, updates=u, mode="update", validate_indices=False),
        np.array([[1, 2, 7], [8, 5, 6]]),
    ),
    (
        "upsample_bilinear",
        [RAMP],
        lambda mb, x: (
            mb.upsample_bilinear(x=x, scale_factor_height=2, scale_factor_width=2, align_corners=True),
            mb.upsample_bilinear(x=x, scale_factor_height=2.0, scale_factor_width=2.0, align_corners=False),
        ),
        [widened([0, 1 / 3, 2 / 3, 1]), widened([0, 0.25, 0.75, 1])],
    ),
    (
        "resize_bilinear",
        [RAMP],
        lambda mb, x: tuple(
            mb.resize_bilinear(x=x, target_size_height=5, target_size_width=5, sampling_mode=mode)
            for mode in ("UNALIGN_CORNERS", "STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS")
        ),
        # The documented grids for two elements and five samples.
        [
            widened([0.0, 0.1, 0.5, 0.9, 1.0]),
            widened([0.0, 0.25, 0.5, 0.75, 1.0]),
            widened([0.0, 0.25, 0.5, 0.75, 1.0]),
            widened([0.0, 0.4, 0.8, 1.0, 1.0]),
            widened([0.1, 0.3, 0.5, 0.7, 0.9]),
        ],
    ),
    (
        "upsample_nearest_neighbor",
        [RAMP],
        lambda mb, x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=3),
        np.array([[[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, 3, 3, 3]] * 2]).reshape(1, 4, 6),
    ),
    (
        "resize_nearest_neighbor",
        [RAMP],
        lambda mb, x: mb.resize_nearest_neighbor(x=x, target_size_height=2, target_size_width=4),
        np.array([[[0, 0, 1, 1], [2, 2, 3, 3]]]),
    ),
    (
        "resize",
        [RAMP],
        lambda mb, x: (
            mb.resize(x=x, shape=[5, 0], resized_dims=np.uint32(2), sampling_mode="DEFAULT"),
            mb.resize(x=x, shape=[1, 4, 2], resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR"),
        ),
        [
            np.array([[[0, 1], [0.8, 1.8], [1.6, 2.6], [2, 3], [2, 3]]]),
            np.array([[[0, 1], [0, 1], [2, 3], [2, 3]]]),
        ],
    ),
]
