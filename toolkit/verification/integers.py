"""Integer arithmetic in the simulation of an int8 or int8-dynamic ExecuTorch artifact.

A PT2E graph describes an int8 operator as one on real numbers between dequantize and quantize. XNNPACK, which executes
the artifact, computes it on integers; the two decide differently what lies near the border of two steps, and deep
networks amplify that. Here the operators that the delegate fuses are computed as its kernels do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mvtool.quantization.plan import data_inputs, operator_of
from mvtool.quantization.policy import CLAMP_OPERATORS
from mvtool.quantization.pt2e_graph import attribute_of
from mvtool.runtimes.borders import Borders
from mvtool.runtimes.pytorch import PURE
from mvtool.runtimes.tflite_simulation.weights import is_dense, round_dynamically
from mvtool.runtimes.xnnpack_arithmetic import product_factor, sum_factors, weighted_factors

DEQUANTIZE, DEQUANTIZE_WEIGHT = "dequantize_per_tensor", "dequantize_per_channel"
DEQUANTIZE_DYNAMIC = "quantized_decomposed.dequantize_per_tensor.tensor"


def integer_arithmetic(module: Any) -> None:
    """Compute the int8 operators of a `torch.fx.GraphModule` as XNNPACK does; others stay as they are.

    Args:
        module: A PT2E graph; changed in place.
    """
    for node in list(module.graph.nodes):
        if operator_of(node) == "quantize_per_tensor":
            operation = _operation(node)
            if operation is not None:
                _replace(module, node, operation)
    for node in module.graph.nodes:
        if node.op == "call_function" and operator_of(node) in GRIDS:
            node.target = GRIDS[operator_of(node)]
    module.graph.eliminate_dead_code()
    module.recompile()


def round_at_run_time(module: Any, borders: Borders) -> None:
    """Round the activations of dynamic layers of a `torch.fx.GraphModule` as XNNPACK does, if it has any.

    That is each row of a dense layer, each position of a convolution that is one, and each picture of any other.

    Args:
        module: A PT2E graph, which finds one scale per tensor; changed in place.
        borders: Rounds.
    """

    def by_row(site: str, value: Tensor) -> Tensor:
        steps, unit = round_dynamically(value.reshape(-1, value.shape[-1]), lambda s: borders.round(site, s))
        return (steps * unit).reshape(value.shape)

    def by_position(site: str, value: Tensor) -> Tensor:
        return by_row(site, value.movedim(1, -1)).movedim(-1, 1)

    def by_picture(site: str, value: Tensor) -> Tensor:
        return by_row(site, value.flatten(1)).reshape(value.shape)

    for node in list(module.graph.nodes):
        layer = operator_of(node)
        if layer not in ("conv2d", "linear") or str(node.args[0].target) != DEQUANTIZE_DYNAMIC:
            continue
        source = node.args[0].args[0].args[0]
        round_ = by_row if layer == "linear" else by_position if _is_dense(module, node) else by_picture
        with module.graph.inserting_before(node):
            value = module.graph.call_function(round_, (node.name, source))
        node.update_arg(0, value)
    module.graph.eliminate_dead_code()
    module.recompile()


def _is_dense(module: Any, node: Any) -> bool:
    kernel = attribute_of(module, node.args[1].args[0]).shape[2:]
    given = dict(zip(("stride", "padding", "dilation", "groups"), node.args[3:], strict=False))
    return is_dense(kernel, given.get("stride", (1,)), given.get("padding", (0,)), given.get("groups", 1))


class _Operation:
    """An int8 operator: where it reads, what it computes, where it stops.

    Attributes:
        node: The operator.
        sources: Its dequantize nodes.
        result: The quantize node.
        limits: Lowest and highest result in steps from the zero point.
    """

    def __init__(self, node: Any, sources: Sequence[Any], result: Any, bounds: tuple[float, float]) -> None:
        self.node, self.sources, self.result = node, list(sources), result
        scale, zero, low, high = (float(value) for value in result.args[1:5])
        steps = [float(np.rint(np.float32(bound) / np.float32(scale))) for bound in bounds]
        self.limits = (max(low - zero, steps[0]), min(high - zero, steps[1]))

    @property
    def scales(self) -> list[float]:
        """Of the sources, then of the result."""
        return [float(node.args[1]) for node in (*self.sources, self.result)]


def _operation(quantize: Any) -> _Operation | None:
    node, bounds = quantize.args[0], (-np.inf, np.inf)
    if operator_of(node) in CLAMP_OPERATORS and operator_of(node.args[0]) in STEPS:
        bounds, node = _clamp_bounds(node), node.args[0]
    if operator_of(node) not in STEPS or len(node.users) != 1:
        return None
    sources = data_inputs(node)
    weighted = operator_of(node) in ("conv2d", "linear")
    if any(operator_of(source) != DEQUANTIZE for source in sources) or len(sources) != (1 if weighted else 2):
        return None
    if weighted and operator_of(node.args[1]) != DEQUANTIZE_WEIGHT:
        return None
    return _Operation(node, sources, quantize, bounds)


def _clamp_bounds(node: Any) -> tuple[float, float]:
    if operator_of(node) == "hardtanh":
        bounds = [float(bound) for bound in node.args[1:]]
        low, high = bounds + [-1.0, 1.0][len(bounds) :]
        return low, high
    return 0.0, 6.0 if operator_of(node) == "relu6" else np.inf


def _replace(module: Any, quantize: Any, operation: _Operation) -> None:
    step, arguments = STEPS[operator_of(operation.node)](module, operation)
    graph = module.graph
    with graph.inserting_before(quantize):
        offsets = [graph.call_function(offset, (s.args[0], int(s.args[2]))) for s in operation.sources]
        value = graph.call_function(step, (*offsets, *arguments))
        stored = graph.call_function(store, (value, *operation.limits, int(quantize.args[2])))
    quantize.replace_all_uses_with(stored)


def steps_of(value: Tensor, scale: float) -> Tensor:
    """`value` in steps of an int8 grid, by the inverse of the scale."""
    return value * (1.0 / scale)


def quantize(value: Tensor, scale: float, zero_point: int, low: int, high: int, dtype: torch.dtype) -> Tensor:
    """The grid's integers, halves to even, as PT2E defines them."""
    return steps_of(value, scale).round_().add_(zero_point).clamp_(low, high).to(dtype)


def dequantize(stored: Tensor, scale: float, zero_point: int, *_: object, **__: object) -> Tensor:
    """The grid's real numbers in float32, as PT2E defines them; what else its operator is given says nothing more."""
    return offset(stored, zero_point).mul_(scale)


def offset(stored: Tensor, zero_point: int) -> Tensor:
    """`stored - zero point`, integers in float32."""
    return stored.float().sub_(zero_point)


def store(value: Tensor, low: float, high: float, zero_point: int) -> Tensor:
    """Steps from the zero point, already rounded, as int8."""
    return value.clamp(low, high).add_(zero_point).to(torch.int8)


def total(first: Tensor, second: Tensor, factor: float, other: float) -> Tensor:
    """Sum; halves up. In float64 the products are exact, as they are on integers."""
    return first.double().mul_(factor).add_(second.double().mul_(other)).add_(0.5).floor_().float()


def product(first: Tensor, second: Tensor, factor: float) -> Tensor:
    """Product; halves to even."""
    return (first * second).mul_(factor).round_()


def convolution(value: Tensor, weight: Tensor, bias: Tensor | None, factors: Tensor, *options: Any) -> Tensor:
    """Convolution of (N, C, H, W) by integers; halves to even."""
    return F.conv2d(value, weight, bias, *options).mul_(factors.reshape(1, -1, 1, 1)).round_()


def dense(value: Tensor, weight: Tensor, bias: Tensor | None, factors: Tensor) -> Tensor:
    """Dense layer over the last axis by integers; halves to even."""
    return F.linear(value, weight, bias).mul_(factors).round_()


GRIDS: dict[str, Callable[..., Tensor]] = {"quantize_per_tensor": quantize, "dequantize_per_tensor": dequantize}
for function in (quantize, dequantize, offset):
    setattr(function, PURE, True)


def _sum(module: Any, operation: _Operation) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
    first, second = sum_factors(*operation.scales)
    return total, (first, -second if operator_of(operation.node) == "sub" else second)


def _product(module: Any, operation: _Operation) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
    return product, (product_factor(*operation.scales),)


def _weighted(module: Any, operation: _Operation) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
    node = operation.node
    stored, scale = (attribute_of(module, argument) for argument in node.args[1].args[:2])
    source, result = operation.scales
    bias = attribute_of(module, node.args[2]) if len(node.args) > 2 and node.args[2] is not None else None
    constants: list[Tensor | None] = [stored.float()]
    # The graph holds the bias on its int32 grid as real numbers.
    constants.append(None if bias is None else torch.round(bias.double() / (scale.double() * source)).float())
    constants.append(torch.from_numpy(weighted_factors(source, scale.numpy(), result)))
    arguments = [None if value is None else _constant(module, operation.result, value) for value in constants]
    if operator_of(node) == "linear":
        return dense, tuple(arguments)
    return convolution, (*arguments, *node.args[3:])


def _constant(module: Any, before: Any, value: Tensor) -> Any:
    name = f"_integers_{sum(1 for _ in module.buffers())}"
    module.register_buffer(name, value)
    with module.graph.inserting_before(before):
        return module.graph.get_attr(name)


STEPS: dict[str, Callable[[Any, _Operation], tuple[Callable[..., Tensor], tuple[Any, ...]]]] = {
    "add": _sum,
    "sub": _sum,
    "mul": _product,
    "conv2d": _weighted,
    "linear": _weighted,
}
