"""The reference evaluator: computes a saved ML program operator by operator.

Core ML executes models on Apple systems only. Everywhere else this evaluator computes what the saved
file says. It is a reference for the meaning of the file, not for the speed or the rounding of a
particular device, and reports call it "reference evaluator", never "Core ML".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import mvtool.runtimes.mlprogram.operators as _operators
from mvtool.errors import ManifestError
from mvtool.runtimes.mlprogram.carriers import from_carrier, to_carrier
from mvtool.runtimes.mlprogram.dtypes import numpy_dtype
from mvtool.runtimes.mlprogram.plan import plan_program, run_step
from mvtool.runtimes.mlprogram.program import Feature, ImageFeature, MLProgram
from mvtool.runtimes.mlprogram.registry import operation_error

ENGINE = "reference evaluator"

_operators.load()


class Evaluator:
    """Executes one program; keeps no state between runs.

    Args:
        program: Program as `load_program` returned it.

    Raises:
        RuntimeLoadError: The program uses an operator, a parameter or a type that is not supported.
    """

    def __init__(self, program: MLProgram) -> None:
        self.program = program
        with torch.inference_mode():
            self._plan = plan_program(program)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute all outputs.

        Args:
            inputs: Port name to array of exactly the port's shape and type. An image port takes uint8
                pixels or their values 0..255 in the program's type, `(1, C, H, W)` in its colour order.

        Returns:
            Output name to array of the declared type.

        Raises:
            ManifestError: Inputs are missing, unknown, or of another shape or type.
            RuntimeLoadError: An operator failed on these values, for example on an index out of range.
        """
        ports = self.program.inputs
        if set(inputs) != {port.name for port in ports}:
            raise ManifestError(f"Got the inputs {sorted(inputs)}, expected {sorted(port.name for port in ports)}.")
        values: list[Any] = list(self._plan.values)
        for port, slot in zip(ports, self._plan.inputs, strict=True):
            values[slot] = _carrier(port, inputs[port.name])
        with torch.inference_mode():
            self._execute(values)
        return {
            port.name: from_carrier(values[slot], port.type.dtype)
            for port, slot in zip(self.program.outputs, self._plan.outputs, strict=True)
        }

    def _execute(self, values: list[Any]) -> None:
        for step in self._plan.steps:
            try:
                run_step(step, values)
            except (RuntimeError, ValueError, IndexError, ArithmeticError) as error:
                raise operation_error(step.operation, f"it failed on these values: {error}") from error
            for slot in step.released:
                values[slot] = None


def _carrier(port: Feature, array: NDArray[Any]) -> torch.Tensor:
    expected = numpy_dtype(port.type.dtype)
    accepted = (expected, np.dtype(np.uint8)) if isinstance(port, ImageFeature) else (expected,)
    if array.shape != port.type.shape or array.dtype not in accepted:
        raise ManifestError(
            f"Input {port.name!r}: got {array.dtype} of shape {array.shape}, expected {port.type}"
            f"{' or uint8 pixels' if len(accepted) > 1 else ''}."
        )
    return to_carrier(array, port.type.dtype)
