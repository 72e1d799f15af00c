r"""Sinusoidal positional encoding of the frame number, without sine, cosine, integers or look-ups.

For frame p = 0, 1, ... and a layer of width C (even), with i = 0 .. C/2 - 1:

    angle_i = p / 10000**(2 i / C);    vector = concat[sin(angle), cos(angle)]      two halves, not interleaved

Mobile runtimes delegate no SIN, COS, CAST or GATHER, and rotating a stored (sin, cos) pair by a constant
drifts: the rounded constant alone turns it by up to 6e-8 per frame. Here the vector is a function of the
float32 frame counter, evaluated with mul, add, floor and abs only, once per model for all widths together:

1. In turns, phase = p f with f = 1 / (2 pi 10000**(2 i / C)). Split p = 4096 q + r (exact in float32) and
   f = a + b with a a multiple of 2**-12 and |b| <= 2**-13. Then r a is exact (24 bits), so its whole turns
   are removed without error, and |r b| < 1/2. The same for q and g = 4096 f mod 1:

       phase = frac(r a) + r b + frac(q a') + q b' + offset,       frac(x) = x - floor(x + 1/2)

2. offset is -1/4 in the sine half (sin x = cos(x - pi/2)) and 0 in the cosine half, minus f, because the
   counter is 1 at the first frame.
3. cos(2 pi x) = sin(2 pi y) with y = 1/4 - |frac(x)| in [-1/4, 1/4]; there an odd polynomial of degree 11
   (least squares on Chebyshev nodes, computed at construction) is exact to 1e-8.

The error against float64 stays below 2e-6 for every frame up to 2**24; it does not accumulate.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SPLIT = 4096
"""2**12: half of float32's 24-bit significand, so a product of two halves is exact."""
WAVELENGTH_BASE = 10000.0
"""Longest wavelength over 2 pi (Vaswani et al. 2017; the same number in the Model Garden's layer)."""
_DEGREE_TERMS = 6

Vector = NDArray[np.float64]


def encoding(frames: Vector, width: int) -> Vector:
    """The encoding by its definition, in float64.

    Args:
        frames: Frame numbers from 0, shape (T,).
        width: Even number of channels C.

    Returns:
        Shape (T, C), values -1..1.
    """
    angle = np.outer(frames, WAVELENGTH_BASE ** (-2.0 * np.arange(width // 2) / width))
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


def _turns_per_frame(width: int) -> Vector:
    half: Vector = WAVELENGTH_BASE ** (-2.0 * np.arange(width // 2) / width) / (2.0 * np.pi)
    return np.concatenate([half, half])


def _split(turns: Vector) -> tuple[Tensor, Tensor]:
    """(a, b) with a + b = turns modulo 1; a a multiple of 1 / SPLIT in -1/2..1/2."""
    centred = turns - np.floor(turns + 0.5)
    coarse = np.round(centred * SPLIT) / SPLIT
    return _constant(coarse), _constant(centred - coarse)


def _constant(values: Vector) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).view(1, -1, 1, 1, 1)


def _sine_coefficients() -> list[float]:
    """c with sin(2 pi y) = y (c0 + c1 y^2 + ...) on |y| <= 1/4."""
    nodes = 0.25 * np.cos(np.pi * (np.arange(200) + 0.5) / 200)
    powers = nodes[:, None] ** (2 * np.arange(_DEGREE_TERMS) + 1)
    scale = np.abs(powers).max(axis=0)
    solution = np.linalg.lstsq(powers / scale, np.sin(2.0 * np.pi * nodes), rcond=None)[0]
    return [float(c) for c in solution / scale]


def _frac(x: Tensor) -> Tensor:
    return x - torch.floor(x + 0.5)


class PositionalEncoding(nn.Module):
    """Encodings of the present frames for all layer widths of a model.

    Args:
        widths: Numbers of channels; each distinct one is computed once.

    Raises:
        ValueError: A width is odd.
    """

    fine: Tensor
    coarse: Tensor
    fine_high: Tensor
    coarse_high: Tensor
    offset: Tensor

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(sorted(set(widths)))
        if odd := [w for w in self.widths if w % 2]:
            raise ValueError(f"Positional encoding needs an even number of channels, got {odd}.")
        turns = np.concatenate([_turns_per_frame(w) for w in self.widths])
        quarter = np.concatenate([np.repeat([0.25, 0.0], w // 2) for w in self.widths])
        coarse, fine = _split(turns)
        coarse_high, fine_high = _split(turns * SPLIT)
        constants = {"coarse": coarse, "fine": fine, "coarse_high": coarse_high, "fine_high": fine_high}
        constants["offset"] = _constant(-quarter - turns)
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)
        self.coefficients = _sine_coefficients()

    def forward(self, seen: Tensor) -> dict[int, Tensor]:
        """Encode frames.

        Args:
            seen: `Clock.seen`, the number of the frame from 1; (1,) or (1, 1, T, 1, 1), float32.

        Returns:
            Width C to (1, C, T, 1, 1), values -1..1.
        """
        high = torch.floor(seen * (1.0 / SPLIT))
        low = seen - high * SPLIT
        phase = _frac(low * self.coarse) + _frac(high * self.coarse_high) + self.offset
        phase = phase + low * self.fine + high * self.fine_high
        y = 0.25 - torch.abs(_frac(phase))
        vector = self._sine(y)
        starts = itertools.accumulate(self.widths, initial=0)
        return {width: vector[:, start : start + width] for width, start in zip(self.widths, starts, strict=False)}

    def _sine(self, y: Tensor) -> Tensor:
        square = y * y
        total = square * self.coefficients[-1] + self.coefficients[-2]
        for coefficient in self.coefficients[-3::-1]:
            total = total * square + coefficient
        return total * y
