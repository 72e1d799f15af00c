"""Shapes, slices and padding: expectations by hand or by numpy indexing of counted elements."""

from __future__ import annotations

from typing import Any

import numpy as np

M = np.arange(6, dtype=np.float32).reshape(2, 3)
N = M + 10
T = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
IMAGE = np.arange(16, dtype=np.float32).reshape(1, 4, 2, 2)
LINE = np.arange(5, dtype=np.float32)


def sliced(index: Any, **parameters: Any) -> Any:
    return "slice_by_index", [T], lambda mb, x: mb.slice_by_index(x=x, **parameters), T[index]


def shuffled() -> Any:
    result = np.zeros((1, 1, 4, 4))
    for c, i, j in np.ndindex(4, 2, 2):
        result[0, 0, 2 * i + c // 2, 2 * j + c % 2] = IMAGE[0, c, i, j]
    return result


CASES: list[Any] = [
    (
        "reshape",
        [T],
        lambda mb, x: (mb.reshape(x=x, shape=[4, 6]), mb.reshape(x=x, shape=[0, -1, 2])),
        [T.reshape(4, 6), T.reshape(2, 6, 2)],
    ),
    (
        "reshape_like",
        [T, M, N],
        lambda mb, x, a, b: mb.reshape_like(
            x=mb.slice_by_size(x=x, begin=[0, 0, 0], size=[2, 3, 3]),
            ref_tensors=(a, b),
            begins=(0, 1),
            ends=(2, 0),
            end_masks=(False, True),
        ),
        T[:, :, :3],
    ),
    ("transpose", [T], lambda mb, x: mb.transpose(x=x, perm=[2, 0, -2]), np.moveaxis(T, 2, 0)),
    (
        "expand_dims",
        [M],
        lambda mb, x: (mb.expand_dims(x=x, axes=[1]), mb.expand_dims(x=x, axes=[0, -1])),
        [M[:, None], M[None, :, :, None]],
    ),
    (
        "squeeze",
        [M.reshape(1, 2, 1, 3)],
        lambda mb, x: (mb.squeeze(x=x, axes=[0]), mb.squeeze(x=x, axes=[0, -2])),
        [M.reshape(2, 1, 3), M],
    ),
    ("flatten2d", [T], lambda mb, x: mb.flatten2d(x=x, axis=-1), T.reshape(6, 4)),
    ("shape", [T], lambda mb, x: mb.shape(x=x), np.array([2, 3, 4])),
    (
        "concat",
        [M, N],
        lambda mb, a, b: (mb.concat(values=(a, b), axis=1), mb.concat(values=(a, b), axis=0, interleave=True)),
        [
            np.array([[0, 1, 2, 10, 11, 12], [3, 4, 5, 13, 14, 15]]),
            np.array([[0, 1, 2], [10, 11, 12], [3, 4, 5], [13, 14, 15]]),
        ],
    ),
    (
        "stack",
        [M, N],
        lambda mb, a, b: mb.stack(values=(a, b), axis=-1),
        np.array([[[0, 10], [1, 11], [2, 12]], [[3, 13], [4, 14], [5, 15]]]),
    ),
    (
        "split",
        [T],
        lambda mb, x: (*mb.split(x=x, num_splits=2, axis=-1), *mb.split(x=x, split_sizes=[1, 2], axis=1)),
        [T[..., :2], T[..., 2:], T[:, :1], T[:, 1:]],
    ),
    ("tile", [M], lambda mb, x: mb.tile(x=x, reps=[2, 1]), np.array([[0, 1, 2], [3, 4, 5], [0, 1, 2], [3, 4, 5]])),
    (
        "reverse",
        [M],
        lambda mb, x: (mb.reverse(x=x, axes=[1]), mb.reverse(x=x)),
        [np.array([[2, 1, 0], [5, 4, 3]]), np.array([[5, 4, 3], [2, 1, 0]])],
    ),
    (
        "pad",
        [LINE, M],
        lambda mb, x, m: (
            mb.pad(x=x, pad=[2, 3], mode="reflect"),
            mb.pad(x=x, pad=[2, 3], mode="replicate"),
            mb.pad(x=m, pad=[1, 0], mode="constant", constant_val=7.0),
            mb.pad(x=m, pad=[1, 0, 0, 1], mode="constant"),
        ),
        [
            np.array([2, 1, 0, 1, 2, 3, 4, 3, 2, 1]),
            np.array([0, 0, 0, 1, 2, 3, 4, 4, 4, 4]),
            np.array([[7, 0, 1, 2], [7, 3, 4, 5]]),
            np.array([[0, 0, 0, 0], [0, 1, 2, 0], [3, 4, 5, 0]]),
        ],
    ),
    ("fill", [], lambda mb: mb.fill(shape=[2, 2], value=1.5), np.array([[1.5, 1.5], [1.5, 1.5]])),
    ("fill_like", [M], lambda mb, x: mb.fill_like(ref_tensor=x, value=-2.0), np.full((2, 3), -2.0)),
    ("range_1d", [], lambda mb: mb.range_1d(start=7, end=0, step=-3), np.array([7, 4, 1])),
    ("pixel_shuffle", [IMAGE], lambda mb, x: mb.pixel_shuffle(x=x, upscale_factor=2), shuffled()),
    (
        "pixel_unshuffle",
        [shuffled().astype(np.float32)],
        lambda mb, x: mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(2)),
        IMAGE,
    ),
    sliced(np.s_[0:2, 1:3, 0:4:2], begin=[0, 1, 0], end=[2, 3, 4], stride=[1, 1, 2]),
    sliced(np.s_[:, -2:, 1:-1], begin=[0, -2, 1], end=[9, 0, -1], end_mask=[False, True, False]),
    sliced(
        np.s_[::-1, :, 3:0:-2],
        begin=[0, 0, 3],
        end=[0, 0, 0],
        stride=[-1, 1, -2],
        begin_mask=[True, True, False],
        end_mask=[True, True, False],
    ),
    sliced(
        np.s_[-1, :, 2],
        begin=[-1, 0, 2],
        end=[0, 0, 0],
        squeeze_mask=[True, False, True],
        end_mask=[False, True, False],
    ),
    (
        "slice_update",
        [M, np.array([[50.0], [60.0]], np.float32)],
        lambda mb, x, u: mb.slice_update(
            x=x, update=u, begin=[0, 1], end=[2, 2], stride=[-1, 1], begin_mask=[True, False], end_mask=[True, False]
        ),
        np.array([[0, 60, 2], [3, 50, 5]]),
    ),
    ("slice_by_size", [T], lambda mb, x: mb.slice_by_size(x=x, begin=[0, 1, -2], size=[1, -1, 2]), T[:1, 1:, 2:]),
    ("crop", [IMAGE], lambda mb, x: mb.crop(x=x, crop_height=[1, 0], crop_width=[0, 1]), IMAGE[:, :, 1:, :1]),
    (
        "sliding_windows",
        [LINE],
        lambda mb, x: mb.sliding_windows(x=x, axis=0, size=3, stride=2),
        np.array([[0, 1, 2], [2, 3, 4]]),
    ),
    (
        "band_part",
        [np.arange(1, 10, dtype=np.float32).reshape(3, 3)],
        lambda mb, x: (mb.band_part(x=x, lower=1, upper=0), mb.band_part(x=x, lower=0, upper=-1)),
        [np.array([[1, 0, 0], [4, 5, 0], [0, 8, 9]]), np.array([[1, 2, 3], [0, 5, 6], [0, 0, 9]])],
    ),
]
