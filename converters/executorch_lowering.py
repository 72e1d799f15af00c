"""From a spelled graph to the bytes of a `.pte`, through ExecuTorch's exporter.

The exporter is adjusted in six places while it runs, each for a measured reason; everything is restored
afterwards. Written against executorch 1.4.1, which the extra pins; the tests count delegates and transposes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from mvtool.converters.executorch_folding import fold
from mvtool.converters.executorch_graph import inputs_apart, is_weight_only
from mvtool.converters.executorch_passes import PURPOSE, without_retracing
from mvtool.extras import require

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

PATTERN_SEARCHES = frozenset({"ConvertToSDPAPass", "ConvertToUpsampleBilinear2d"})
"""Passes that look for decomposed attention and resizing. Each exports its patterns anew, half of the whole
conversion, and what they look for is never decomposed here: resizing is preserved, attention is delegated as it is."""
KEPT_META = frozenset({"val", "tensor_meta"})


def lower_to_executorch(
    exported: ExportedProgram, constant_methods: dict[str, Any], plan_inputs: bool = True
) -> tuple[bytes, list[str]]:
    """Delegate to XNNPACK and serialize.

    Args:
        exported: Functional graph, at most four axes.
        constant_methods: Method name to the constant it returns.
        plan_inputs: The program has memory for its inputs, into which the runtime copies what it is given; it reuses that
            memory within a step. Else the program reads the caller's memory and leaves it as it is.

    Returns:
        The file's bytes, and the names of the operators that stayed outside the delegates.
    """
    exir = require("executorch.exir", PURPOSE)
    # The passes change it.
    exported = copy.deepcopy(exported) if plan_inputs else inputs_apart(exported)
    strip_origins(exported.graph_module)
    with adjusted_exporter():
        partitioner = _partitioner()
        preserved, _ = partitioner.ops_to_not_decompose(exported)
        config = exir.EdgeCompileConfig(_check_ir_validity=False, preserve_ops=list(dict.fromkeys(preserved)))
        edge = exir.to_edge(exported, constant_methods=constant_methods, compile_config=config)
        edge = edge.to_backend(partitioner)
        outside = _outside(edge.exported_program().graph_module)
        planning = exir.passes.MemoryPlanningPass(alloc_graph_input=plan_inputs)
        backend = exir.ExecutorchBackendConfig(emit_stacktrace=False, memory_planning_pass=planning)
        program = edge.to_executorch(backend)
    return bytes(program.buffer), outside


def strip_origins(module: torch.fx.GraphModule) -> None:
    """Forget where nodes came from: stack traces hold machine paths, and copying provenance takes a third of the time."""
    for node in module.graph.nodes:
        node.meta = {key: value for key, value in node.meta.items() if key in KEPT_META}


@contextmanager
def adjusted_exporter() -> Iterator[None]:
    """The exporter's adjustments, for the duration of a block."""
    preprocess = require("executorch.backends.xnnpack.xnnpack_preprocess", PURPOSE)
    quant = require("executorch.backends.xnnpack.operators.quant_params", PURPOSE).QuantParams
    tagging = require("executorch.backends.xnnpack._passes.channels_last_tagged_reshape_pass", PURPOSE)
    is_dynamic = require("executorch.backends.xnnpack.utils.quant_utils", PURPOSE).is_dynamic_qdq
    permute = require("executorch.exir.dialects._ops", PURPOSE).ops.edge.aten.permute_copy.default
    tagged = tagging.ChannelsLastTaggedReshapePass
    serialize, from_bias = preprocess.serialize_xnnpack_binary, quant.from_bias

    def folded(graph: Any, constants: Any) -> bytes:
        fold(graph)
        return serialize(graph, constants)  # type: ignore[no-any-return]

    def bias_of(bias: Any, weight: Any, data: Any) -> Any:
        # Float activations with int8 weights; the exporter knows int8 weights with int8 activations only.
        return None if data is None else from_bias(bias, weight, data)

    to_last = tagged.input_to_nhwc

    def rounded_to_last(self: Any, module: Any, source: Any, reader: Any) -> None:
        if is_dynamic(source):
            _dynamic_to_last(self, module, source)
        else:
            to_last(self, module, source, reader)

    managers = preprocess.XNNPACKPassManager

    def needed_passes(program: Any, passes: Any = None) -> Any:
        manager = managers(program, passes=passes)
        manager.passes = [p for p in manager.passes if p.__name__ not in PATTERN_SEARCHES]
        return manager

    # A permutation of a value that XNNPACK holds channels-last must first see it as (N, C, H, W); the two
    # movements then cancel in `executorch_folding.fold`. The exporter would transpose in the wrong axes' terms instead.
    sensitive = tagged.memory_sensitive_ops_nchw | {permute}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(preprocess, "serialize_xnnpack_binary", folded))
        stack.enter_context(mock.patch.object(preprocess, "XNNPACKPassManager", needed_passes))
        stack.enter_context(mock.patch.object(quant, "from_bias", staticmethod(bias_of)))
        stack.enter_context(mock.patch.object(tagged, "memory_sensitive_ops_nchw", sensitive))
        stack.enter_context(mock.patch.object(tagged, "input_to_nhwc", rounded_to_last))
        stack.enter_context(without_retracing())
        yield


def _dynamic_to_last(layouts: Any, module: Any, dequantize: Any) -> None:
    """Transpose what a convolution rounds at run time before it is rounded.

    The exporter transposes the input of the whole delegate instead, from which the value was computed.

    Args:
        layouts: The exporter's pass, a `ChannelsLastTaggedReshapePass`.
        module: Its graph.
        dequantize: What the convolution reads.
    """
    import torch

    quantize = dequantize.args[0]
    source, found = quantize.args[0], quantize.args[1].args[0]
    if not layouts.is_nhwc_node(source):
        with module.graph.inserting_before(found):
            copy = layouts.create_call_function_node(
                graph_module=module, target=_to_copy(), args=(source,), memory_format=torch.channels_last
            )
        layouts.mark_as_nhwc_node(copy)
        for node in (found, quantize):
            node.replace_input_with(source, copy)
    layouts.mark_as_nhwc_node(quantize)


def _to_copy() -> Any:
    return require("executorch.exir.dialects._ops", PURPOSE).ops.edge.aten._to_copy.default


def _partitioner() -> Any:
    configs = require("executorch.backends.xnnpack.partition.config", PURPOSE)
    gemm = require("executorch.backends.xnnpack.partition.config.gemm_configs", PURPOSE)
    generic = require("executorch.backends.xnnpack.partition.config.generic_node_configs", PURPOSE)
    levels = require("executorch.backends.xnnpack.partition.config.xnnpack_config", PURPOSE).ConfigPrecisionType
    base = require("executorch.backends.xnnpack.partition.xnnpack_partitioner", PURPOSE).XnnpackPartitioner
    marks = require("executorch.backends.xnnpack.utils.quant_utils", PURPOSE)

    class WeightOnlyLinear(gemm.LinearConfig):  # type: ignore[misc, name-defined]
        """Dense layers of the vector path: XNNPACK has float kernels with int8 weights, the exporter no pattern."""

        def get_deps(self, node: Any, program: Any) -> tuple[bool, list[Any]]:
            if not is_weight_only(node):
                return super().get_deps(node, program)  # type: ignore[no-any-return]
            weight = node.args[1]
            marks.tag_as_implicit_q_dq(weight)
            return True, [weight, *weight.all_input_nodes]

    class Int8Pad(generic.ConstantPadConfig):  # type: ignore[misc, name-defined]
        """Padding of int8 values: XNNPACK has it, the exporter pads in float only."""

        def supported_precision_types(self) -> list[Any]:
            return [levels.FP32, levels.STATIC_QUANT]

    class Partitioner(base):  # type: ignore[misc, valid-type]
        """The same without a warning about `to_backend`, which is used to trace the graph once instead of thrice."""

        def _check_if_called_from_to_backend(self) -> bool:
            return False

    replaced = {gemm.LinearConfig: WeightOnlyLinear, generic.ConstantPadConfig: Int8Pad}
    return Partitioner(configs=[replaced.get(config, config) for config in configs.ALL_PARTITIONER_CONFIGS])


def _outside(module: torch.fx.GraphModule) -> list[str]:
    names = [getattr(n.target, "__name__", str(n.target)) for n in module.graph.nodes if n.op == "call_function"]
    return [name for name in names if name not in ("executorch_call_delegate", "getitem")]
