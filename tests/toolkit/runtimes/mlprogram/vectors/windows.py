"""Convolution and pooling: expectations by loops over every output element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

RNG = np.random.default_rng(5)


def normal(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def padded(x: Any, pads: Sequence[int], value: float = 0.0) -> Any:
    pairs = [(0, 0), (0, 0), *((pads[2 * i], pads[2 * i + 1]) for i in range(len(pads) // 2))]
    return np.pad(x.astype(np.float64), pairs, constant_values=value)


def convolved(x: Any, w: Any, b: Any, strides: Any, pads: Any, dilations: Any, groups: int) -> Any:
    x = padded(x, pads)
    kernel = w.shape[2:]
    extents = [
        (n - (k - 1) * d - 1) // s + 1 for n, k, d, s in zip(x.shape[2:], kernel, dilations, strides, strict=True)
    ]
    result = np.zeros((x.shape[0], w.shape[0], *extents))
    per_in, per_out = x.shape[1] // groups, w.shape[0] // groups
    for n, o, *at in np.ndindex(*result.shape):
        for c, *tap in np.ndindex(per_in, *kernel):
            position = [a * s + t * d for a, s, t, d in zip(at, strides, tap, dilations, strict=True)]
            result[(n, o, *at)] += x[(n, o // per_out * per_in + c, *position)] * w[(o, c, *tap)]
    return result + np.reshape(b, (1, -1, *[1] * len(extents)))


def transposed(x: Any, w: Any, b: Any, strides: Any, pads: Any, dilations: Any, groups: int) -> Any:
    full = [
        (n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(x.shape[2:], strides, w.shape[2:], dilations, strict=True)
    ]
    per_in, per_out = x.shape[1] // groups, w.shape[1]
    result = np.zeros((x.shape[0], per_out * groups, *full))
    for n, c, *at in np.ndindex(*x.shape):
        for o, *tap in np.ndindex(per_out, *w.shape[2:]):
            position = [a * s + t * d for a, s, t, d in zip(at, strides, tap, dilations, strict=True)]
            result[(n, c // per_in * per_out + o, *position)] += float(x[(n, c, *at)]) * w[(c, o, *tap)]
    cut = tuple(slice(pads[2 * i], n - pads[2 * i + 1]) for i, n in enumerate(full))
    return result[(slice(None), slice(None), *cut)] + np.reshape(b, (1, -1, *[1] * len(full)))


def conv(
    shape: Any, weight: Any, strides: Any, pad_type: str, pads: Any, dilations: Any = None, groups: int = 1
) -> Any:
    x, w, b = normal(*shape), normal(*weight), normal(weight[0])
    dilations = dilations or [1] * (len(shape) - 2)
    expected = convolved(x, w, b, strides, pads, dilations, groups)
    parameters = {"pad": pads} if pad_type == "custom" else {}

    def build(mb: Any, x: Any) -> Any:
        return mb.conv(
            x=x, weight=w, bias=b, strides=strides, pad_type=pad_type, dilations=dilations, groups=groups, **parameters
        )

    return "conv", [x], build, expected


def conv_transpose(shape: Any, weight: Any, strides: Any, pad_type: str, pads: Any, groups: int = 1) -> Any:
    x, w, b = normal(*shape), normal(*weight), normal(weight[1] * groups)
    ones = [1] * len(strides)
    parameters = {"pad": pads} if pad_type == "custom" else {}

    def build(mb: Any, x: Any) -> Any:
        return mb.conv_transpose(
            x=x, weight=w, bias=b, strides=strides, pad_type=pad_type, dilations=ones, groups=groups, **parameters
        )

    return "conv_transpose", [x], build, transposed(x, w, b, strides, pads, ones, groups)


def pool(
    kind: str,
    shape: Any,
    kernel: Any,
    strides: Any,
    pad_type: str,
    pads: Any,
    reduce: Callable[[Any], float],
    value: float = 0.0,
    **parameters: Any,
) -> Any:
    x = normal(*shape)
    big = padded(x, pads, value)
    extents = [(n - k) // s + 1 for n, k, s in zip(big.shape[2:], kernel, strides, strict=True)]
    expected = np.zeros((*shape[:2], *extents))
    for n, c, *at in np.ndindex(*expected.shape):
        window = tuple(slice(a * s, a * s + k) for a, s, k in zip(at, strides, kernel, strict=True))
        expected[(n, c, *at)] = reduce(big[(n, c, *window)])
    if pad_type == "custom":
        parameters["pad"] = pads

    def build(mb: Any, x: Any) -> Any:
        return getattr(mb, kind)(x=x, kernel_sizes=kernel, strides=strides, pad_type=pad_type, **parameters)

    return kind, [x], build, expected


def dynamic_weight() -> Any:
    x, w = normal(1, 2, 5, 5), normal(3, 2, 3, 3)
    expected = convolved(x, w, np.zeros(3), [1, 1], [0] * 4, [1, 1], 1)
    return "conv", [x, w], lambda mb, x, w: mb.conv(x=x, weight=w), expected


def ceil_mode() -> Any:
    x = np.arange(1.0, 6.0, dtype=np.float32).reshape(1, 1, 5)

    def build(mb: Any, x: Any) -> Any:
        options = {"kernel_sizes": [2], "strides": [2], "pad_type": "valid", "ceil_mode": True}
        return mb.max_pool(x=x, **options), mb.avg_pool(x=x, **options)

    # The last window holds the 5 alone; like PyTorch, the average divides by the part inside.
    return "max_pool", [x], build, [np.array([[[2.0, 4.0, 5.0]]]), np.array([[[1.5, 3.5, 5.0]]])]


CASES: list[Any] = [
    conv((1, 4, 6), (6, 4, 3), [1], "valid", [0, 0]),
    conv((2, 3, 7, 6), (4, 3, 3, 3), [2, 2], "custom", [1, 1, 1, 1]),
    conv((1, 4, 7, 6), (4, 1, 3, 3), [1, 1], "custom", [1, 0, 0, 2], groups=4),
    conv((1, 4, 9, 9), (6, 2, 3, 3), [1, 2], "custom", [2, 2, 2, 2], [2, 2], groups=2),
    conv((1, 2, 7, 8), (3, 2, 3, 3), [2, 2], "same", [1, 1, 0, 1]),
    conv((1, 2, 7, 8), (3, 2, 3, 3), [2, 2], "same_lower", [1, 1, 1, 0]),
    conv((1, 2, 6, 6), (3, 2, 2, 2), [1, 1], "same", [0, 1, 0, 1]),
    conv((1, 2, 4, 5, 5), (3, 2, 3, 3, 3), [1, 2, 1], "custom", [1, 1, 1, 1, 0, 0]),
    conv((2, 6, 3, 4), (4, 3, 1, 1), [1, 1], "valid", [0, 0, 0, 0], groups=2),
    dynamic_weight(),
    conv_transpose((1, 3, 4), (3, 2, 3), [2], "valid", [0, 0]),
    conv_transpose((1, 4, 3, 4), (4, 2, 4, 4), [2, 2], "custom", [1, 1, 0, 1], groups=2),
    conv_transpose((1, 2, 3, 3), (2, 3, 3, 3), [2, 2], "same", [0, 1, 0, 1]),
    pool("max_pool", (1, 2, 7), [3], [2], "valid", [0, 0], np.max),
    pool("max_pool", (1, 2, 6, 7), [3, 3], [2, 2], "custom", [1, 1, 1, 1], np.max, -np.inf),
    pool("max_pool", (1, 2, 6, 6), [3, 3], [2, 2], "same", [0, 1, 0, 1], np.max, -np.inf),
    pool("max_pool", (1, 1, 4, 4, 4), [2, 2, 2], [2, 2, 2], "valid", [0] * 6, np.max),
    pool("avg_pool", (1, 2, 6, 7), [3, 3], [1, 2], "custom", [1, 1, 1, 1], np.mean),
    pool("avg_pool", (1, 2, 6, 6), [3, 3], [2, 2], "same", [0, 1, 0, 1], np.mean),
    pool(
        "avg_pool",
        (1, 2, 6, 6),
        [3, 3],
        [2, 2],
        "same",
        [0, 1, 0, 1],
        np.nanmean,
        np.nan,
        exclude_padding_from_average=True,
    ),
    pool(
        "avg_pool",
        (1, 2, 6, 7),
        [3, 3],
        [2, 2],
        "custom",
        [1, 1, 1, 1],
        np.nanmean,
        np.nan,
        exclude_padding_from_average=True,
    ),
    pool("avg_pool", (1, 1, 4, 5, 5), [2, 3, 3], [1, 1, 1], "valid", [0] * 6, np.mean),
    pool("l2_pool", (1, 2, 6, 7), [3, 2], [2, 1], "custom", [1, 0, 0, 1], lambda w: float(np.sqrt((w**2).sum()))),
    ceil_mode(),
]
