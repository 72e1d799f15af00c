"""A stream program executed by PyTorch: the reference that artifacts are held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mvtool.errors import RuntimeLoadError
from mvtool.extras import require
from mvtool.ports import AnyArray, Precision, Runtime, contiguous
from mvtool.program import StreamProgram
from mvtool.runtimes.base import PortSession

GraphEdit = Callable[[Any], None]
"""Changes a `torch.fx.GraphModule` in place."""


class TorchExecutable:
    """An exported graph, called with arrays in the program's port order.

    A captured graph takes `logical_shape`, a lowered one takes `shape`; the graph's own placeholders
    say which, and both hold the same elements in the same order.
    """

    engine = "PyTorch"

    def __init__(self, program: StreamProgram, edit: GraphEdit | None = None) -> None:
        """Prepare the graph of `program` for calling.

        Args:
            program: Its exported graph is not changed.
            edit: Changes the graph module before its first call.

        Raises:
            MissingExtraError: torch is not installed.
            RuntimeLoadError: The graph does not have the inputs that the program names.
        """
        self._torch = require("torch", "to execute the reference program")
        self._shapes = _input_shapes(program)
        self._call = program.exported.module()
        if edit is not None:
            edit(self._call)
        self._outputs = program.output_ports

    def run(self, inputs: Sequence[AnyArray]) -> Sequence[AnyArray]:
        """Execute the graph; arrays in and out have the shapes of the ports."""
        torch = self._torch
        tensors = [
            torch.from_numpy(contiguous(array)).reshape(shape).clone()
            for array, shape in zip(inputs, self._shapes, strict=True)
        ]
        try:
            with torch.no_grad():
                results = self._call(*tensors)
        except RuntimeError as error:
            raise RuntimeLoadError(f"PyTorch failed to execute the reference program: {error}") from error
        flat = [results] if isinstance(results, torch.Tensor) else list(results)
        # A graph may return its input or a view of one buffer twice; the copies make every result its own.
        arrays = [tensor.detach().contiguous().numpy().copy() for tensor in flat]
        return [array.reshape(port.shape) for array, port in zip(arrays, self._outputs, strict=True)]


def _input_shapes(program: StreamProgram) -> list[tuple[int, ...]]:
    names = set(program.exported.graph_signature.user_inputs)
    holders = [node for node in program.exported.graph.nodes if node.op == "placeholder" and node.name in names]
    shapes = [tuple(int(length) for length in _value(node).shape) for node in holders]
    ports = program.input_ports
    if len(shapes) != len(ports):
        raise RuntimeLoadError(
            f"The graph of {program.info.name} takes {len(shapes)} inputs, its ports are {len(ports)}."
        )
    return shapes


def _value(node: Any) -> Any:
    return node.meta["val"]


def open_program(program: StreamProgram, edit: GraphEdit | None = None) -> PortSession:
    """A session on `program`, whose graph module `edit` may change before its first call.

    A program is not an artifact, so its session's manifest has to borrow a runtime: it says fp32 and
    `executorch`, the one runtime that executes exported graphs.
    """
    manifest = program.manifest(Runtime.EXECUTORCH, Precision.FP32)
    return PortSession(manifest, TorchExecutable(program, edit))
