"""Lowering gives the same results with at most four axes and no 3D operator."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from lowered import captured, check, operators
from rewrite_models import Apply, Fifo, Gated, randomise
from torch import nn

from mvtool.converters.lowering import lower
from mvtool.converters.recipe import RECIPES, Recipe, TemporalForm, recipe_for
from mvtool.errors import ConversionError, UsageError
from mvtool.ports import Precision, Runtime

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

TFLITE = recipe_for(Runtime.TFLITE, Precision.FP32)
INT8 = recipe_for(Runtime.TFLITE, Precision.INT8)
COREML = recipe_for(Runtime.COREML, Precision.FP32)
EXECUTORCH = recipe_for(Runtime.EXECUTORCH, Precision.FP32)
CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "spatial": {"kernel_size": (1, 3, 3), "padding": (0, 1, 1), "stride": (1, 2, 2)},
    "pointwise": {"kernel_size": 1},
    "full": {"kernel_size": 3, "padding": 1},
    "full strided": {"kernel_size": 3, "padding": 1, "stride": 2},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 2},
    "depthwise": {"kernel_size": 3, "padding": 1, "groups": 4},
    "depthwise in time": {"kernel_size": (3, 1, 1), "groups": 4, "bias": False},
    "depthwise in time, strided": {"kernel_size": (3, 1, 1), "groups": 4, "stride": (2, 1, 1), "padding": (1, 0, 0)},
    "depthwise in time, dilated": {"kernel_size": (2, 1, 1), "groups": 4, "dilation": (3, 1, 1)},
    "all frames at once": {"kernel_size": (6, 3, 3), "padding": (0, 1, 1)},
    "same": {"kernel_size": (2, 4, 3), "padding": "same"},
    "two per group": {"kernel_size": (6, 3, 3), "groups": 4},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("recipe", [TFLITE, COREML, EXECUTORCH], ids=lambda r: r.temporal.value)
def test_conv3d_of_a_clip_equals_its_2d_form(name: str, recipe: Recipe) -> None:
    torch.manual_seed(1)
    check(nn.Conv3d(4, 8 if "two" in name else 4, **CONVOLUTIONS[name]).eval(), "1x4x6x9x8", recipe)


@pytest.mark.parametrize("recipe", [TFLITE, COREML, EXECUTORCH], ids=lambda r: r.temporal.value)
@pytest.mark.parametrize(
    ("layer", "frames"),
    [
        (nn.Conv3d(4, 4, 3, 2, 1), 6),
        (nn.Conv3d(4, 4, 1, (2, 1, 1)), 7),
        (nn.MaxPool3d(3, 2, 1), 7),
        (nn.MaxPool3d((3, 1, 1), (2, 1, 1)), 3),
        (nn.AvgPool3d((2, 1, 1), (3, 1, 1)), 17),
        (nn.Conv3d(4, 4, (3, 1, 1), (2, 1, 1)), 33),
    ],
    ids=["convolution", "no whole group", "pool", "pool to one frame", "gaps", "many frames"],
)
def test_strides_in_time_take_no_slice_with_a_step(layer: nn.Module, frames: int, recipe: Recipe) -> None:
    """XNNPACK takes none; Core ML has one of its own."""
    program = check(layer.eval(), f"1x4x{frames}x6x5", recipe)
    slices = [n for n in program.exported.graph.nodes if n.target is torch.ops.aten.slice.Tensor]
    assert slices
    assert recipe is COREML or {n.args[4] for n in slices if len(n.args) > 4} <= {1}


FUNCTIONS = {
    "average pool": lambda x: F.avg_pool3d(x, (1, 3, 3), (1, 2, 2)),
    "average pool over time": lambda x: F.avg_pool3d(x, 2, 2),
    "average pool, uncounted padding": lambda x: F.avg_pool3d(
        x, (1, 3, 3), (1, 2, 2), (0, 1, 1), count_include_pad=False
    ),
    "average pool, counted padding": lambda x: F.avg_pool3d(x, 3, 2, 1),
    "maximum pool": lambda x: F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1)),
    "maximum pool over time": lambda x: F.max_pool3d(x, 3, 2, 1),
    "maximum pool, dilated": lambda x: F.max_pool3d(x, 2, 1, (0, 1, 1), 2),
    "average pool, uncounted padding in time": lambda x: F.avg_pool3d(x, 3, 2, 1, count_include_pad=False),
    "average pool, own divisor": lambda x: F.avg_pool3d(x, 2, 2, divisor_override=3),
    "average pool over time, own divisor": lambda x: F.avg_pool3d(x, (2, 1, 1), divisor_override=3),
    "global pool": lambda x: F.adaptive_avg_pool3d(x, 1).flatten(1),
    "spatial pool": lambda x: F.adaptive_avg_pool3d(x, (6, 1, 1)),
    "even adaptive pool": lambda x: F.adaptive_avg_pool3d(x, (3, 2, 2)),
    "mean without keepdim": lambda x: x.mean((3, 4)),
    "mean over time": lambda x: x.mean(2),
    "amax": lambda x: x.amax((2, 3, 4), keepdim=True) + x,
    "shift in time": lambda x: torch.cat([x[:, :2, 1:], torch.zeros_like(x[:, :2, :1])], 2) + x[:, 2:],
    "frames first": lambda x: x.permute(0, 2, 1, 3, 4).reshape(6, 4, 8, 8).relu(),
    "frames first and back": lambda x: F.relu(x.transpose(1, 2).flatten(0, 1)).view(1, 6, 4, 8, 8).transpose(1, 2),
    "one frame": lambda x: x[:, :, -1] * 2,
    "frame made video": lambda x: x[:, :, 0].unsqueeze(2) + x,
    "channel bias": lambda x: x + torch.arange(4.0).view(1, 4, 1, 1, 1),
    "picture bias": lambda x: x * torch.arange(8.0),
    "chunks": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "split sizes": lambda x: torch.cat(torch.split(x, [1, 5], 2)[::-1], 2),
    "softmax over time": lambda x: x.softmax(2),
    "pad before": lambda x: F.pad(x, (0, 1, 0, 1, 2, 0)),
    "swish": lambda x: F.silu(x) + F.hardswish(x) + torch.sigmoid(x),
    "parts of a constant": lambda x: torch.cat([x.mean((3, 4)) @ w for w in torch.eye(6).chunk(3, 1)[::-1]], 2),
    "stretched": lambda x: x.mean((3, 4), keepdim=True).expand(-1, -1, -1, 8, 8) * x,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_video_keep_their_value(name: str) -> None:
    for recipe in (TFLITE, COREML):
        check(Apply(FUNCTIONS[name]), "1x4x6x8x8", recipe)


@pytest.mark.parametrize("mode", ["replicate", "reflect", "circular"])
@pytest.mark.parametrize("amounts", [(1, 2, 0, 3, 2, 1), (0, 0, 0, 0, 3, 0), (3, 3, 3, 3, 0, 0)], ids=str)
def test_padding_with_own_cells_keeps_its_value(mode: str, amounts: tuple[int, ...]) -> None:
    for recipe in (TFLITE, COREML):
        program = check(Apply(lambda x: F.pad(x, amounts, mode)), "1x2x4x6x5", recipe)
        assert program.rewrites[-1].max_difference == 0
        assert not [op for op in operators(program) if "pad" in op]
    check(Apply(lambda x: F.pad(x, amounts[:4], mode)), "1x2x6x5", COREML)


@pytest.mark.parametrize("mode", ["replicate", "circular"])
def test_one_frame_is_padded_in_time_with_itself(mode: Literal["replicate", "circular"]) -> None:
    check(nn.Conv3d(2, 3, 3, padding=1, padding_mode=mode).eval(), "1x2x1x6x5", TFLITE)


def test_a_negative_padding_with_own_cells_is_refused_by_name() -> None:
    net = nn.Sequential(nn.Conv3d(3, 3, 1), Apply(lambda x: F.pad(x, (1, 1, 0, 0, -1, 1), "circular")))
    with pytest.raises(ConversionError, match=r"in submodule '1'.* no negative amount\. Cut"):
        lower(captured(net, "1x3x3x8x8"), TFLITE)


class LastNorm(nn.Module):
    """Layer norm of the channels of a video, as video transformers write it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


class RowNorms(nn.Module):
    """Layer norms of vectors and of pictures, as networks with tokens have them."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors, self.pictures, self.plain = nn.LayerNorm(64), nn.LayerNorm((6, 64)), nn.LayerNorm(64, 0.1, False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.flatten(3).squeeze(0)
        return self.vectors(rows) + self.pictures(rows) + self.plain(rows)


@pytest.mark.parametrize("target", [Runtime.EXECUTORCH, Runtime.TFLITE, Runtime.COREML])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_layer_norms_of_rows_are_written_out_for_executorch(target: Runtime, precision: Precision) -> None:
    program = check(randomise(RowNorms()), "1x4x6x8x8", recipe_for(target, precision))
    written_out = target is Runtime.EXECUTORCH
    assert operators(program).count("aten.layer_norm.default") == (0 if written_out else 3)
    assert operators(program).count("aten.rsqrt.default") == (3 if written_out else 0)


class Products(nn.Module):
    """Attention with the heads apart, three and four axes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.flatten(3).squeeze(0)
        heads = rows.reshape(2, 2, *rows.shape[1:])
        four = heads @ heads.transpose(2, 3)
        return (rows @ rows.transpose(1, 2)) + four.flatten(0, 1)


@pytest.mark.parametrize("target", list(Runtime))
def test_products_are_batches(target: Runtime) -> None:
    program = check(Products(), "1x4x6x8x8", recipe_for(target, Precision.FP32))
    counts = [operators(program).count(f"aten.{name}.default") for name in ("bmm", "matmul")]
    assert counts == ([2, 0] if target is Runtime.EXECUTORCH else [1, 1])


NORMALIZATIONS: dict[str, nn.Module] = {
    "layer norm of channels": LastNorm(),
    "layer norm of pictures": nn.LayerNorm((8, 8)),
    "layer norm of everything": nn.LayerNorm((4, 6, 8, 8)),
    "layer norm of each value": Apply(lambda x: F.layer_norm(x, (8,), None, torch.arange(8.0)) + x),
    "group norm": nn.GroupNorm(2, 4),
    "group norm, one group": nn.GroupNorm(1, 4, eps=0.1),
    "group norm, no weights": nn.GroupNorm(4, 4, affine=False),
    "instance norm": nn.InstanceNorm3d(4, affine=True),
    "instance norm, no weights": nn.InstanceNorm3d(4),
    "slope": nn.PReLU(init=0.3),
    "slopes": nn.PReLU(4),
}


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_normalizations_keep_their_value(name: str) -> None:
    module = NORMALIZATIONS[name].eval()
    torch.manual_seed(4)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -1, 1)
    for shape in ("1x4x6x8x8", "1x4x1x8x8") if "everything" not in name else ("1x4x6x8x8",):
        for recipe in (TFLITE, COREML, EXECUTORCH):
            program = check(module, shape, recipe)
            assert program.rewrites[-1].max_difference < 1e-5
            assert not program.rewrites[-1].left_alone
            assert not [op for op in operators(program) if "_norm" in op]


@pytest.mark.parametrize("kernel", [2, (2, 3, 3), (3, 2, 1), (1, 3, 3), (4, 1, 1)], ids=str)
@pytest.mark.parametrize("stride", [2, (2, 3, 4), (1, 2, 3)], ids=str)
@pytest.mark.parametrize("padded", [False, True], ids=["bare", "padded"])
def test_ceil_mode_keeps_its_last_windows(kernel: Any, stride: Any, padded: bool) -> None:
    """Against PyTorch's own pools, where the last window leaves the padding by 0, 1 or 2 cells."""
    sizes = (kernel,) * 3 if isinstance(kernel, int) else kernel
    steps = (stride,) * 3 if isinstance(stride, int) else stride
    border = tuple(k // 2 if padded else 0 for k in sizes)

    def clips(x: torch.Tensor) -> torch.Tensor:
        averages = [F.avg_pool3d(x, sizes, steps, border, True, *rest) for rest in ((True,), (False,), (True, 5))]
        return torch.cat([F.max_pool3d(x - 5, sizes, steps, border, ceil_mode=True), *averages], 1)

    def pictures(x: torch.Tensor) -> torch.Tensor:
        shape = (sizes[1:], steps[1:], border[1:])
        averages = [F.avg_pool2d(x, *shape, True, *rest) for rest in ((True,), (False,), (True, 5))]
        return torch.cat([F.max_pool2d(x - 5, *shape, ceil_mode=True), *averages], 1)

    for function, shape in ((clips, "1x2x6x9x8"), (pictures, "1x2x9x8")):
        program = check(Apply(function), shape, TFLITE)
        assert program.rewrites[-1].max_difference < 1e-5
        calls = [node for node in program.exported.graph.nodes if node.op == "call_function"]
        assert not [node for node in calls if "pool" in str(node.target) and (True in node.args or "avg" in node.name)]


def test_ceil_mode_with_dilation_is_refused_by_name() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.MaxPool2d(2, 3, dilation=2, ceil_mode=True))
    with pytest.raises(ConversionError, match=r"in submodule '1'.* has ceil_mode and dilation"):
        lower(captured(net, "1x3x8x8"), TFLITE)
    check(nn.MaxPool2d(2, 3, dilation=2, ceil_mode=True), "1x3x9x9", TFLITE)  # its windows end where the input does


@pytest.mark.parametrize("key", [k for k in RECIPES if k[1] is not Precision.FP16], ids=str)
@pytest.mark.parametrize(
    "arguments",
    [{}, {"kernel": (3, 3, 3), "groups": 1}, {"kernel": (2, 3, 3), "groups": 2}, {"dilation": 2}],
    ids=["depthwise", "full", "grouped", "dilated"],
)
def test_stream_keeps_its_value_under_every_recipe(
    key: tuple[Runtime, Precision], arguments: dict[str, object]
) -> None:
    module = randomise(Fifo(**arguments))  # type: ignore[arg-type]
    program = check(module, "1x3x1x12x12", recipe_for(*key), steps=4)
    assert all(report.max_difference < 1e-5 for report in program.rewrites)


def test_batch_norm_and_scale_fold_into_convolutions() -> None:
    program = check(randomise(Fifo()), "1x3x1x12x12", TFLITE, steps=2)
    reports = {report.name: report for report in program.rewrites}
    assert reports["fold batch norm"].changed == 2
    assert "mul" not in " ".join(op for op in operators(program) if "mul" in op and "Tensor" not in op)


def test_factored_hard_swish_leaves_no_hard_swish_and_scales_the_state() -> None:
    program = lower(captured(randomise(Fifo()), "1x3x1x12x12"), INT8)
    assert not [op for op in operators(program) if "hardswish" in op]
    assert [state.input.multiplier for state in program.states] == [pytest.approx(6.0)]
    assert program.states[0].output.multiplier == program.states[0].input.multiplier


def test_unit_clamp_becomes_relu6_whose_factors_fold() -> None:
    program = check(randomise(Gated()), "1x4x1x6x6", TFLITE)
    names = operators(program)
    assert "aten.clamp.default" not in names
    assert names.count("aten.hardtanh.default") == 1
    # 0.2, 6 and the sixth are in weights: one product is left, that of the gate.
    assert names.count("aten.mul.Tensor") == 1
    assert names.count("aten.add.Tensor") == 0


def test_ports_are_channels_last_where_the_recipe_says_so() -> None:
    module = randomise(Fifo())
    last, first = (lower(captured(module, "1x3x1x12x12"), recipe) for recipe in (TFLITE, COREML))
    assert (last.inputs[0].shape, last.inputs[0].layout) == ((1, 12, 12, 3), "NHWC")
    assert last.states[0].input.shape == (2, 6, 6, 8)
    assert (first.inputs[0].shape, first.inputs[0].layout) == ((1, 3, 12, 12), "NCHW")
    assert first.states[0].input.shape == (8, 2, 6, 6)


def test_clip_enters_without_its_batch() -> None:
    program = lower(captured(nn.Conv3d(3, 4, 3, padding=1).eval(), "1x3x5x8x8"), TFLITE)
    assert (program.inputs[0].shape, program.inputs[0].layout) == ((5, 8, 8, 3), "THWC")


def test_what_is_left_alone_carries_its_reason() -> None:
    module = Apply(lambda x: F.interpolate(x, scale_factor=(2, 1, 1)))
    program = lower(captured(module, "1x4x3x4x4"), TFLITE)
    assert any("no form with four axes" in line for line in program.rewrites[-1].left_alone)


class Six(nn.Module):
    """Six axes without any of size 1 that could be left out, in a submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Apply(lambda x: (x.reshape(1, 2, 2, 3, 4, 4) * 2).sum(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).flatten(1)


@pytest.mark.parametrize(
    ("module", "operator", "shape"),
    [
        (Six(), "aten.view.default in submodule 'inner'", "(1, 2, 2, 3, 4, 4)"),
        (
            Apply(lambda x: torch.stack([x, x * 2], 2).mean(2)),
            "aten.stack.default at the top level",
            "(1, 4, 2, 3, 4, 4)",
        ),
    ],
    ids=["reshape", "stack"],
)
def test_more_than_four_axes_are_reported_or_refused(module: nn.Module, operator: str, shape: str) -> None:
    program = captured(module, "1x4x3x4x4")
    for recipe in (TFLITE, EXECUTORCH):
        report = lower(program, recipe).rewrites[-1].left_alone
        assert any(f"{operator}, shape {shape}, has no form with four axes" in line for line in report)
        assert not any(".py" in line for line in report)
    with pytest.raises(
        ConversionError, match=r"works on [56] axes, shape .*'coreml' takes at most 4.*Reshape"
    ) as refusal:
        lower(program, COREML)
    assert operator in str(refusal.value)
    assert shape in str(refusal.value)


def test_seven_axes_are_refused_everywhere() -> None:
    program = captured(Apply(lambda x: x.reshape(1, 2, 2, 3, 2, 2, 4).sum((1, 3))), "1x4x3x4x4")
    with pytest.raises(ConversionError, match=r"aten\.view\.default .* works on 7 axes.*'tflite' takes at most 6"):
        lower(program, TFLITE)


@pytest.mark.parametrize(
    "module",
    [
        nn.MaxPool3d(2, 1, padding=1, dilation=2),
        nn.AdaptiveAvgPool3d((2, 3, 3)),
        nn.AdaptiveMaxPool3d(1),
        nn.ConvTranspose3d(3, 3, 2),
        Apply(lambda x: F.conv3d(x, x[:, :, :1, :2, :2])),
    ],
    ids=["dilated", "uneven", "adaptive maximum", "transposed", "weight that is no constant"],
)
def test_3d_operators_without_a_2d_form_are_refused_by_name(module: nn.Module) -> None:
    program = captured(nn.Sequential(nn.Conv3d(3, 3, 1), module), "1x3x5x5x5")
    for recipe in (TFLITE, EXECUTORCH):
        with pytest.raises(
            ConversionError, match=r"3d.* in submodule '1' .* works on 5 axes, .* 2D operators on the frames"
        ):
            lower(program, recipe)


def test_batches_of_video_are_refused_with_the_remedy() -> None:
    with pytest.raises(ConversionError, match="batch of one"):
        lower(captured(nn.Conv3d(4, 4, 3, padding=1).eval(), "2x4x5x8x8"), TFLITE)


def test_recipes_cover_every_target_and_refuse_what_is_missing() -> None:
    assert {target for target, _ in RECIPES} == set(Runtime)
    assert recipe_for(Runtime.COREML, Precision.INT8).temporal is TemporalForm.STACKED
    with pytest.raises(UsageError, match="it has: fp32, int8"):
        recipe_for(Runtime.TFLITE, Precision.FP16)
