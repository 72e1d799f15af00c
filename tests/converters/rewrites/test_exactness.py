"""Rounding that a model amplifies is told from a rewrite that changes results."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from lowered import captured
from rewrite_models import Apply, Fifo, randomise
from torch import nn

from mvtool.converters import lowering
from mvtool.converters.lowering import lower
from mvtool.converters.recipe import recipe_for
from mvtool.converters.rewrites import wide
from mvtool.converters.rewrites.draft import Changes, Draft, plain_module, relative_difference
from mvtool.converters.rewrites.exactness import LARGEST_DIFFERENCE, accepted
from mvtool.errors import ConversionError
from mvtool.ports import Precision, Runtime, StateLayout
from mvtool.program import StreamProgram

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

TFLITE = recipe_for(Runtime.TFLITE, Precision.FP32)
SHAPE = "1x4x5x6x6"
FAR = 3000.0
"""One step of float32 at this number is 2.4e-4."""


class Cancelling(nn.Module):
    """What a convolution gives lies near 3000, of which 3000 are taken away: the rounding of its sums is left."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv3d(4, 4, 3)
        nn.init.constant_(self.conv.bias, FAR)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.conv(x)) - FAR


@pytest.fixture
def cancelling() -> StreamProgram:
    return captured(Cancelling().eval(), SHAPE)


def test_rounding_that_the_model_amplifies_passes_and_is_told(cancelling: StreamProgram) -> None:
    report = lower(cancelling, TFLITE).rewrites[-1]
    assert report.max_difference > LARGEST_DIFFERENCE
    assert report.details[-1].startswith(
        f"rounding: float32 results differ by {report.max_difference:.1e} of the largest"
    )
    assert float(report.details[-1].split()[-1]) < 1e-10


def test_nothing_is_compared_in_float64_unless_it_must_be() -> None:
    draft = Draft(captured(nn.Conv3d(4, 4, 3).eval(), SHAPE))
    draft.checked("nothing", lambda draft, changes: None)

    def again() -> Draft:
        raise AssertionError

    assert accepted(draft, again) == tuple(draft.reports)


def weight_of(draft: Draft) -> str:
    return next(str(node.target) for node in draft.module.graph.nodes if node.op == "get_attr")


def scale_weight(draft: Draft, changes: Changes) -> None:
    name = weight_of(draft)
    setattr(draft.module, name, getattr(draft.module, name) * 1.001)


def clear_weight_in_place(draft: Draft, changes: Changes) -> None:
    getattr(draft.module, weight_of(draft)).zero_()


def float32_alone(value: torch.Tensor) -> torch.Tensor:
    if value.dtype is not torch.float32:
        raise TypeError(value.dtype)
    return value * 1.001


def small_fault(value: torch.Tensor) -> torch.Tensor:
    """A fault as large as the rounding that it comes with."""
    return ((value + 10 * FAR) - 10 * FAR) * (1 + 5e-4)


def put_last(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Draft, Changes], None]:
    def rewrite(draft: Draft, changes: Changes) -> None:
        graph = draft.module.graph
        output = graph.output_node()
        with graph.inserting_before(output):
            node = graph.call_function(function, (output.all_input_nodes[0],))
        output.args = ((node,),)

    return rewrite


@pytest.mark.parametrize(
    ("rewrite", "told"),
    [
        (scale_weight, r"by \S+e-0[34] in float64"),
        (clear_weight_in_place, "could not be compared in float64"),
        (put_last(float32_alone), "could not be compared in float64"),
        (put_last(small_fault), r"by 5\.0e-04 in float64"),
    ],
)
def test_a_rewrite_that_changes_results_is_refused(
    cancelling: StreamProgram, rewrite: Callable[[Draft, Changes], None], told: str
) -> None:
    def passed(wide: bool = False) -> Draft:
        draft = Draft(cancelling, wide)
        draft.checked("spoil", rewrite)
        return draft

    with pytest.raises(ConversionError, match=rf"'spoil' changed the results of probe by .* in float32 and {told};"):
        accepted(passed(), lambda: passed(wide=True))


def test_types_that_a_graph_names_are_widened() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        share = (x > 0).to(torch.float32) / 3
        return x * share + torch.full((6,), 0.1, dtype=torch.float32) + torch.arange(6) / 7

    program = captured(Apply(function), SHAPE)
    graph = plain_module(program.exported)
    x = torch.randn(1, 4, 5, 6, 6, generator=torch.Generator().manual_seed(1))
    with wide.by_default(torch.float64):
        (found,) = wide.in_float64(graph)(x.double())
        expected = x.double() * ((x > 0).double() / 3) + 0.1 + torch.arange(6) / 7
    assert torch.get_default_dtype() is torch.float32
    assert found.dtype is torch.float64
    assert relative_difference(found, expected) < 1e-14
    assert graph(x)[0].dtype is torch.float32
    with wide.by_default(torch.float64):
        again = Draft(program, wide=True)
    assert all(map(torch.equal, again.start, Draft(program).start))
    assert again.outputs()[0].dtype is torch.float64


@pytest.mark.parametrize("layout", list(StateLayout))
@pytest.mark.parametrize("target", list(Runtime))
def test_every_pass_on_a_stream_is_compared_in_float64(target: Runtime, layout: StateLayout) -> None:
    program = captured(randomise(Fifo()), "1x3x1x12x12")
    with wide.by_default(torch.float64):
        draft, _, _ = lowering._passed(program, recipe_for(target, Precision.INT8), layout, wide=True)
    compared = draft.reports[len(program.rewrites) :]
    assert len(compared) >= 3
    # Nothing but float64's own rounding is left.
    assert all(report.max_difference < 1e-12 for report in compared)
