"""Proportions of scales that XNNPACK accepts.

XNNPACK computes a requantization in fixed point or in float32 with a bounded exponent, so it takes ratios
of scales within limits only. Outside them a model either does not load or the operator falls off the
accelerated path and splits the graph; both are refused at conversion, by name.

Limits: `src/operators/*.c` of github.com/google/XNNPACK ("scale ratio must be in [2**-10, 2**8) range",
"requantization scale must be less than 256.0") and the checks of TensorFlow Lite's delegate, each
confirmed by loading one-operator models just inside and just outside (ai-edge-litert 2.3;
`tests/quantization/test_proportions.py` repeats it). Mean, sum and the table-based operators
(logistic, tanh) take any ratio.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from mvtool.errors import ConversionError

if TYPE_CHECKING:
    from mvtool.converters.tflite_graph import Graph


class Ratio(Enum):
    """Which proportion of an operator is limited."""

    EACH_INPUT = "input scale / output scale"
    PRODUCT = "product of the input scales / output scale"
    EACH_WEIGHT = "input scale * weight scale / output scale"


@dataclass(frozen=True)
class Rule:
    """Limits of one kind of operator: `low <= ratio < high`.

    Attributes:
        ratio: The limited proportion.
        low: Smallest accepted value.
        high: First value that is too large.
        consequence: What XNNPACK does outside the limits.
    """

    ratio: Ratio
    low: float
    high: float
    consequence: str


LOADS_NOT = "the model would not load"
FALLS_OFF = "the operator would leave the accelerated path"

RULES: dict[str, Rule] = {
    "add": Rule(Ratio.EACH_INPUT, 2.0**-10, 2.0**8, FALLS_OFF),
    "sub": Rule(Ratio.EACH_INPUT, 2.0**-10, 2.0**8, FALLS_OFF),
    "mul": Rule(Ratio.PRODUCT, 2.0**-16, 2.0**8, FALLS_OFF),
    "conv2d": Rule(Ratio.EACH_WEIGHT, 0.0, 2.0**8, LOADS_NOT),
    "linear": Rule(Ratio.EACH_WEIGHT, 0.0, 2.0**8, LOADS_NOT),
    # XNNPACK takes 128 itself here, which is left out so that all upper limits read alike.
    "requantize": Rule(Ratio.EACH_INPUT, 2.0**-8, 2.0**7, FALLS_OFF),
    "leaky_relu": Rule(Ratio.EACH_INPUT, 2.0**-8, 2.0**7, FALLS_OFF),
}
"""By operator kind; kinds that are not here have no limit."""

KIND_OF_TFLITE = {
    "ADD": "add",
    "SUB": "sub",
    "MUL": "mul",
    "CONV_2D": "conv2d",
    "DEPTHWISE_CONV_2D": "conv2d",
    "FULLY_CONNECTED": "linear",
    "QUANTIZE": "requantize",
    "LEAKY_RELU": "leaky_relu",
}

REMEDY = (
    "Its range is far from its neighbours': calibrate with clips like those the model will see, check that the "
    "weights are trained, or convert with fp32"
)


@dataclass(frozen=True)
class Violation:
    """One proportion outside its limits.

    Attributes:
        operator: Kind and place, for example `add 'block0_sum'`.
        tensors: The tensors whose scales are out of proportion.
        quantity: The limited proportion, in words.
        ratio: Its value.
        low: Smallest accepted value.
        high: First value that is too large.
        consequence: What XNNPACK would do.
    """

    operator: str
    tensors: tuple[str, ...]
    quantity: str
    ratio: float
    low: float
    high: float
    consequence: str

    def __str__(self) -> str:
        """One sentence."""
        return (
            f"{self.operator}: {self.quantity} is {self.ratio:.3g} for {' and '.join(self.tensors)}; XNNPACK takes "
            f"{self.low:.3g} to {self.high:.3g}, so {self.consequence}"
        )


def check(
    op_kind: str,
    input_scales: Sequence[float],
    output_scale: float,
    *,
    place: str = "",
    tensors: Sequence[str] = (),
) -> list[Violation]:
    """Proportions of one operator that XNNPACK refuses.

    Args:
        op_kind: A key of `RULES`; others have no limit.
        input_scales: Scales of the inputs. For `conv2d` and `linear` the data's scale and then the
            weight's, one or one per channel; for `leaky_relu` the input's, and that times the slope.
        output_scale: Scale of the output.
        place: Name of the operator, for messages.
        tensors: Names of inputs and, last, the output, for messages.

    Examples:
        >>> check("add", [0.02, 0.01], 0.03)
        []
        >>> [round(v.ratio) for v in check("add", [10.0, 0.01], 0.03)]
        [333]
    """
    rule = RULES.get(op_kind)
    if rule is None:
        return []
    names = [repr(n) for n in tensors] or [f"input {i}" for i in range(len(input_scales))] + ["output"]
    found = []
    for ratio, members in _ratios(rule.ratio, input_scales, output_scale):
        if not (math.isfinite(ratio) and rule.low <= ratio < rule.high):
            involved = (*(names[i] for i in members if i < len(names) - 1), names[-1])
            operator = f"{op_kind} {place!r}" if place else op_kind
            found.append(Violation(operator, involved, rule.ratio.value, ratio, rule.low, rule.high, rule.consequence))
    return found


def _ratios(kind: Ratio, inputs: Sequence[float], output: float) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Ratios in float32, as XNNPACK computes them, with the inputs each belongs to."""
    scales, result = np.asarray(inputs, dtype=np.float32), np.float32(output)
    if kind is Ratio.EACH_INPUT:
        yield from ((float(scale / result), (i,)) for i, scale in enumerate(scales))
    elif kind is Ratio.PRODUCT:
        yield float(np.prod(scales, dtype=np.float32) / result), tuple(range(len(scales)))
    else:
        products = scales[0] * scales[1:] / result
        for extreme in {float(products.min()), float(products.max())}:
            yield extreme, (0, 1)


def violations(graph: Graph) -> list[Violation]:
    """Proportions of a quantized `.tflite` graph that XNNPACK refuses."""
    return [found for operator in graph.operators for found in _of_operator(graph, operator)]


def refuse(found: Sequence[Violation], model: str) -> None:
    """Raise if there are violations.

    Raises:
        ConversionError: Names each operator, its tensors and the limits.
    """
    if not found:
        return
    listed = "; ".join(str(v) for v in found[:5])
    more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
    raise ConversionError(f"The int8 scales of {model} are out of proportion. {listed}{more}. {REMEDY}.")


def _of_operator(graph: Graph, operator: Any) -> list[Violation]:
    kind = KIND_OF_TFLITE.get(graph.kind(operator))
    output = int(operator.outputs[0])
    if kind is None or graph.quantization(output) is None:
        return []
    inputs = [int(t) for t in operator.inputs if t >= 0]
    if kind in ("conv2d", "linear"):
        inputs = inputs[:2]
    if not all(graph.scales(t) for t in inputs):
        return []
    scales = [scale for t in inputs for scale in graph.scales(t)]
    if kind == "leaky_relu":
        scales.append(scales[0] * abs(float(operator.builtinOptions.alpha)))
        inputs.append(inputs[0])
    names = [graph.name(t) for t in (*inputs, output)]
    return check(kind, scales, graph.scales(output)[0], place=graph.name(output), tensors=names)
