"""Activation functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from mvtool.runtimes.mlprogram.registry import Call, Kernel, operator

_PLAIN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    # log(1 + e^x), stable for large x; torch's own softplus cuts over to x above a threshold.
    "softplus": lambda x: torch.log1p(torch.exp(-torch.abs(x))) + torch.relu(x),
    "softsign": F.softsign,
}
_EXACT: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "relu6": F.relu6,
}
_ALPHA: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "elu": lambda x, alpha: torch.where(x > 0, x, alpha * torch.expm1(x)),
    "leaky_relu": lambda x, alpha: torch.where(x >= 0, x, alpha * x),
    "thresholded_relu": lambda x, alpha: _thresholded_relu(x, alpha),
}
_ALPHA_BETA: dict[str, Callable[[torch.Tensor, float, float], torch.Tensor]] = {
    "clamped_relu": lambda x, alpha, beta: torch.clamp(torch.where(x >= 0, x, alpha * x), max=beta),
    "linear_activation": lambda x, alpha, beta: alpha * x + beta,
    "scaled_tanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
    "sigmoid_hard": lambda x, alpha, beta: (alpha * x).add_(beta).clamp_(0.0, 1.0),
}
_GELU_MODES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "EXACT": F.gelu,
    "TANH_APPROXIMATION": lambda x: F.gelu(x, approximate="tanh"),
    "SIGMOID_APPROXIMATION": lambda x: x * torch.sigmoid(1.702 * x),
}


def _thresholded_relu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return `x` where it is at least `alpha`, else 0.

    torch's vectorized `threshold` keeps what is *above* its threshold, hence the float32 just below `alpha`.
    """
    below = float(np.nextafter(np.float32(alpha), np.float32(-np.inf)))
    return F.threshold(x, below, 0.0)


def _enter_plain(kind: str, compute: Callable[[torch.Tensor], torch.Tensor], exact: bool) -> None:
    def build(call: Call) -> Kernel:
        call.tensor("x")
        return compute

    operator(kind, exact=exact)(build)


def _enter_alpha(kind: str, compute: Callable[[torch.Tensor, float], torch.Tensor]) -> None:
    def build(call: Call) -> Kernel:
        call.tensor("x")
        alpha = call.number("alpha")
        return lambda x: compute(x, alpha)

    operator(kind)(build)


def _enter_alpha_beta(kind: str, compute: Callable[[torch.Tensor, float, float], torch.Tensor]) -> None:
    def build(call: Call) -> Kernel:
        call.tensor("x")
        alpha, beta = call.number("alpha"), call.number("beta")
        return lambda x: compute(x, alpha, beta)

    operator(kind)(build)


for _kind, _plain in _PLAIN.items():
    _enter_plain(_kind, _plain, exact=False)
for _kind, _plain in _EXACT.items():
    _enter_plain(_kind, _plain, exact=True)
for _kind, _alpha in _ALPHA.items():
    _enter_alpha(_kind, _alpha)
for _kind, _alpha_beta in _ALPHA_BETA.items():
    _enter_alpha_beta(_kind, _alpha_beta)


@operator("gelu")
def gelu(call: Call) -> Kernel:
    """Gaussian error linear unit, exact or by one of two approximations."""
    call.tensor("x")
    return _GELU_MODES[call.text("mode", tuple(_GELU_MODES), default="EXACT")]


@operator("softmax")
def softmax(call: Call) -> Kernel:
    """`exp(x) / sum(exp(x))` along `axis`."""
    axis = call.axis("axis", call.tensor("x").rank, default=-1)
    return lambda x: torch.softmax(x, axis)


@operator("prelu")
def prelu(call: Call) -> Kernel:
    """`x` where positive, else `alpha[channel] * x`; `x (N, C, *D)`, `alpha (C,)`."""
    x = call.tensor("x")
    shape = _channel_shape(call, x.shape)
    alpha = call.tensor("alpha")
    if alpha.size != shape[1]:
        raise call.error(f"alpha {alpha} does not fit {x}")
    return lambda x, alpha: torch.where(x > 0, x, alpha.reshape(shape) * x)


@operator("softplus_parametric")
def softplus_parametric(call: Call) -> Kernel:
    """`alpha[channel] * log(1 + exp(beta[channel] * x))`; `x (N, C, *D)`, `alpha` and `beta` `(C,)`."""
    shape = _channel_shape(call, call.tensor("x").shape)
    call.tensor("alpha")
    call.tensor("beta")
    softplus = _PLAIN["softplus"]
    return lambda x, alpha, beta: alpha.reshape(shape) * softplus(beta.reshape(shape) * x)


def _channel_shape(call: Call, shape: tuple[int, ...]) -> list[int]:
    if len(shape) < 3:
        raise call.error(f"an input of shape {shape} has no channel axis")
    return [1, shape[1]] + [1] * (len(shape) - 2)
