"""Matrix products, normalization and recurrent layers: expectations by explicit sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

RNG = np.random.default_rng(6)


def normal(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def product(x: Any, y: Any) -> Any:
    result = np.zeros((x.shape[0], y.shape[1]))
    for i, j in np.ndindex(*result.shape):
        result[i, j] = sum(float(x[i, k]) * float(y[k, j]) for k in range(x.shape[1]))
    return result


X23, W43, B4 = normal(2, 3), normal(4, 3), normal(4)
BATCH, RIGHT = normal(2, 1, 4, 3), normal(3, 3, 5)


def batched(x: Any, y: Any) -> Any:
    return np.stack([np.stack([product(x[b, 0], y[c]) for c in range(3)]) for b in range(2)])


def contraction(x: Any, y: Any) -> Any:
    """`nchw,nwhu->nchu`."""
    n, c, h, w = x.shape
    result = np.zeros((n, c, h, y.shape[3]))
    for i, j, k, u in np.ndindex(*result.shape):
        result[i, j, k, u] = sum(float(x[i, j, k, v]) * float(y[i, v, k, u]) for v in range(w))
    return result


E1, E2 = normal(2, 3, 2, 4), normal(2, 4, 2, 5)
Q, K, V = normal(1, 2, 3, 4), normal(1, 2, 5, 4), normal(1, 2, 5, 6)
MASK = np.array([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]], np.int32)


def attended(mask: Any) -> Any:
    result = np.zeros((1, 2, 3, 6))
    for head, row in np.ndindex(2, 3):
        scores = [
            sum(float(a) * float(b) for a, b in zip(Q[0, head, row], K[0, head, j], strict=True)) for j in range(5)
        ]
        weights = [math.exp(s / 2) * float(mask[row, j]) for j, s in enumerate(scores)]
        for j in range(5):
            result[0, head, row] += weights[j] / sum(weights) * V[0, head, j]
    return result


IMAGE = normal(2, 3, 2, 4)
GAMMA, BETA, MEAN, VAR = normal(3), normal(3), normal(3), np.abs(normal(3))


def standardized(values: Any, epsilon: float) -> Any:
    values = values.astype(np.float64)
    mean = sum(values.reshape(-1)) / values.size
    variance = sum((values.reshape(-1) - mean) ** 2) / values.size
    return (values - mean) / math.sqrt(variance + epsilon)


def by_channel(function: Any) -> Any:
    return np.stack([np.stack([function(IMAGE[n, c].astype(np.float64), c) for c in range(3)]) for n in range(2)])


G24, B24 = normal(2, 4), normal(2, 4)
H, I = 2, 3
SEQ, H0, C0 = normal(4, 1, I), normal(1, H), normal(1, H)
W_IH3, W_HH3, BIAS3 = normal(3 * H, I), normal(3 * H, H), normal(3 * H)
W_IH4, W_HH4, BIAS4 = normal(4 * H, I), normal(4 * H, H), normal(4 * H)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def gru(order: list[int]) -> Any:
    h, states = H0[0].astype(np.float64), {}
    for time in order:
        a = W_IH3 @ SEQ[time, 0] + BIAS3
        r = sigmoid(a[:H] + W_HH3[:H] @ h)
        z = sigmoid(a[2 * H :] + W_HH3[2 * H :] @ h)
        o = np.tanh(a[H : 2 * H] + r * (W_HH3[H : 2 * H] @ h))
        h = (1 - z) * o + z * h
        states[time] = h
    return np.stack([states[t] for t in range(4)])[:, None], h[None]


def lstm() -> Any:
    h, c, states = H0[0].astype(np.float64), C0[0].astype(np.float64), []
    for time in range(4):
        i, f, o, z = np.split(W_IH4 @ SEQ[time, 0] + BIAS4 + W_HH4 @ h, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(z)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.stack(states)[:, None], h[None], c[None]


CASES: list[Any] = [
    ("linear", [X23], lambda mb, x: mb.linear(x=x, weight=W43, bias=B4), product(X23, W43.T) + B4),
    ("matmul", [BATCH, RIGHT], lambda mb, x, y: mb.matmul(x=x, y=y), batched(BATCH, RIGHT)),
    (
        "matmul",
        [X23, W43],
        lambda mb, x, y: (
            mb.matmul(x=x, y=y, transpose_y=True),
            mb.matmul(x=y, y=x, transpose_x=False, transpose_y=True),
            mb.matmul(x=x, y=x, transpose_x=True),
        ),
        [product(X23, W43.T), product(W43, X23.T), product(X23.T, X23)],
    ),
    ("einsum", [E1, E2], lambda mb, x, y: mb.einsum(values=(x, y), equation="nchw,nwhu->nchu"), contraction(E1, E2)),
    (
        "scaled_dot_product_attention",
        [Q, K, V, MASK],
        lambda mb, q, k, v, m: (
            mb.scaled_dot_product_attention(query=q, key=k, value=v),
            mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=mb.cast(x=m, dtype="bool")),
        ),
        [attended(np.ones_like(MASK)), attended(MASK)],
    ),
    (
        "batch_norm",
        [IMAGE],
        lambda mb, x: mb.batch_norm(x=x, mean=MEAN, variance=VAR, gamma=GAMMA, beta=BETA, epsilon=0.01),
        by_channel(lambda part, c: GAMMA[c] * (part - MEAN[c]) / math.sqrt(VAR[c] + 0.01) + BETA[c]),
    ),
    (
        "instance_norm",
        [IMAGE],
        lambda mb, x: mb.instance_norm(x=x, gamma=GAMMA, beta=BETA, epsilon=0.01),
        by_channel(lambda part, c: GAMMA[c] * standardized(part, 0.01) + BETA[c]),
    ),
    (
        "layer_norm",
        [IMAGE],
        lambda mb, x: mb.layer_norm(x=x, axes=[-2, -1], gamma=G24, beta=B24, epsilon=0.01),
        by_channel(lambda part, c: G24 * standardized(part, 0.01) + B24),
    ),
    (
        "layer_norm",
        [IMAGE],
        lambda mb, x: mb.layer_norm(x=x, axes=[1], gamma=GAMMA, beta=BETA, epsilon=0.01),
        np.stack(
            [
                np.stack(
                    [
                        np.stack([GAMMA * standardized(IMAGE[n, :, i, j], 0.01) + BETA for j in range(4)], -1)
                        for i in range(2)
                    ],
                    -2,
                )
                for n in range(2)
            ]
        ),
    ),
    (
        "l2_norm",
        [IMAGE],
        lambda mb, x: mb.l2_norm(x=x, epsilon=0.1),
        np.stack([IMAGE[n] / math.sqrt((IMAGE[n].astype(np.float64) ** 2).sum() + 0.1) for n in range(2)]),
    ),
    (
        "gru",
        [SEQ, H0],
        lambda mb, x, h: (
            *mb.gru(x=x, initial_h=h, weight_ih=W_IH3, weight_hh=W_HH3, bias=BIAS3, output_sequence=True),
            *mb.gru(
                x=x,
                initial_h=h,
                weight_ih=W_IH3,
                weight_hh=W_HH3,
                bias=BIAS3,
                output_sequence=True,
                direction="reverse",
            ),
        ),
        [*gru([0, 1, 2, 3]), *gru([3, 2, 1, 0])],
    ),
    (
        "lstm",
        [SEQ, H0, C0],
        lambda mb, x, h, c: (
            *mb.lstm(x=x, initial_h=h, initial_c=c, weight_ih=W_IH4, weight_hh=W_HH4, bias=BIAS4, output_sequence=True),
            mb.lstm(x=x, initial_h=h, initial_c=c, weight_ih=W_IH4, weight_hh=W_HH4, bias=BIAS4)[0],
        ),
        [*lstm(), lstm()[0][-1:]],
    ),
]
