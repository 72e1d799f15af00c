"""The numbers that XNNPACK's int8 kernels compute with, for the simulations of int8 artifacts.

Kernels work on `stored - zero point`. Sums of products are exact integers; what is rounded is their change of unit,
from the scales of the operands to the scale of the result, and each kernel does that in its own way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SUM_BITS = 20
"""Fractional bits of the larger factor of a sum."""


def sum_factors(first: float, second: float, result: float) -> tuple[float, float]:
    """What each operand of a sum or difference is multiplied by; halves are then rounded up.

    Factors of 21 bits (`xnn_init_qs8_add_minmax_params`, src/microparams-init.c).

    Args:
        first: Scale of the first operand.
        second: Scale of the second.
        result: Scale of the result.

    Examples:
        >>> sum_factors(0.5, 0.25, 1.0)
        (0.5, 0.25)
    """
    ratios = [np.float32(scale) / np.float32(result) for scale in (first, second)]
    unit = 2.0 ** (int(np.floor(np.log2(max(ratios)))) - SUM_BITS)
    one, other = (float(np.rint(ratio / unit) * unit) for ratio in ratios)
    return one, other


def product_factor(first: float, second: float, result: float) -> float:
    """What a product of two operands is multiplied by, in float32; halves are rounded to even."""
    return float(np.float32(first) * np.float32(second) / np.float32(result))


def weighted_factors(source: float, weights: NDArray[np.float32], result: float) -> NDArray[np.float32]:
    """What a sum of products with weights is multiplied by, per channel; halves are rounded to even.

    Args:
        source: Scale of the activations.
        weights: Scale per output channel.
        result: Scale of the result.
    """
    factors: NDArray[np.float32] = np.float32(source) * weights.astype(np.float32) / np.float32(result)
    return factors


def conversion_factor(source: float, result: float, slope: float = 1.0) -> float:
    """What a value is multiplied by when only its scale changes; halves are then rounded up.

    A factor of 8 fractional bits (`xnn_init_qs8_cvt_params`, `xnn_init_qs8_lrelu_params`).

    Args:
        source: Scale before.
        result: Scale after.
        slope: Of a leaky activation.
    """
    return float(np.rint(256 * (np.float32(source) / np.float32(result)) * np.float32(slope)) / 256)
