"""Which tensors of a graph become int8: one policy for all targets.

Feature maps, tensors with spatial extent, are int8. The *vector path* - running means, squeeze-excite,
pooled features, the dense layers after them, and the pointwise layer whose map is pooled and read by nothing
else - keeps float activations and has int8 weights: these tensors are tiny, and int8 ruins them (a running
mean cannot move once a step falls under half a unit). So do *tokens*, the rows (N, rows, C) that attention and layer norms work on, as far as they are rows.
Operators that an int8 kernel or table exists for are computed in int8, all others in float between a
dequantize and a quantize.

That is the precision int8. In int8-dynamic and int8-weights every activation, port and state is float32, as the vector
path is, and `WEIGHTS` says what each runtime does with the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from mvtool.ports import Precision, Runtime, StateForm, TensorPort
from mvtool.program import StreamProgram

FLOAT_FORMS = frozenset({StateForm.MEAN, StateForm.COUNTER, StateForm.PHASE})
"""States whose float value is the point: increments far below an int8 step."""


class Kernel(Enum):
    """How an operator treats int8 values.

    COMPUTE: reads int8, writes int8 with a scale of its own.
    CARRY: moves values; all its inputs and its output share one scale.
    FLOAT: has no int8 form.
    """

    COMPUTE = "compute"
    CARRY = "carry"
    FLOAT = "float"


class WeightForm(Enum):
    """How an operator on float activations holds its weights.

    DYNAMIC: int8; the kernel rounds the activations to 8 bits at run time and multiplies integers.
    STORED: int8 in the file; the arithmetic is float32.
    FLOAT: float32; the runtime has no form with int8 weights.
    """

    DYNAMIC = "dynamic"
    STORED = "stored"
    FLOAT = "float"


@dataclass(frozen=True)
class Weights:
    """The weights of a graph with float activations, by layer.

    Attributes:
        dense: Of dense layers.
        convolution: Of 2D convolutions whose kernels see several channels.
        depthwise: Of 2D convolutions whose kernels see one channel.
        pointwise_as_dense: 1x1 convolutions are written as dense layers over the channels of each position, for the
            sake of the dense layers' form.
        exact_gates: Activations are not rounded at run time on the way to an int8 feature map. The gates of squeeze-excite are
            such: their layers are small, and one step in a gate moves a whole channel.
    """

    dense: WeightForm
    convolution: WeightForm
    depthwise: WeightForm
    pointwise_as_dense: bool = False
    exact_gates: bool = False


ALL_STORED = Weights(WeightForm.STORED, WeightForm.STORED, WeightForm.STORED)
VECTOR_PATH: Mapping[Runtime, Weights] = {
    Runtime.TFLITE: Weights(WeightForm.DYNAMIC, WeightForm.DYNAMIC, WeightForm.FLOAT),
    Runtime.EXECUTORCH: Weights(WeightForm.DYNAMIC, WeightForm.DYNAMIC, WeightForm.STORED, exact_gates=True),
    Runtime.COREML: ALL_STORED,
}
"""What each runtime's int8 artifacts do where activations are float."""
WEIGHTS: Mapping[tuple[Runtime, Precision], Weights] = {
    (Runtime.TFLITE, Precision.INT8_DYNAMIC): Weights(WeightForm.DYNAMIC, WeightForm.DYNAMIC, WeightForm.STORED),
    (Runtime.TFLITE, Precision.INT8_WEIGHTS): ALL_STORED,
    (Runtime.EXECUTORCH, Precision.INT8_DYNAMIC): Weights(WeightForm.DYNAMIC, WeightForm.DYNAMIC, WeightForm.FLOAT),
    (Runtime.EXECUTORCH, Precision.INT8_WEIGHTS): Weights(
        WeightForm.STORED, WeightForm.FLOAT, WeightForm.FLOAT, pointwise_as_dense=True
    ),
    (Runtime.COREML, Precision.INT8_WEIGHTS): ALL_STORED,
}
"""Core ML has no kernel that rounds activations at run time. XNNPACK has such kernels for dense layers and convolutions but
depthwise ones, and float kernels with int8 weights for dense layers alone; TFLite's delegate turns other int8 weights
into float once, when the model is loaded, ExecuTorch's does not."""


COMPUTE_OPERATORS = frozenset(
    {
        "conv2d",
        "linear",
        "add",
        "sub",
        "mul",
        "mean",
        "relu",
        "relu6",
        "hardtanh",
        "clamp",
        "hardswish",
        "hardsigmoid",
        "sigmoid",
        "tanh",
        "leaky_relu",
        "elu",
        "gelu",
        "avg_pool2d",
    }
)
CARRY_OPERATORS = frozenset(
    {
        "cat",
        "slice",
        "select",
        "permute",
        "transpose",
        "view",
        "_unsafe_view",
        "reshape",
        "flatten",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "clone",
        "alias",
        "contiguous",
        "constant_pad_nd",
        "pad",
        "max_pool2d",
        "split",
        "split_with_sizes",
        "chunk",
        "expand",
    }
)
CLAMP_OPERATORS = frozenset({"relu", "relu6", "hardtanh"})
"""Activations that an int8 convolution, dense layer or addition computes while it writes its result."""


TOKEN_OPERATORS = frozenset(
    {"bmm", "matmul", "layer_norm", "native_layer_norm", "scaled_dot_product_attention", "rsqrt"}
)
"""Operators whose rows are tokens: products of attention, layer norm, and what a layer norm becomes. None has an int8 kernel,
and what stands between them is small or centred so close to 0 that XNNPACK refuses the scales of its sums. A softmax alone
makes no tokens: it may stand at the end of any network."""
SCORE_OPERATORS = frozenset({"add", "sub", "mul", "div", "masked_fill", "where", "tanh", "clamp"})
"""Operators beside movement that stand between a product of attention and its softmax; heads may be on a fourth axis there."""
SOFTMAXES = frozenset({"softmax", "_softmax"})
PRODUCTS = frozenset({"bmm", "matmul"})
STATISTIC_OPERATORS = frozenset({"mean", "sub", "mul", "add"})
"""Operators beside movement that stand between the mean of a norm and its root."""
ROOTS = frozenset({"rsqrt", "sqrt"})


def kernel_of(operator: str) -> Kernel:
    """The kind of the ATen operator named `operator`, for example `"conv2d"`; in-place and copy forms count alike."""
    name = operator.removesuffix("_copy") if operator not in CARRY_OPERATORS else operator
    if name in COMPUTE_OPERATORS:
        return Kernel.COMPUTE
    return Kernel.CARRY if name in CARRY_OPERATORS else Kernel.FLOAT


def is_feature_map(shape: Sequence[int]) -> bool:
    """Whether a tensor has spatial extent.

    In four axes the picture is either the last two (N, C, H, W) or the middle two (N, H, W, C); with a
    single axis longer than 1 it is a vector, wherever a change of layout left that axis. A tensor of
    three axes is a sequence (N, C, T); one of two or fewer is a vector per example.

    Examples:
        >>> is_feature_map((1, 80, 22, 22)), is_feature_map((1, 1, 1, 80)), is_feature_map((1, 80, 1, 1))
        (True, False, False)
        >>> is_feature_map((1, 480)), is_feature_map((1, 16, 4)), is_feature_map((1, 1, 24, 1))
        (False, True, False)
    """
    if len(shape) == 4:
        several = sum(size > 1 for size in shape) > 1
        return several and math.prod(shape[2:]) > 1 and math.prod(shape[1:3]) > 1
    return len(shape) == 3 and sum(size > 1 for size in shape) > 1


def is_rows(shape: Sequence[int]) -> bool:
    """Whether a tensor may hold tokens: several rows of several values in two or three axes, or as a picture of height 1,
    which some forms of a layer norm are.

    Examples:
        >>> is_rows((1, 6, 128)), is_rows((6, 1, 128)), is_rows((6, 128)), is_rows((1, 6, 1, 128))
        (True, True, True, True)
        >>> is_rows((1, 128)), is_rows((1, 128, 1)), is_rows((1, 128, 1, 1)), is_rows((1, 128, 8, 8))
        (False, False, False, False)
    """
    if len(shape) in (2, 3):
        return shape[-1] > 1 and math.prod(shape[:-1]) > 1
    return len(shape) == 4 and shape[0] == shape[2] == 1 and min(shape[1], shape[3]) > 1


def int8_states(program: StreamProgram) -> frozenset[str]:
    """Names of the states that int8 artifacts hold in int8."""
    return frozenset(
        state.logical.name
        for state in program.states
        if state.form not in FLOAT_FORMS and is_real(state.input) and is_feature_map(state.input.shape)
    )


def int8_inputs(program: StreamProgram) -> frozenset[str]:
    """Names of the model inputs that int8 artifacts may take in int8: frames and other feature maps."""
    return frozenset(port.name for port in program.inputs if is_real(port) and is_feature_map(port.shape))


def is_real(port: TensorPort) -> bool:
    """Whether the port holds real numbers, not indices or flags."""
    return port.dtype in ("float32", "float16")
