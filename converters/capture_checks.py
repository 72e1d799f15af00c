"""What capture refuses, before and after torch.export, each with the place in its message."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.export import ExportedProgram
from torch.fx import Node

from mvtool.converters import places
from mvtool.converters.calling import CallPlan
from mvtool.converters.inputs import DTYPES
from mvtool.errors import CaptureError

_ORIGINAL = "compiled._orig_mod"


def check_module(module: nn.Module) -> None:
    """Only plain modules on the CPU can be stepped and exported here.

    Raises:
        CaptureError: A part is TorchScript, compiled, or on another device.
    """
    for name, child in module.named_modules():
        if isinstance(child, torch.jit.ScriptModule):
            raise CaptureError(
                f"{name or 'The model'!r} is TorchScript; torch.export needs the Python module it was made from."
            )
        if isinstance(child, OptimizedModule):
            raise CaptureError(
                f"{name or 'The model'!r} is wrapped by torch.compile; pass the module itself, {_ORIGINAL}."
            )
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.device.type != "cpu":
            raise CaptureError(
                f"{name!r} is on the device {tensor.device}; move the model with .cpu() before conversion."
            )


def check_inputs(plan: CallPlan, states: Collection[str]) -> None:
    """Video frames come from one video at a time; `states`, paths of inputs that hold state, have any shape.

    Raises:
        CaptureError: An image input has a batch other than 1.
    """
    for spec, path in zip(plan.specs, plan.paths, strict=True):
        if spec.is_image and path not in states and spec.shape[0] != 1:
            raise CaptureError(
                f"The image input {path!r} has shape {list(spec.shape)} with a batch of {spec.shape[0]}; an artifact steps "
                "one video, so the batch must be 1. If it holds no pictures, say so: --input "
                f"{path}={'x'.join(map(str, spec.shape))}@tensor, in Python InputSpec(..., image=False)."
            )


def check_aliases(module: nn.Module, changed: Iterable[str]) -> None:
    """A written buffer must have its memory for itself.

    Raises:
        CaptureError: It is registered on two submodules, or shares memory with another tensor.
    """
    owners = [
        (f"{prefix}.{name}".lstrip("."), value)
        for prefix, child in module.named_modules()
        for name, value in (*child._buffers.items(), *child._parameters.items(), *_plain_tensors(child))
        if value is not None and value.numel()
    ]
    written = {id(module.get_buffer(name)) for name in changed}
    for index, (name, value) in enumerate(owners):
        for other_name, other in owners[:index]:
            if id(value) not in written and id(other) not in written:
                continue
            if value is other:
                raise CaptureError(
                    f"The buffers {other_name!r} and {name!r} are one tensor, shared by two submodules, and the forward pass "
                    "writes it. Let one submodule own the state and pass it to the other as an argument."
                )
            if _overlap(value, other):
                raise CaptureError(
                    f"The buffers {other_name!r} and {name!r} are aliased: they share memory, and the forward pass writes it. "
                    "Register independent tensors (.clone()) and write each of them, or slice one buffer inside forward."
                )


def _plain_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in vars(module).items() if isinstance(value, Tensor)]


def _overlap(a: Tensor, b: Tensor) -> bool:
    if a.untyped_storage().data_ptr() != b.untyped_storage().data_ptr():
        return False
    (low_a, high_a), (low_b, high_b) = _span(a), _span(b)
    return low_a < high_b and low_b < high_a


def _span(tensor: Tensor) -> tuple[int, int]:
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    return start, start + (last + 1) * tensor.element_size()


def check_graph(exported: ExportedProgram) -> None:
    """The graph as torch.export wrote it, before functionalization, which hides some of this.

    Raises:
        CaptureError: A batch norm or dropout in training mode, a random operator, a write into an
            argument, a value read from a tensor into Python, a shape that depends on values, or a
            control-flow operator.
    """
    arguments = {str(name) for name in exported.graph_signature.user_inputs}
    for node in exported.graph.nodes:
        if node.op != "call_function":
            continue
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise CaptureError(_region(node))
        if isinstance(node.target, torch._ops.OpOverload):
            values = _arguments(node, node.target)
            _check_training(node, values)
            _check_random(node, node.target, values)
            _check_writes(node, node.target, values, arguments)
        _check_static(node)


def _arguments(node: Node, operator: torch._ops.OpOverload) -> dict[str, object]:
    """Arguments of a call by name, defaults included."""
    schema = operator._schema.arguments
    values = {argument.name: argument.default_value for argument in schema}
    values.update(zip((argument.name for argument in schema), node.args, strict=False))
    values.update(node.kwargs)
    return values


def _check_training(node: Node, values: Mapping[str, object]) -> None:
    name = str(node.target)
    if "batch_norm" in name and (values.get("training") is True or "_no_stats" in name):
        raise CaptureError(
            f"A batch norm is still in training mode {places.of_node(node)}: it normalises with the statistics of the frame "
            "and moves its running means. Use its running statistics in eval mode (no training=True, no .train() inside "
            "forward, track_running_stats=True)."
        )
    if "dropout" in name and (values.get("train") is True or values.get("training") is True):
        raise CaptureError(
            f"A dropout is still in training mode {places.of_node(node)}. Pass training=self.training to F.dropout, or use "
            "nn.Dropout."
        )


def _check_random(node: Node, operator: torch._ops.OpOverload, values: Mapping[str, object]) -> None:
    if torch.Tag.nondeterministic_seeded not in operator.tags:
        return
    # Layers with an optional dropout carry the tag too: dropout, attention, GRU, LSTM, rrelu.
    switches = [values[name] for name in ("train", "training", "dropout_p") if name in values]
    if switches and not any(switches):
        return
    raise CaptureError(
        f"The model is random: it calls {operator} {places.of_node(node)}, so two runs would differ. Draw random numbers in "
        "training mode only (if self.training)."
    )


def _check_writes(
    node: Node, operator: torch._ops.OpOverload, values: Mapping[str, object], arguments: set[str]
) -> None:
    for argument in operator._schema.arguments:
        target = values.get(argument.name)
        if argument.is_write and isinstance(target, Node) and target.op == "placeholder" and target.name in arguments:
            raise CaptureError(
                f"The forward pass writes its argument {target.name!r} in place {places.of_node(node)}; the caller of an "
                "artifact would never see it. Compute a new tensor instead, and return it if it is state."
            )


def _region(node: Node) -> str:
    name = getattr(node.target, "__name__", str(node.target))
    if "autocast" in name:
        return (
            f"The model switches to autocast inside forward {places.of_node(node)}; the arithmetic of an artifact is chosen "
            "when it is converted. Remove the autocast block."
        )
    return (
        f"The operator {name} is data-dependent control flow or a nested graph {places.of_node(node)}; an artifact takes one "
        "path for every frame. Compute both sides and choose with torch.where."
    )


def _check_static(node: Node) -> None:
    value = node.meta.get("val")
    for entry in value if isinstance(value, list | tuple) else [value]:
        dynamic = isinstance(entry, torch.SymInt | torch.SymFloat | torch.SymBool)
        if dynamic or (isinstance(entry, Tensor) and any(isinstance(size, torch.SymInt) for size in entry.shape)):
            raise CaptureError(
                f"{node.target} makes a number or a shape that depends on the values of a tensor {places.of_node(node)}; every "
                "shape must be known before the first frame. Avoid .item(), nonzero and boolean indexing."
            )


def check_reached(module: nn.Module, changed: Sequence[str], reached: Iterable[str]) -> None:
    """Every buffer that the eager module changes must be written by the graph.

    Raises:
        CaptureError: A buffer is changed behind the back of the graph.
    """
    known = {id(module.get_buffer(name)) for name in reached}
    for name in changed:
        if id(module.get_buffer(name)) not in known:
            raise CaptureError(
                f"The forward pass changes the buffer {name!r}{places.of_attribute(module, name)}, but the graph cannot see "
                "the write (through .data, NumPy or a hook, for example). Write it with self.buffer.copy_(value)."
            )


def check_dtype(what: str, tensor: Tensor, remedy: str) -> None:
    """Ports hold a fixed set of types.

    Raises:
        CaptureError: The type is not in `mvtool.ports.DType`.
    """
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise CaptureError(f"{what} has type {dtype}; ports can have {', '.join(DTYPES)}. {remedy}")
