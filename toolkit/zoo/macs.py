"""Multiply-adds of a model, counted in one way for every family.

Counted are convolutions and matrix products (dense layers, attention), as the papers of the families do; norms,
activations, pools and sums are not.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mvtool.program import StreamProgram

Shape = tuple[int, ...]


def count_macs(module: nn.Module, shape: Shape) -> int:
    """Multiply-adds of one call.

    The module is run on shapes alone, so no weight is touched and a large model takes seconds.

    Args:
        module: Takes one tensor; is moved to the meta device, and holds no weights afterwards.
        shape: Of its input, (N, 3, T, H, W) for the zoo.
    """
    # The counter wants a history of every tensor that asks for a gradient, also where none is recorded.
    module = module.to("meta").eval().requires_grad_(False)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), torch.device("meta"), counter:
        module(torch.empty(shape))
    # The counter gives two operations, a multiplication and an addition, for each.
    return int(counter.get_total_flops()) // 2


def count_step_macs(program: StreamProgram) -> int:
    """Multiply-adds of one call of a captured program, which is executed once, on zeros."""
    from mvtool.runtimes.pytorch import TorchExecutable

    executable = TorchExecutable(program)
    counter = FlopCounterMode(display=False)
    with counter:
        executable.run([np.zeros(port.shape, port.dtype) for port in program.input_ports])
    return int(counter.get_total_flops()) // 2


def count_parameters(module: nn.Module) -> int:
    """Trainable scalars."""
    return sum(parameter.numel() for parameter in module.parameters())
