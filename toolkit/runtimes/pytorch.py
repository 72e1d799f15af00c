"""A stream program executed by PyTorch: the reference that artifacts are held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mvtool.errors import RuntimeLoadError
from mvtool.extras import require
from mvtool.ports import AnyArray, Precision, Runtime, contiguous
from mvtool.program import StreamProgram
from mvtool.runtimes.base import PortSession

PURE = "mvtool_is_pure"
"""Attribute of functions of ours in a graph that compute their result from their arguments alone."""

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
        merge_equals(self._call)
        fold_constants(self._call)
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


def fold_constants(module: Any) -> int:
    """Compute once what a graph would compute from its weights at every call, such as int8 weights as real numbers.

    Args:
        module: A `torch.fx.GraphModule`; changed in place. Its results stay the same to the bit.

    Returns:
        How many operators were computed.
    """
    torch = require("torch", "to execute the reference program")
    values: dict[Any, Any] = {}
    folded = 0
    for node in list(module.graph.nodes):
        if node.op == "get_attr":
            values[node] = _attribute(module, node.target)
        elif _is_pure(torch, node) and node.all_input_nodes and all(n in values for n in node.all_input_nodes):
            arguments, named = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
            with torch.no_grad():
                values[node] = node.target(*arguments, **named)
            folded += 1
    for node, value in values.items():
        readers = {reader for reader in node.users if reader not in values}
        if node.op != "get_attr" and readers:
            _hold(torch, module, node, value, readers)
    if folded:
        module.graph.eliminate_dead_code()
        module.recompile()
    return folded


def merge_equals(module: Any) -> int:
    """Compute once what a graph computes several times, such as the real numbers of an int8 value for each of its readers.

    Args:
        module: A `torch.fx.GraphModule`; changed in place. Its results stay the same to the bit.

    Returns:
        How many operators fell away.
    """
    torch = require("torch", "to execute the reference program")
    first: dict[tuple[Any, str], Any] = {}
    merged = 0
    for node in list(module.graph.nodes):
        if node.op != "get_attr" and not (node.all_input_nodes and _is_pure(torch, node)):
            continue
        # Nodes are written by their names here, which are unique; numbers and types by their values.
        same = first.setdefault((node.target, repr((node.args, sorted(node.kwargs.items())))), node)
        if same is not node:
            node.replace_all_uses_with(same)
            module.graph.erase_node(node)
            merged += 1
    if merged:
        module.recompile()
    return merged


def _is_pure(torch: Any, node: Any) -> bool:
    """Whether a node computes its result from its arguments alone and leaves them as they are."""
    if node.op != "call_function":
        return False
    if getattr(node.target, PURE, False):
        return True
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    return not node.target._schema.is_mutable and torch.Tag.nondeterministic_seeded not in node.target.tags


def _attribute(module: Any, path: str) -> Any:
    value = module
    for part in path.split("."):
        value = getattr(value, part)
    return value


def _hold(torch: Any, module: Any, node: Any, value: Any, readers: set[Any]) -> None:
    """Let `readers` read the value of a node as a constant."""
    if not isinstance(value, torch.Tensor):
        return
    name = f"_folded_{node.name}"
    module.register_buffer(name, value, persistent=False)
    with module.graph.inserting_before(node):
        constant = module.graph.get_attr(name)
    constant.meta = dict(node.meta)
    for reader in readers:
        reader.replace_input_with(node, constant)


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
