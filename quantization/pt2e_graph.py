"""Writing a quantization plan into a graph, as PT2E quantize and dequantize operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mvtool.ports import Quantization
from mvtool.program import StreamProgram
from mvtool.quantization.calibration import INT8_MAX, INT8_MIN, Range, affine
from mvtool.quantization.plan import Plan, data_inputs, operator_of
from mvtool.quantization.policy import Kernel, kernel_of
from mvtool.quantization.proportions import Violation, check, refuse
from mvtool.quantization.pt2e_program import as_program

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

WEIGHT_MAX = 127
"""Symmetric: -127..127, so that the product of two weights' negatives never overflows an int16 lane."""

SMALLEST_GAIN = 2.0**-20
"""Smallest ratio of a channel's weight scale to the one that maps input steps onto output steps. XNNPACK
refuses requantization factors under 2^-32; a channel this far down is all zeros after rounding anyway."""


def apply_plan(program: StreamProgram, module: GraphModule, plan: Plan, ranges: Mapping[str, Range]) -> ExportedProgram:
    """Insert the plan's operators into `module`, and make a program of it.

    Args:
        program: Gives the name for messages.
        module: From `open_graph`; changed in place.
        plan: From `make_plan` on the same module.
        ranges: Range per node name.

    Raises:
        ConversionError: XNNPACK would refuse some scales; the message names the operators.
    """
    refuse(insert_plan(module, plan, ranges), program.info.name)
    return as_program(module)


def insert_plan(module: GraphModule, plan: Plan, ranges: Mapping[str, Range]) -> list[Violation]:
    """Insert the plan's operators into `module`.

    Args:
        module: From `open_graph`; changed in place.
        plan: From `make_plan` on the same module, or a part of it.
        ranges: Range per node name.

    Returns:
        Scales that XNNPACK would refuse.
    """
    writer = _Writer(module, plan, ranges)
    for node in list(module.graph.nodes):
        if node.name in plan.int8_nodes:
            writer.quantize_operator(node)
        elif node.name in plan.weight_only:
            writer.quantize_weight(node, None)
        if node.name in plan.dynamic:
            writer.round_at_run_time(node)
    for node in list(module.graph.nodes):
        if node.name in plan.stored:
            writer.store(node)
    module.graph.eliminate_dead_code()
    _forget_unread(module)
    module.graph.lint()
    module.recompile()
    return writer.violations


class _Writer:
    """Inserts quantize and dequantize operators into one module."""

    def __init__(self, module: GraphModule, plan: Plan, ranges: Mapping[str, Range]) -> None:
        import torch

        self._module = module
        self._graph = module.graph
        self._plan = plan
        self._ranges = ranges
        self._count = 0
        self._shared: dict[str | None, tuple[str, ...]] = {}
        self.violations: list[Violation] = []
        self._operators = torch.ops.quantized_decomposed

    def quantize_operator(self, node: Node) -> None:
        """Give an int8 operator quantized inputs where they are not stored quantized, and int8 weights."""
        carried = self._plan.stored.get(node.name) if kernel_of(operator_of(node)) is Kernel.CARRY else None
        for source in data_inputs(node):
            if source.name in self._plan.stored or source.name in self._plan.fused:
                continue
            quantization = carried or affine(*self._ranges[source.name])
            if source.op == "get_attr":
                replacement = self._constant(node, source, quantization)
            else:
                replacement = self._dequantize(node, self._quantize(node, source, quantization), quantization)
            node.replace_input_with(source, replacement)
        if operator_of(node) in ("conv2d", "linear"):
            self.quantize_weight(node, self._gain(node))
        elif operator_of(node) in ("add", "sub", "mul"):
            self._check(node, [self._scale_of(source) for source in data_inputs(node)])

    def quantize_weight(self, node: Node, gain: float | None) -> None:
        """Per-channel symmetric int8 weights on axis 0, the output channels.

        Args:
            node: Convolution or dense layer.
            gain: Scale of the output divided by scale of the input; None for float activations.
        """
        import torch

        weight = self._tensor(node.args[1])
        bias = self._tensor(node.args[2]) if len(node.args) > 2 and node.args[2] is not None else None
        largest = weight.reshape(weight.shape[0], -1).abs().amax(dim=1).double()
        scale = largest / WEIGHT_MAX
        if gain is not None:
            scale = torch.maximum(scale, torch.full_like(scale, gain * SMALLEST_GAIN))
            if bias is not None:  # the bias is stored in int32 steps of input scale * weight scale
                scale = torch.maximum(scale, bias.abs().double() / (self._scale_of(data_inputs(node)[0]) * 2.0**30))
        scale = torch.where(scale > 0, scale, torch.ones_like(scale)).float()
        if gain is not None:
            self._check(node, [self._scale_of(data_inputs(node)[0]), *scale.tolist()])
            if bias is not None:
                self._round_bias(node, bias, scale.double() * self._scale_of(data_inputs(node)[0]))
        rows = scale.reshape(-1, *[1] * (weight.dim() - 1))
        # In float64, as the TFLite weights are: both then round alike.
        steps = torch.round(weight.double() / rows.double())
        stored = torch.clamp(steps, -WEIGHT_MAX, WEIGHT_MAX).to(torch.int8)
        shared = str(node.args[1].target) if gain is None else None  # type: ignore[union-attr]
        with self._graph.inserting_before(node):
            arguments = self._held_weight(stored, scale, shared)
            dequantized = self._graph.call_function(
                self._operators.dequantize_per_channel.default, (*arguments, 0, -WEIGHT_MAX, WEIGHT_MAX, torch.int8)
            )
        node.update_arg(1, dequantized)

    def _held_weight(self, stored: torch.Tensor, scale: torch.Tensor, shared: str | None) -> tuple[Node, ...]:
        """Weights, scales and zero points; the steps of a sequence share theirs, in the file too.

        Args:
            stored: int8.
            scale: One per output channel.
            shared: Name of the float weights, where all their readers round them alike.
        """
        import torch

        if shared in self._shared:
            return tuple(self._graph.get_attr(name) for name in self._shared[shared])
        parts = {
            "weight": stored,
            "weight_scale": scale,
            "weight_zero_point": torch.zeros(len(scale), dtype=torch.int64),
        }
        held = tuple(self._attribute(purpose, value) for purpose, value in parts.items())
        if shared is not None:
            self._shared[shared] = tuple(str(node.target) for node in held)
        return held

    def round_at_run_time(self, node: Node) -> None:
        """Give the kernel activations that are rounded with a scale and zero point found in each call.

        The graph finds one pair per tensor, which is how runtimes know the pattern; XNNPACK's kernels find one per picture, per
        row of a dense layer, or per position of a 1x1 convolution.
        """
        import operator

        import torch

        source = data_inputs(node)[0]
        limits, dtype = (INT8_MIN, INT8_MAX), torch.int8
        with self._graph.inserting_before(node):
            found = self._graph.call_function(
                self._operators.choose_qparams.tensor, (source, *limits, torch.finfo(torch.float32).eps, dtype)
            )
            scale, zero = (self._graph.call_function(operator.getitem, (found, index)) for index in (0, 1))
            stored = self._graph.call_function(
                self._operators.quantize_per_tensor.tensor, (source, scale, zero, *limits, dtype)
            )
            rounded = self._graph.call_function(
                self._operators.dequantize_per_tensor.tensor, (stored, scale, zero, *limits, dtype)
            )
        node.update_arg(0, rounded)

    def _round_bias(self, node: Node, bias: torch.Tensor, steps: torch.Tensor) -> None:
        """Put the bias on the int32 grid that kernels store it in, so that the simulation rounds as they do."""
        import torch

        rounded = (torch.round(bias.double() / steps) * steps).float()
        with self._graph.inserting_before(node):
            node.update_arg(2, self._attribute("bias", rounded))

    def store(self, node: Node) -> None:
        """Quantize a value where it is made, and dequantize it once for each of its readers.

        One dequantize per reader, because runtimes fuse it into the reader and refuse a shared one.
        """
        quantization = self._plan.stored[node.name]
        readers = list(node.users)
        with self._graph.inserting_after(_last_placeholder(self._graph) if node.op == "placeholder" else node):
            stored = self._graph.call_function(
                self._operators.quantize_per_tensor.default, (node, *self._arguments(quantization))
            )
        for reader in readers:
            reader.replace_input_with(node, self._dequantize(reader, stored, quantization))

    def _constant(self, reader: Node, source: Node, quantization: Quantization) -> Node:
        import torch

        value = self._tensor(source)
        steps = torch.round(value / quantization.scale) + quantization.zero_point
        stored = torch.clamp(steps, INT8_MIN, INT8_MAX).to(torch.int8)
        with self._graph.inserting_before(reader):
            attribute = self._attribute("constant", stored)
        return self._dequantize(reader, attribute, quantization)

    def _quantize(self, reader: Node, source: Node, quantization: Quantization) -> Node:
        with self._graph.inserting_before(reader):
            return self._graph.call_function(
                self._operators.quantize_per_tensor.default, (source, *self._arguments(quantization))
            )

    def _dequantize(self, reader: Node, stored: Node, quantization: Quantization) -> Node:
        with self._graph.inserting_before(reader):
            return self._graph.call_function(
                self._operators.dequantize_per_tensor.default, (stored, *self._arguments(quantization))
            )

    @staticmethod
    def _arguments(quantization: Quantization) -> tuple[Any, ...]:
        import torch

        return (quantization.scale, quantization.zero_point, INT8_MIN, INT8_MAX, torch.int8)

    def _attribute(self, purpose: str, value: torch.Tensor) -> Node:
        name = f"_int8_{purpose}_{self._count}"
        self._count += 1
        self._module.register_buffer(name, value)
        return self._graph.get_attr(name)

    def _tensor(self, node: Any) -> torch.Tensor:
        return attribute_of(self._module, node)

    def _scale_of(self, source: Node) -> float:
        while source.name in self._plan.fused:
            source = data_inputs(source)[0]
        found = self._plan.stored.get(source.name)
        # A source that is not stored was given its quantization by `quantize_operator` just before.
        return found.scale if found is not None else float(source.args[1])  # type: ignore[arg-type]

    def _result(self, node: Node) -> Node:
        return next(iter(node.users)) if node.name in self._plan.fused else node

    def _gain(self, node: Node) -> float:
        return self._plan.stored[self._result(node).name].scale / self._scale_of(data_inputs(node)[0])

    def _check(self, node: Node, scales: list[float]) -> None:
        result = self._result(node)
        tensors = [str(source.name) for source in node.all_input_nodes[:2]] + [str(result.name)]
        self.violations += check(
            operator_of(node), scales, self._plan.stored[result.name].scale, place=str(node.name), tensors=tensors
        )


def attribute_of(module: GraphModule, node: Any) -> torch.Tensor:
    """The tensor behind a `get_attr` node."""
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach()  # type: ignore[no-any-return]


def _forget_unread(module: GraphModule) -> None:
    """Drop parameters that no node reads any more; an exported program would carry the float weights along."""
    read = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in [n for n, _ in (*module.named_parameters(), *module.named_buffers()) if n not in read]:
        path, _, leaf = name.rpartition(".")
        delattr(module.get_submodule(path), leaf)


def _last_placeholder(graph: Any) -> Node:
    return [node for node in graph.nodes if node.op == "placeholder"][-1]  # type: ignore[no-any-return]
