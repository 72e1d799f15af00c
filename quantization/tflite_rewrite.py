"""Turn a float `.tflite` graph into its int8 form, in place.

Every tensor keeps one *home* form, int8 if an int8 operator writes it or it is an int8 port, else float.
The other form is made by one QUANTIZE or DEQUANTIZE where somebody needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mvtool.converters.tflite_graph import Graph
from mvtool.ports import AnyArray, Quantization, Runtime
from mvtool.quantization.policy import VECTOR_PATH, WeightForm
from mvtool.quantization.policy import Weights as WeightForms
from mvtool.quantization.tflite_domains import CLAMPS, HAS_WEIGHTS, Domains
from mvtool.quantization.tflite_scales import Scales
from mvtool.quantization.tflite_weights import (
    Weights,
    constant_parameters,
    per_channel,
    quantize,
    quantize_bias,
    scale_floor,
)

# Versions of the operators whose int8 or dynamic form came with them
# (tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc).
INT8_VERSION = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "RESHAPE": 1,
    "QUANTIZE": 2,
}
OTHER_VERSION = 2
DYNAMIC_VERSION = {"CONV_2D": 5, "FULLY_CONNECTED": 9}
PER_CHANNEL_DEQUANTIZE_VERSION = 5


class Rewriter:
    """One pass over a graph.

    Attributes:
        rounded_weights: int8 tensor of each float tensor of weights, and its axis of channels, whose operators compute in float.
    """

    def __init__(
        self,
        graph: Graph,
        domains: Domains,
        scales: Scales,
        int8_inputs: Mapping[int, Quantization],
        int8_outputs: Mapping[int, Quantization],
        weights: WeightForms = VECTOR_PATH[Runtime.TFLITE],
    ) -> None:
        """Prepare.

        Args:
            graph: A float graph; `run` changes it.
            domains: Which operators compute in int8.
            scales: Parameters of tensors with an int8 form.
            int8_inputs: Positions of the graph's inputs that are int8, with their parameters.
            int8_outputs: The same for outputs.
            weights: What becomes of the weights of operators that compute in float.
        """
        self.graph, self.domains, self.scales = graph, domains, scales
        self._inputs, self._outputs = int8_inputs, int8_outputs
        self._forms = {
            "FULLY_CONNECTED": weights.dense,
            "CONV_2D": weights.convolution,
            "DEPTHWISE_CONV_2D": weights.depthwise,
        }
        self.rounded_weights: dict[tuple[int, int], int] = {}
        self._float_weights: dict[int, int] = {}
        self._done: list[Any] = []
        self._home: set[int] = set()
        self._other: dict[tuple[int, Quantization | None], int] = {}

    def run(self) -> None:
        """Rewrite the graph."""
        for position, parameters in self._inputs.items():
            self._retype(self.graph.inputs[position], parameters)
        for operator in self.graph.operators:
            if operator in self.domains:
                self._int8(operator)
            else:
                self._float(operator)
        outputs = [self._output(position, t) for position, t in enumerate(self.graph.outputs)]
        self.graph.replace_operators(self._done)
        self._rename_outputs(outputs)

    def _int8(self, operator: Any) -> None:
        kind, output = self.graph.kind(operator), int(operator.outputs[0])
        result = self.scales.of[output]
        if kind in HAS_WEIGHTS:
            data = self._as_int8(operator, int(operator.inputs[0]))
            operator.inputs = [data, *self._static_weights(operator, kind, data)]
        else:
            operator.inputs = [self._operand(operator, int(t), result) for t in operator.inputs]
        if kind in CLAMPS:
            operator = self._clamp(operator, CLAMPS[kind], result)
        self.graph.code(self.graph.kind(operator), INT8_VERSION.get(self.graph.kind(operator), OTHER_VERSION))
        for tensor in operator.outputs:
            self._retype(int(tensor), self.scales.of[int(tensor)])
        self._done.append(operator)

    def _float(self, operator: Any) -> None:
        kind = self.graph.kind(operator)
        operator.inputs = [int(t) if t < 0 else self._as_float(int(t)) for t in operator.inputs]
        form = WeightForm.FLOAT if id(operator) in self.domains.exact else self._forms.get(kind, WeightForm.FLOAT)
        value = None if form is WeightForm.FLOAT else self.graph.constant(int(operator.inputs[1]))
        if value is not None and value.dtype == np.float32:
            weight = self._rounded(int(operator.inputs[1]), value, 3 if kind == "DEPTHWISE_CONV_2D" else 0)
            operator.inputs[1] = self._dequantized(weight, value) if form is WeightForm.STORED else weight
            if form is WeightForm.DYNAMIC:
                self._compute_dynamically(operator, kind)
        self._done.append(operator)

    def _compute_dynamically(self, operator: Any, kind: str) -> None:
        if kind == "FULLY_CONNECTED":
            operator.builtinOptions.asymmetricQuantizeInputs = True
        self.graph.code(kind, DYNAMIC_VERSION[kind])

    def _rounded(self, weight: int, value: AnyArray, axis: int) -> int:
        """int8 weights; steps of a sequence that share their weights still do."""
        if (weight, axis) not in self.rounded_weights:
            self.rounded_weights[weight, axis] = self._held(self.graph.name(weight), per_channel(value, axis))
        return self.rounded_weights[weight, axis]

    def _dequantized(self, weight: int, value: AnyArray) -> int:
        """The float form of int8 weights, which delegates and the runtime compute once, when the model is loaded."""
        if weight not in self._float_weights:
            new = self.graph.add_tensor(f"{self.graph.name(weight)}_float", value.shape, "float32")
            version = PER_CHANNEL_DEQUANTIZE_VERSION
            self._done.append(self.graph.new_operator("DEQUANTIZE", [weight], [new], "DequantizeOptions", version))
            self._float_weights[weight] = new
        return self._float_weights[weight]

    def _operand(self, operator: Any, tensor: int, result: Quantization) -> int:
        """The int8 form of one input of an operator without weights."""
        if tensor < 0 or self.graph.dtype(tensor) not in ("float32", "int8"):
            return tensor
        value = self.graph.constant(tensor)
        if value is not None:
            return tensor if value.dtype != np.float32 else self._constant(operator, tensor, value, result)
        return self._as_int8(operator, tensor)

    def _constant(self, operator: Any, tensor: int, value: Any, result: Quantization) -> int:
        own = self.graph.kind(operator) in ("ADD", "SUB", "MUL")
        parameters = constant_parameters(value) if own else result
        index = self.graph.add_constant(f"{self.graph.name(tensor)}_int8", quantize(value, parameters))
        self.graph.set_quantization(index, [parameters.scale], [parameters.zero_point])
        return index

    def _static_weights(self, operator: Any, kind: str, data: int) -> list[int]:
        source = self.graph.quantization(data)
        assert source is not None
        weight, bias = int(operator.inputs[1]), int(operator.inputs[2]) if len(operator.inputs) > 2 else -1
        offsets = self.graph.constant(bias)
        axis = 3 if kind == "DEPTHWISE_CONV_2D" else 0
        value = self.graph.constant(weight)
        assert value is not None
        weights = per_channel(value, axis, scale_floor(offsets, source.scale))
        tensors = [self._held(self.graph.name(weight), weights)]
        if offsets is not None:
            integers, units = quantize_bias(offsets, source.scale, weights)
            tensors.append(self.graph.add_constant(f"{self.graph.name(bias)}_int32", integers))
            self.graph.set_quantization(tensors[-1], units.tolist(), [0] * len(units))
        return tensors

    def _held(self, name: str, weights: Weights) -> int:
        index = self.graph.add_constant(f"{name}_int8", weights.values)
        self.graph.set_quantization(index, weights.scales.tolist(), [0] * len(weights.scales), weights.axis)
        return index

    def _clamp(self, operator: Any, activation: int, result: Quantization) -> Any:
        """RELU and its kin have no int8 kernel: a sum with 0 that clamps while it writes has one."""
        zero = self.graph.add_constant(
            f"{self.graph.name(int(operator.outputs[0]))}_zero", np.zeros((1,), dtype=np.int8)
        )
        self.graph.set_quantization(zero, [result.scale], [0])
        replacement = self.graph.new_operator("ADD", [*operator.inputs, zero], operator.outputs, "AddOptions", 2)
        replacement.builtinOptions.fusedActivationFunction = activation
        return replacement

    def _retype(self, tensor: int, parameters: Quantization) -> None:
        self.graph.set_quantization(tensor, [parameters.scale], [parameters.zero_point], dtype="int8")
        self._home.add(tensor)

    def _as_int8(self, operator: Any, tensor: int) -> int:
        wanted = self.scales.of[tensor]
        if (id(operator), tensor) in self.scales.carried:
            wanted = self.scales.of[int(operator.outputs[0])]
        return self._converted(tensor, wanted)

    def _as_float(self, tensor: int) -> int:
        return self._converted(tensor, None) if tensor in self._home else tensor

    def _converted(self, tensor: int, wanted: Quantization | None) -> int:
        """`tensor` in int8 with `wanted` parameters, or in float for None."""
        held = self.graph.quantization(tensor) if tensor in self._home else None
        if held == wanted:
            return tensor
        if (tensor, wanted) not in self._other:
            name = f"{self.graph.name(tensor)}_{'float' if wanted is None else 'int8'}"
            dtype = "float32" if wanted is None else "int8"
            new = self.graph.add_tensor(name, self.graph.shape(tensor), dtype, wanted)
            kind, options = ("DEQUANTIZE", "DequantizeOptions") if wanted is None else ("QUANTIZE", "QuantizeOptions")
            self._done.append(self.graph.new_operator(kind, [tensor], [new], options, 2))
            self._other[tensor, wanted] = new
        return self._other[tensor, wanted]

    def _output(self, position: int, tensor: int) -> int:
        return self._converted(tensor, self._outputs.get(position))

    def _rename_outputs(self, outputs: list[int]) -> None:
        """The port's name moves to the tensor that is the port now, in the graph and in the signature."""
        signature = self.graph.model.signatureDefs[0]
        inputs = [(_text(e.name), int(e.tensorIndex)) for e in signature.inputs]
        names = [_text(e.name) for e in signature.outputs]
        for old, new in zip(self.graph.outputs, outputs, strict=True):
            if old != new:
                self.graph.body.tensors[old].name = f"{self.graph.name(old)}_inner".encode()
        self.graph.set_ports(inputs, list(zip(names, outputs, strict=True)))


def _text(raw: Any) -> str:
    return raw.decode() if isinstance(raw, bytes) else str(raw)


def float_weights_left(graph: Graph, exact: frozenset[int] = frozenset()) -> list[str]:
    """Operators that keep float weights of some size, for the report.

    Args:
        graph: Rewritten.
        exact: Identities of operators that were asked to.
    """
    found = []
    for operator in graph.operators:
        if graph.kind(operator) not in HAS_WEIGHTS or id(operator) in exact:
            continue
        value = graph.constant(int(operator.inputs[1]))
        if value is not None and value.dtype == np.float32:
            found.append(f"{graph.kind(operator)} {graph.name(int(operator.outputs[0]))!r}")
    return found
