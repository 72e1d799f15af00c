"""Integers and booleans at ports: every type that a port can have, as state and as input, on every target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from emitted import write
from torch import Tensor, nn

from mvtool.converters.capture import capture
from mvtool.converters.inputs import InputSpec
from mvtool.converters.lowering import lower
from mvtool.converters.recipe import recipe_for
from mvtool.errors import ConversionError, ManifestError
from mvtool.ports import AnyArray, DType, PortManifest, Precision, Runtime, TensorPort
from mvtool.program import ModelInfo, StreamProgram
from mvtool.runtimes import open_file

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 5
AT_PORT: dict[DType, dict[Runtime, DType]] = {
    "int32": {Runtime.TFLITE: "int32", Runtime.COREML: "int32", Runtime.EXECUTORCH: "int32"},
    "int64": {Runtime.TFLITE: "int32", Runtime.COREML: "int32", Runtime.EXECUTORCH: "int64"},
    "bool": {Runtime.TFLITE: "int32", Runtime.COREML: "int32", Runtime.EXECUTORCH: "bool"},
    "uint8": {Runtime.EXECUTORCH: "uint8"},
    "int8": {},
    "float16": {},
}
"""What a port holds for each type of the model; targets that are not listed refuse it."""

HELD = [
    pytest.param(dtype, target, held, id=f"{dtype}-{target.value}")
    for dtype, targets in AT_PORT.items()
    for target, held in targets.items()
]
REFUSED = [
    pytest.param(dtype, target, id=f"{dtype}-{target.value}")
    for dtype, targets in AT_PORT.items()
    for target in Runtime
    if target not in targets
]


class Counter(nn.Module):
    """A state of any type that changes in every step: numbers count up by three, booleans turn round."""

    n: Tensor

    def __init__(self, dtype: DType, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.dense = nn.Linear(6, 4)
        self.register_buffer("n", torch.ones(shape, dtype=getattr(torch, dtype)))

    def forward(self, x: Tensor) -> Tensor:
        now = ~self.n if self.n.dtype == torch.bool else self.n + 3
        self.n.copy_(now)
        return self.dense(x) * now.to(torch.float32)


class Chooser(nn.Module):
    """A second input of any type, of which the last step's value is remembered."""

    last: Tensor

    def __init__(self, dtype: DType) -> None:
        super().__init__()
        self.dense = nn.Linear(6, 4)
        self.register_buffer("last", torch.zeros(1, 4, dtype=getattr(torch, dtype)))

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        same = (k == self.last).to(torch.float32)
        self.last.copy_(k)
        return self.dense(x) * same + k.to(torch.float32)


class Best(nn.Module):
    """Gives whole numbers and flags: the best class, and whether it changed."""

    last: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(6, 4)
        self.register_buffer("last", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        best = self.dense(x).argmax(dim=1)
        changed = best != self.last
        self.last.copy_(best)
        return best, changed


def steps_of(program: StreamProgram) -> list[list[AnyArray]]:
    generator = np.random.default_rng(3)
    return [
        [
            generator.standard_normal(p.logical_shape).astype(np.float32)
            if p.dtype == "float32"
            else generator.integers(0, 2, p.logical_shape).astype(p.dtype)
            for p in program.inputs
        ]
        for _ in range(STEPS)
    ]


def follows(module: nn.Module, program: StreamProgram, target: Runtime, folder: Path) -> PortManifest:
    """Step the written file and the module side by side."""
    session = open_file(write(program, target, Precision.FP32, folder))
    for inputs in steps_of(program):
        with torch.no_grad():
            expected = module(*(torch.from_numpy(array) for array in inputs)).numpy()
        found = session.step(*inputs)[program.outputs[0].name]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    return session.manifest


@pytest.mark.parametrize("shape", [(), (1, 4)], ids=["scalar", "row"])
@pytest.mark.parametrize(("dtype", "target", "at_port"), HELD)
def test_a_state_is_stepped(
    dtype: DType, target: Runtime, at_port: DType, shape: tuple[int, ...], tmp_path: Path
) -> None:
    module = Counter(dtype, shape).eval()
    program = capture(module, [InputSpec("x", (1, 6))], ModelInfo("counter"))
    manifest = follows(module, program, target, tmp_path)
    assert (manifest.states[0].input.dtype, manifest.logical_states[0].dtype) == (at_port, dtype)


@pytest.mark.parametrize(("dtype", "target", "at_port"), HELD)
def test_an_input_is_taken(dtype: DType, target: Runtime, at_port: DType, tmp_path: Path) -> None:
    module = Chooser(dtype).eval()
    program = capture(module, [InputSpec("x", (1, 6)), InputSpec("k", (1, 4), dtype)], ModelInfo("chooser"))
    manifest = follows(module, program, target, tmp_path)
    assert [port.dtype for port in manifest.inputs] == ["float32", at_port]


@pytest.mark.parametrize("target", list(Runtime), ids=lambda target: target.value)
def test_whole_numbers_and_flags_leave_a_model(target: Runtime, tmp_path: Path) -> None:
    torch.manual_seed(4)
    module = Best().eval()
    program = capture(module, [InputSpec("x", (1, 6))], ModelInfo("best"))
    session = open_file(write(program, target, Precision.FP32, tmp_path))
    types = [AT_PORT[port.dtype][target] for port in program.outputs]
    assert [port.dtype for port in session.manifest.outputs] == types
    seen = set()
    for inputs in steps_of(program):
        with torch.no_grad():
            expected = [tensor.numpy() for tensor in module(*(torch.from_numpy(array) for array in inputs))]
        for found, want in zip(session.step(*inputs).values(), expected, strict=True):
            np.testing.assert_array_equal(found, want)
        seen.add(int(expected[0][0]))
    assert len(seen) > 1


@pytest.mark.parametrize(("dtype", "target"), REFUSED)
def test_a_type_that_the_target_cannot_hold_is_refused(dtype: DType, target: Runtime) -> None:
    state = capture(Counter(dtype, (1, 4)).eval(), [InputSpec("x", (1, 6))], ModelInfo("counter"))
    taken = capture(
        Chooser(dtype).eval(), [InputSpec("x", (1, 6)), InputSpec("k", (1, 4), dtype)], ModelInfo("chooser")
    )
    for program, name in ((state, "n"), (taken, "k")):
        with pytest.raises(ConversionError, match=rf"port '{name}' is {dtype}.*{target.value}.*int32"):
            lower(program, recipe_for(target, Precision.FP32))


def test_a_number_that_the_port_cannot_hold_is_refused() -> None:
    port = TensorPort(name="n", position=0, shape=(2,), dtype="int32", logical_shape=(2,), permutation=(0,))
    np.testing.assert_array_equal(port.encode(np.array([2**31 - 1, -(2**31)])), [2**31 - 1, -(2**31)])
    with pytest.raises(ManifestError, match=r"'n' got values from 0 to 2147483648; int32 holds"):
        port.encode(np.array([0, 2**31]))
    with pytest.raises(ManifestError, match=r"not a number"):
        port.encode(np.array([0.0, np.nan]))
