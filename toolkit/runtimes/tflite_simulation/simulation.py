"""Executing a parsed model on real numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mvtool.errors import RuntimeLoadError
from mvtool.ports import AnyArray
from mvtool.runtimes.borders import Borders
from mvtool.runtimes.tflite_simulation import arithmetic, shapes, weights
from mvtool.runtimes.tflite_simulation.model import Model, Tensor
from mvtool.runtimes.tflite_simulation.table import LIMITS, Form, Place, Prepared, prepare_operator

# Importing these modules fills the table of operators.
_TABLES = (arithmetic, shapes, weights)


@dataclass(frozen=True)
class _Node:
    prepared: Prepared
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kind: str
    site: str


class Simulation:
    """An `Executable` on stored port arrays; see the package's docstring.

    Between operators a quantized tensor is held as `stored - zero point` in float32, any other as it is.
    """

    def __init__(self, model: Model, *, anchor: bool = False, borders: Borders | None = None) -> None:
        """Prepare every operator.

        Args:
            model: As `read_model` returned it.
            borders: Rounds what float operators computed.
            anchor: Do not round activations; ports are then float32 real numbers.

        Raises:
            RuntimeLoadError: An operator is not known.
        """
        self._model, self._round = model, not anchor
        self._borders = Borders() if borders is None else borders
        places = [Place(model, operator, self._round, self._borders) for operator in model.operators]
        self._nodes = [
            _Node(prepare_operator(p), p.operator.inputs, p.operator.outputs, p.operator.kind, p.site) for p in places
        ]
        self._constants = {i: self._held(t) for i, t in enumerate(model.tensors) if t.value is not None}
        self._last_use = _last_uses(model)

    @property
    def engine(self) -> str:
        """What executes, for reports."""
        return "PyTorch simulation" if self._round else "PyTorch simulation, activations unrounded"

    def run(self, inputs: Sequence[AnyArray]) -> Sequence[AnyArray]:
        """One step on stored port arrays, in position order; real numbers with `anchor`.

        Raises:
            RuntimeLoadError: An operator failed.
        """
        values = dict(self._constants)
        for index, array in zip(self._model.inputs, inputs, strict=True):
            values[index] = self._enter(self._model.tensors[index], array)
        with torch.no_grad():
            for position, node in enumerate(self._nodes):
                self._execute(node, values)
                for index in self._last_use.get(position, ()):
                    del values[index]
        return [self._leave(self._model.tensors[index], values[index]) for index in self._model.outputs]

    def _held(self, tensor: Tensor) -> torch.Tensor:
        """A constant in the form in which operators find it."""
        if self._rounds(tensor) and tensor.scales is not None and tensor.scales.size == 1 and tensor.value is not None:
            return torch.from_numpy(np.asarray(tensor.value.astype(np.float32) - np.float32(tensor.zero_point)))
        return torch.from_numpy(np.array(tensor.real))

    def _rounds(self, tensor: Tensor) -> bool:
        return self._round and tensor.quantized and tensor.dtype in LIMITS

    def _execute(self, node: _Node, values: dict[int, torch.Tensor]) -> None:
        real = node.prepared.form is Form.REAL
        try:
            operands = [None if i < 0 else self._real(i, values[i]) if real else values[i] for i in node.inputs]
            result: Any = node.prepared.step(*operands)
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            name = self._model.tensors[node.outputs[0]].name
            raise RuntimeLoadError(f"The simulation failed in {node.kind}, which writes {name!r}: {error}") from error
        results = result if isinstance(result, tuple | list) else (result,)
        for index, value in zip(node.outputs, results, strict=True):
            values[index] = self._finished(node, self._model.tensors[index], value)

    def _real(self, index: int, value: torch.Tensor) -> torch.Tensor:
        tensor = self._model.tensors[index]
        single = self._rounds(tensor) and tensor.scales is not None and tensor.scales.size == 1
        return value * tensor.scale if single else value

    def _finished(self, node: _Node, tensor: Tensor, value: torch.Tensor) -> torch.Tensor:
        prepared = node.prepared
        if prepared.form is Form.CARRY or not self._rounds(tensor):
            return value
        if prepared.form is Form.REAL:
            low, high = (limit - tensor.zero_point for limit in LIMITS[tensor.dtype])
            steps = value / tensor.scale
            rounded = self._borders.round(node.site, steps) if self._is_computed_float(node) else steps.round_()
            return rounded.clamp_(low, high)
        rounded = value.add_(0.5).floor_() if prepared.half_up else value.round_()
        return rounded.clamp_(prepared.low, prepared.high).float()

    def _is_computed_float(self, node: _Node) -> bool:
        """Whether the node rounds what float operators made; inputs and tables are the same everywhere."""
        source = node.inputs[0]
        return self._model.tensors[source].dtype == "float32" and source not in self._model.inputs

    def _enter(self, tensor: Tensor, array: AnyArray) -> torch.Tensor:
        value = torch.from_numpy(np.array(array))
        return value.to(torch.float32) - tensor.zero_point if self._rounds(tensor) else value

    def _leave(self, tensor: Tensor, value: torch.Tensor) -> AnyArray:
        # A copy: the value may be a view of an input, which the caller may change.
        found: AnyArray = value.contiguous().numpy().copy().reshape(tensor.shape)
        return (found + tensor.zero_point).astype(tensor.dtype) if self._rounds(tensor) else found


def _last_uses(model: Model) -> dict[int, tuple[int, ...]]:
    """After which operator each computed tensor can be dropped."""
    last: dict[int, int] = {}
    for position, op in enumerate(model.operators):
        for index in (*op.outputs, *op.inputs):
            if index >= 0 and model.tensors[index].value is None:
                last[index] = position
    kept = {*model.outputs}
    found: dict[int, list[int]] = {}
    for index, position in last.items():
        if index not in kept:
            found.setdefault(position, []).append(index)
    return {position: tuple(indices) for position, indices in found.items()}
