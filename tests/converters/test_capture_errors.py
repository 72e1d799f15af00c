"""Every module that cannot be captured gives an error that names the place."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import bad_models
import numpy as np
import pytest
import torch
from foreign_models import GRUExplicit
from torch import nn

from mvtool.converters.capture import capture
from mvtool.converters.inputs import InputSpec
from mvtool.errors import CaptureError
from mvtool.program import ModelInfo

VECTOR = (InputSpec(None, (1, 4)),)
IMAGE = (InputSpec(None, (1, 3, 8, 8)),)
INFO = ModelInfo("model")
FILE = Path(bad_models.__file__).name


def line_of(kind: type, text: str) -> str:
    """`bad_models.py:12`, the line of `kind` that holds `text`."""
    lines, start = inspect.getsourcelines(kind)
    return f"{FILE}:{start + next(i for i, line in enumerate(lines) if text in line)}"


def refused(module: nn.Module, inputs: Any = VECTOR, **options: Any) -> str:
    with pytest.raises(CaptureError) as caught:
        capture(module, inputs, INFO, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "inputs", "phrases", "line"),
    [
        (bad_models.SharedBuffer, VECTOR, ["'left.total'", "'right.total'", "shared by two submodules"], None),
        (bad_models.AliasedBuffers, VECTOR, ["'ring'", "'newest'", "aliased"], None),
        (bad_models.GrowingBuffer, VECTOR, ["'inner.cache'", "[1, 4]", "[2, 4]"], "self.inner.cache ="),
        (bad_models.LazyBuffer, VECTOR, ["buffer 'h'", "from None"], "self.h = x if"),
        (bad_models.PlainTensor, VECTOR, ["plain tensor attribute 'h'", "register_buffer('h'"], "self.h = self.inner"),
        (bad_models.PlainTensorInPlace, VECTOR, ["plain tensor attribute 'h'"], "self.h.mul_"),
        (bad_models.Counter, VECTOR, ["Python attribute 'count'", "from 1 to 2"], "self.count += 1"),
        (bad_models.HelperObject, VECTOR, ["'cache.frames[1]'"], "self.cache.frames ="),
        (bad_models.FirstStep, VECTOR, ["'started'", "from False to True"], None),
        (bad_models.DataWrite, VECTOR, ["buffer 'h'", "cannot see the write"], "self.h.data ="),
        (bad_models.NumpyWrite, VECTOR, ["buffer 'h'", "cannot see the write"], "self.h.numpy()"),
        (bad_models.ParameterWrite, VECTOR, ["parameter 'gain'"], "self.gain.add_"),
        (bad_models.InputWrite, VECTOR, ["argument 'x'", "in place"], "x.mul_(2)"),
        (bad_models.StubbornBatchNorm, IMAGE, ["batch norm", "training mode", "'body.1'"], "self.body(x)"),
        (bad_models.FunctionalBatchNorm, IMAGE, ["batch norm", "training mode"], "F.batch_norm"),
        (bad_models.NoStatistics, IMAGE, ["batch norm", "'bn'", "track_running_stats"], "self.bn(x)"),
        (bad_models.FunctionalDropout, VECTOR, ["dropout", "training mode"], "F.dropout"),
        (bad_models.Noise, VECTOR, ["random", "rand_like"], "rand_like"),
        (bad_models.Branch, VECTOR, ["control flow", "'gate.1'", "torch.where"], None),
        (bad_models.Item, VECTOR, ["depends on the values"], "x.max().item()"),
        (bad_models.Nonzero, VECTOR, ["depends on the values", "boolean indexing"], "x[x > 0]"),
        (bad_models.Cond, VECTOR, ["cond", "control flow"], "torch.cond"),
        (bad_models.DoubleState, VECTOR, ["'h'", "float64"], None),
        (bad_models.NumpyModel, VECTOR, ["torch.export cannot", "numpy"], "x.numpy()"),
        (bad_models.OnlyState, VECTOR, ["returns no tensor"], None),
        (bad_models.GlobalState, VECTOR, ["same inputs differ", "global"], None),
        (bad_models.ClosureState, VECTOR, ["same inputs differ", "hooks are registered on inner"], None),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_bad_model(kind: type[nn.Module], inputs: Any, phrases: list[str], line: str | None) -> None:
    module = kind()
    message = refused(module, inputs)
    for phrase in phrases:
        assert phrase in message
    if line is not None:
        assert line_of(kind, line) in message
    assert module.training


def test_the_branch_is_found_in_its_submodule() -> None:
    assert line_of(bad_models._Decide, "if x.sum() > 0") in refused(bad_models.Branch())


def test_torch_prints_nothing_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    refused(bad_models.Branch())
    assert capfd.readouterr() == ("", "")


def test_a_failing_forward_names_the_shapes_and_the_layer() -> None:
    message = refused(nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 2)))
    assert "input=[1, 4]" in message
    assert "--input" in message


def test_calls_that_do_not_fit_forward() -> None:
    module = GRUExplicit()
    x, h = InputSpec("x", (1, 12)), InputSpec("h", (1, 16))
    assert "needs the argument 'h'" in refused(module, (x,))
    assert "no argument 'state'" in refused(module, (x, InputSpec("state", (1, 16))))
    assert "more inputs" in refused(module, (InputSpec(None, (1, 12)),) * 3)
    assert "twice" in refused(module, (x, x, h))


def test_pairs_that_do_not_fit() -> None:
    module = GRUExplicit()
    inputs = (InputSpec("x", (1, 12)), InputSpec("h", (1, 16)))
    assert "outputs are: output, output_1" in refused(module, inputs, state_pairs=[("h", "hidden")])
    assert "inputs are: x, h" in refused(module, inputs, state_pairs=[("hidden", "output1")])
    assert "[1, 16]" in refused(module, inputs, state_pairs=[("h", "output")])
    same = (InputSpec("x", (1, 16)), InputSpec("h", (1, 16)))
    assert "paired with two inputs" in refused(
        GRUExplicit(features=16), same, state_pairs=[("h", "output1"), ("x", "output1")]
    )
    assert "two outputs" in refused(module, inputs, state_pairs=[("h", "output1"), ("h", "output")])
    start = {"h": np.zeros((1, 15), np.float32)}
    assert "expected [1, 16]" in refused(module, inputs, state_pairs=[("h", "output1")], initial=start)
    assert "not paired" in refused(module, inputs, state_pairs=[("h", "output1")], initial={"x": 0.0})


def test_images_come_one_video_at_a_time() -> None:
    message = refused(nn.Conv2d(3, 2, 3), (InputSpec(None, (2, 3, 8, 8)),))
    assert "batch of 2" in message


def test_a_double_model_is_refused_at_its_output() -> None:
    class Double(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.double()

    assert "output 'output' has type float64" in refused(Double())


def test_autocast_is_refused() -> None:
    class Autocast(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return (x @ x.T).float()

    assert "autocast" in refused(Autocast())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_only_plain_modules_on_the_cpu() -> None:
    assert "'0.weight' is on the device meta" in refused(nn.Sequential(nn.Linear(4, 4, device="meta")))
    compiled: Any = torch.compile(nn.Linear(4, 4))
    assert "torch.compile" in refused(nn.Sequential(compiled))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_torchscript_is_refused() -> None:
    traced: Any = torch.jit.trace(nn.ReLU(), torch.ones(1, 4))  # type: ignore[no-untyped-call]
    message = refused(nn.Sequential(nn.Linear(4, 4), traced))
    assert "'1' is TorchScript" in message
