from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stream_nets import clips, stream_program

from mvtool.converters import executorch
from mvtool.converters.executorch_lowering import lower_to_executorch
from mvtool.errors import ConversionError, UsageError
from mvtool.operators import count
from mvtool.ports import PortManifest, Precision, Runtime
from mvtool.program import StreamProgram
from mvtool.quantization.calibration import graph_step
from mvtool.quantization.policy import VECTOR_PATH
from mvtool.quantization.pt2e import QuantizedProgram, Simulation, quantize
from mvtool.runtimes.executorch import ExecuTorchExecutable, read_manifest

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

DELEGATED = {"delegate XnnpackBackend": 1}


@pytest.fixture(scope="module")
def program() -> StreamProgram:
    return executorch.prepare(stream_program())


@pytest.fixture(scope="module")
def quantized(program: StreamProgram) -> QuantizedProgram:
    return quantize(program, clips(), vector_path=VECTOR_PATH[Runtime.EXECUTORCH])


@pytest.fixture(scope="module")
def fp32(program: StreamProgram, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fp32") / "block.pte"
    emission = executorch.emit(program, path)
    assert (emission.delegates, emission.outside) == (1, ())
    return path


@pytest.fixture(scope="module")
def int8(quantized: QuantizedProgram, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "block.pte"
    emission = executorch.emit(quantized, path)
    assert (emission.delegates, emission.outside) == (1, ())
    return path


def test_preparing_does_not_change_results(program: StreamProgram) -> None:
    raw = stream_program()
    inputs = [clips().clips[0][0][0], *raw.initial_ports()]
    with torch.no_grad():
        before: list[NDArray[Any]] = graph_step(raw)(inputs)
        after: list[NDArray[Any]] = graph_step(program)(inputs)
        for one, other in zip(before, after, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_one_delegate_and_nothing_else(kind: str, request: pytest.FixtureRequest) -> None:
    assert count(request.getfixturevalue(kind), Runtime.EXECUTORCH) == DELEGATED


def test_fp32_rollout_equals_torch(program: StreamProgram, fp32: Path) -> None:
    executable, step = ExecuTorchExecutable(fp32, threads=1), graph_step(program)
    given, expected = program.initial_ports(), program.initial_ports()
    with torch.no_grad():
        for (frame,) in clips(count=1, steps=20, seed=3).clips[0]:
            found: Sequence[NDArray[Any]] = executable.run([frame, *given])
            wanted: list[NDArray[Any]] = step([frame, *expected])
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
            given, expected = list(found[1:]), wanted[1:]
    assert given[0] == 20


def test_int8_rollout_follows_its_simulation(quantized: QuantizedProgram, int8: Path) -> None:
    manifest, executable, simulation = read_manifest(int8), ExecuTorchExecutable(int8, threads=1), Simulation(quantized)
    states = [binding.reset.array(binding.input) for binding in manifest.states]
    for (frame,) in clips(count=1, steps=20, seed=3).clips[0]:
        stored = [manifest.inputs[0].encode(frame), *states]
        found = executable.run(stored)
        wanted: Mapping[str, NDArray[Any]] = simulation.step(
            [p.decode(a) for p, a in zip(manifest.input_ports, stored, strict=True)]
        )
        for port, array in zip(manifest.output_ports, found, strict=True):
            difference = np.abs(port.decode(array) - wanted[port.name])
            if port.quantization is not None:
                steps = difference / port.quantization.scale
                assert np.quantile(steps, 0.99) <= 2.001
                assert steps.mean() <= 0.5
        states = list(found[1:])


def test_the_manifest_is_in_the_file(int8: Path, quantized: QuantizedProgram) -> None:
    manifest = read_manifest(int8)
    assert (manifest.runtime, manifest.precision) == (Runtime.EXECUTORCH, Precision.INT8)
    frame, past = manifest.inputs[0], manifest.states[1]
    assert (frame.dtype, frame.quantization) == ("int8", quantized.ports["frame"])
    assert (past.input.dtype, past.output.dtype) == ("int8", "int8")
    assert set(past.reset.array(past.input).ravel()) == {quantized.ports["past"].zero_point}
    assert manifest.states[2].input.dtype == "float32", "running means stay float"


def test_the_file_holds_no_machine_paths(fp32: Path, int8: Path) -> None:
    here = str(Path(__file__).parents[2]).encode()
    for path in (fp32, int8):
        data = path.read_bytes()
        assert here not in data
        assert b".py" not in data
        assert b"/site-packages" not in data


SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from stream_nets import clips, stream_program
from mvtool.converters import executorch
from mvtool.converters.executorch_lowering import lower_to_executorch
from mvtool.ports import Runtime
from mvtool.quantization.policy import VECTOR_PATH
from mvtool.quantization.pt2e import quantize
program = executorch.prepare(stream_program())
executorch.emit(program, Path(sys.argv[2]) / "fp32.pte")
quantized = quantize(program, clips(), vector_path=VECTOR_PATH[Runtime.EXECUTORCH])
executorch.emit(quantized, Path(sys.argv[2]) / "int8.pte")
"""


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(fp32: Path, int8: Path, tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", SCRIPT, str(tests), str(tmp_path)], check=True, capture_output=True)
    assert (tmp_path / "fp32.pte").read_bytes() == fp32.read_bytes()
    assert (tmp_path / "int8.pte").read_bytes() == int8.read_bytes()


def test_a_wrong_file_is_refused_before_it_takes_its_place(
    program: StreamProgram, fp32: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = executorch.prepare(stream_program(seed=1))
    monkeypatch.setattr(
        executorch,
        "lower_to_executorch",
        lambda exported, methods, **options: lower_to_executorch(other.exported, methods, **options),
    )
    (tmp_path / "old.pte").write_bytes(b"previous build")
    with pytest.raises(ConversionError, match="does not compute 'block'"):
        executorch.emit(program, tmp_path / "old.pte")
    assert (tmp_path / "old.pte").read_bytes() == b"previous build"


class Foreign(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(torch.tanh(x * 2.0), 1)


def test_operators_outside_are_reported(program: StreamProgram, tmp_path: Path) -> None:
    from stream_nets import port

    from mvtool.ports import InputPort, OutputPort

    exported = torch.export.export(Foreign(), (torch.zeros(1, 4),))
    foreign = replace(
        program,
        exported=exported,
        inputs=(port(InputPort, "x", 0, (1, 4)),),
        states=(),
        outputs=(port(OutputPort, "y", 0, (1, 4)),),
    )
    said: list[str] = []
    emission = executorch.emit(executorch.prepare(foreign), tmp_path / "f.pte", report=said.append)
    assert emission.delegates == 1
    assert emission.outside == ("aten.cumsum.default",)
    assert any("cumsum" in line for line in said)


def test_the_suffix_is_checked(program: StreamProgram, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ending in \.pte"):
        executorch.emit(program, tmp_path / "model.bin")


def test_the_manifest_text_is_the_one_returned(program: StreamProgram, fp32: Path) -> None:
    assert read_manifest(fp32) == PortManifest.from_json(
        program.manifest(Runtime.EXECUTORCH, Precision.FP32).to_json(), "program"
    )
