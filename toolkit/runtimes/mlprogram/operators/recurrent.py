"""Recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mvtool.runtimes.mlprogram.dtypes import TensorType
from mvtool.runtimes.mlprogram.registry import Call, Kernel, operator

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "linear": lambda x: x,
}


@operator("gru")
def gru(call: Call) -> Kernel:
    """`x (S, B, I)`, `initial_h (B, H)`; gates in the order reset, output, update.

    The bias of the output gate is added outside the product with the reset gate.
    """
    x, _ = call.tensor("x"), call.tensor("initial_h")
    call.tensor("weight_ih")
    hidden = call.tensor("weight_hh").shape[-1]
    call.optional_tensor("bias")
    order, keep_all = _sequence(call, x, ("forward", "reverse"))
    gate, activation = _activation(call, "recurrent_activation", "sigmoid"), _activation(call, "activation", "tanh")

    def kernel(x: torch.Tensor, h: torch.Tensor, w_ih: torch.Tensor, w_hh: torch.Tensor, bias: Any) -> Any:
        w_hr, w_ho, w_hz = torch.split(w_hh, hidden)
        states: list[torch.Tensor] = []
        for time in order:
            from_x = x[time] @ w_ih.T if bias is None else x[time] @ w_ih.T + bias
            x_r, x_o, x_z = torch.split(from_x, hidden, -1)
            reset, update = gate(x_r + h @ w_hr.T), gate(x_z + h @ w_hz.T)
            h = (1 - update) * activation(x_o + reset * (h @ w_ho.T)) + update * h
            states.append(h)
        return _stacked(states, order, keep_all), h

    return kernel


@operator("lstm")
def lstm(call: Call) -> Kernel:
    """`x (S, B, I)`, `initial_h` and `initial_c` `(B, H)`; gates in the order input, forget, output, cell."""
    x = call.tensor("x")
    call.tensor("initial_h")
    call.tensor("initial_c")
    call.tensor("weight_ih")
    hidden = call.tensor("weight_hh").shape[-1]
    call.optional_tensor("bias")
    order, keep_all = _sequence(call, x, ("forward", "reverse"))
    gate = _activation(call, "recurrent_activation", "sigmoid")
    cell, activation = _activation(call, "cell_activation", "tanh"), _activation(call, "activation", "tanh")

    def kernel(
        x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, w_ih: torch.Tensor, w_hh: torch.Tensor, bias: Any
    ) -> Any:
        states: list[torch.Tensor] = []
        for time in order:
            gates = x[time] @ w_ih.T + h @ w_hh.T
            i, f, o, z = torch.split(gates if bias is None else gates + bias, hidden, -1)
            c = gate(f) * c + gate(i) * cell(z)
            h = gate(o) * activation(c)
            states.append(h)
        return _stacked(states, order, keep_all), h, c

    return kernel


def _sequence(call: Call, x: TensorType, directions: tuple[str, ...]) -> tuple[list[int], bool]:
    if x.rank != 3 or x.shape[0] < 1:
        raise call.error(f"an input {x} is not supported, expected (steps, batch, features)")
    order = list(range(x.shape[0]))
    if call.text("direction", directions, default="forward") == "reverse":
        order.reverse()
    return order, call.boolean("output_sequence", False)


def _activation(call: Call, key: str, default: str) -> Callable[[torch.Tensor], torch.Tensor]:
    return _ACTIVATIONS[call.text(key, tuple(_ACTIVATIONS), default=default)]


def _stacked(states: list[torch.Tensor], order: list[int], keep_all: bool) -> torch.Tensor:
    """Return `(S, B, H)` in the order of time, or `(1, B, H)` of the last step that was computed."""
    if not keep_all:
        return states[-1][None]
    return torch.stack(states if order[0] == 0 else states[::-1])
