"""Fake quantization by the shared policy, through torchao's PT2E.

`prepare` puts a fake quantizer behind every value that lies on an int8 grid in the artifacts, and in front of every int8 weight:

- feature maps: one scale and zero point per tensor, int8; what merely moves shares them, and so do both ends of a state;
- weights: one scale per output channel, -127 to 127, also those of the vector path, whose activations stay float;
- the camera port: exactly the bytes.

Ranges hold whatever was seen lately, as calibrated ones hold all that the calibration saw: they widen at once and shrink slowly. The moving
averages of Jacob et al. 2018 (arXiv 1712.05877, section 3.1) lag behind the weights and cut values off; a network that got used to that
misses it in the artifact. Weights take the range that they have. Rounding passes the gradient through (the same paper's section 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torchao.quantization.pt2e.fake_quantize import FakeQuantize, FakeQuantizeBase
from torchao.quantization.pt2e.observer import MinMaxObserver, MovingAveragePerChannelMinMaxObserver
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer import (
    FixedQParamsQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY, QuantizationSpecBase

from mvtool.converters.rewrites.linear import is_linear
from mvtool.quantization.calibration import INT8_MAX, INT8_MIN, affine, image_range
from mvtool.quantization.plan import Domains, operator_of
from mvtool.quantization.policy import Kernel, kernel_of
from mvtool.quantization.pt2e_graph import WEIGHT_MAX
from mvtool.quantization.training_graph import TrainingGraph, frame_node

FADING = 0.01
"""Share of its distance to the batch's extreme by which an end of a range shrinks per call; that of torch's moving averages."""


class RecentExtremes(MinMaxObserver):  # type: ignore[misc]
    """Smallest and largest value of the last hundred or so calls."""

    @torch.no_grad()
    def forward(self, values: Tensor) -> Tensor:
        """Take the extremes of `values`, of any shape."""
        low, high = torch.aminmax(values)
        if torch.isfinite(self.min_val):
            low = torch.minimum(low, self.min_val.lerp(low, FADING))
            high = torch.maximum(high, self.max_val.lerp(high, FADING))
        self.min_val.copy_(low)
        self.max_val.copy_(high)
        return values


def prepare(graph: TrainingGraph) -> fx.GraphModule:
    """The graph with fake quantizers.

    Args:
        graph: Used up.

    Returns:
        A module with the inputs and results of `graph.module`, which reads the same parameters.
    """
    prepared: fx.GraphModule = prepare_qat_pt2e(graph.module, _PolicyQuantizer(graph))
    return prepared


def fake_quantizers(module: nn.Module) -> list[FakeQuantizeBase]:
    """Every fake quantizer once."""
    return [child for child in module.modules() if isinstance(child, FakeQuantizeBase)]


def set_rounding(module: nn.Module, on: bool) -> None:
    """Switch rounding on or off; ranges are taken either way."""
    for quantizer in fake_quantizers(module):
        quantizer.enable_fake_quant(on)


@contextmanager
def ranges_kept(module: nn.Module) -> Iterator[None]:
    """Within, the ranges of activations do not move; weights keep taking their own."""
    activations = [quantizer for quantizer in fake_quantizers(module) if _is_activation(quantizer)]
    for quantizer in activations:
        quantizer.disable_observer()
    try:
        yield
    finally:
        for quantizer in activations:
            quantizer.enable_observer()


def _is_activation(quantizer: Any) -> bool:
    return isinstance(quantizer.activation_post_process, RecentExtremes)


def _activation() -> QuantizationSpec:
    return QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=FakeQuantize.with_args(observer=RecentExtremes),
        quant_min=INT8_MIN,
        quant_max=INT8_MAX,
        qscheme=torch.per_tensor_affine,
    )


def _weight() -> QuantizationSpec:
    observer = FakeQuantize.with_args(observer=MovingAveragePerChannelMinMaxObserver, averaging_constant=1.0, ch_axis=0)
    return QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=observer,
        quant_min=-WEIGHT_MAX,
        quant_max=WEIGHT_MAX,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )


class _PolicyQuantizer(Quantizer):  # type: ignore[misc]
    """Tells torchao what `mvtool.quantization.plan` decided."""

    def __init__(self, graph: TrainingGraph) -> None:
        self._domains: Domains = graph.domains
        self._stored = {node for members in graph.domains.groups for node in members}
        self._frame = frame_node(graph)
        self._frame_spec = _frame_spec(graph)

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        order = {node: place for place, node in enumerate(model.graph.nodes)}
        for members in self._domains.groups:
            made = sorted((node for node in members if not self._moves(node)), key=order.__getitem__)
            first, *others = made
            spec = self._frame_spec if self._frame in members else _activation()
            _annotation(first).output_qspec = spec
            for other in others:
                _annotation(other).output_qspec = SharedQuantizationSpec(first)
        for node in self._domains.int8_nodes:
            self._annotate_inputs(node)
        for node in self._domains.weight_only:
            _annotation(node).input_qspec_map[node.args[1]] = _weight()
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Nothing is left to check: the policy knows no operator without a kernel."""

    def _annotate_inputs(self, node: fx.Node) -> None:
        if is_linear(node):
            _annotation(node).input_qspec_map[node.args[1]] = _weight()
        if _carries(node):
            return  # what moves is rounded where it arrives, which is the same
        for source in [node.args[0]] if is_linear(node) else node.all_input_nodes:
            if source not in self._stored and source not in self._domains.fused:
                _annotation(node).input_qspec_map[source] = _activation()

    def _moves(self, node: fx.Node) -> bool:
        """Whether a value lies on its grid already, because it is nothing but values that do."""
        sources = node.all_input_nodes
        return node in self._domains.int8_nodes and _carries(node) and self._stored.issuperset(sources)


def _carries(node: fx.Node) -> bool:
    return kernel_of(operator_of(node)) is Kernel.CARRY


def _annotation(node: fx.Node) -> QuantizationAnnotation:
    found: QuantizationAnnotation = node.meta.setdefault(Q_ANNOTATION_KEY, QuantizationAnnotation(_annotated=True))
    return found


def _frame_spec(graph: TrainingGraph) -> QuantizationSpecBase:
    preprocessing = graph.program.info.preprocessing
    if preprocessing is None:
        return _activation()
    exact = affine(*image_range(preprocessing))
    return FixedQParamsQuantizationSpec(
        dtype=torch.int8,
        scale=exact.scale,
        zero_point=exact.zero_point,
        quant_min=INT8_MIN,
        quant_max=INT8_MAX,
        qscheme=torch.per_tensor_affine,
    )
