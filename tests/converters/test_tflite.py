"""The emitted file, looked at without mvtool's own readers wherever that is possible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tflite_models import execute, frames, kinds, small_stream

from mvtool.converters import tflite
from mvtool.converters.tflite_check import smoke_check
from mvtool.converters.tflite_export import export_float
from mvtool.converters.tflite_graph import Graph
from mvtool.errors import ConversionError
from mvtool.ports import AnyArray, PortManifest, Precision, Runtime
from mvtool.program import StreamProgram
from mvtool.quantization.calibration import CalibrationSet
from mvtool.quantization.tflite import TFLiteQuantization
from mvtool.runtimes.litert import open_tflite, read_manifest
from mvtool.runtimes.tflite_simulation import open_simulation

pytestmark = pytest.mark.filterwarnings("ignore")

INPUTS = ["frame", "fifo", "mean", "count"]
OUTPUTS = ["scores", "fifo_next", "mean_next", "count_next"]


def calibration(steps: int = 20) -> TFLiteQuantization:
    return TFLiteQuantization(CalibrationSet((tuple((f,) for f in frames(steps, seed=1)),)))


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PortManifest, StreamProgram]:
    program, path = small_stream(int8=False), tmp_path_factory.mktemp("fp32") / "small.tflite"
    return path, tflite.emit(program, path), program


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PortManifest, StreamProgram]:
    program, path = small_stream(int8=True), tmp_path_factory.mktemp("int8") / "small.tflite"
    return path, tflite.emit(program, path, quantization=calibration()), program


def rolled(program: StreamProgram, steps: int) -> Iterator[tuple[NDArray[np.float32], list[NDArray[Any]]]]:
    """Frame, and all outputs of the program's own graph, state after state."""
    import torch

    module, states = program.exported.module(), [torch.from_numpy(a) for a in program.initial_ports()]
    for frame in frames(steps, seed=2):
        with torch.no_grad():
            results = module(torch.from_numpy(frame), *states)
        states = list(results[1:])
        yield frame, [r.numpy() for r in results]


class TestFp32:
    def test_each_step_of_a_rolled_stream_equals_the_program(
        self, fp32: tuple[Path, PortManifest, StreamProgram]
    ) -> None:
        path, _, program = fp32
        states = program.initial_ports()
        for frame, expected in rolled(program, 6):
            found, _ = execute(path.read_bytes(), [frame, *states])
            states = found[1:]
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)

    def test_is_one_delegate_and_fully_accelerated(self, fp32: tuple[Path, PortManifest, StreamProgram]) -> None:
        path, _, program = fp32
        _, operators = execute(path.read_bytes(), [frames(1)[0], *program.initial_ports()])
        assert operators.count("DELEGATE") == 1
        assert fully_accelerated(path)

    def test_needs_no_transpose_and_no_pad(self, fp32: tuple[Path, PortManifest, StreamProgram]) -> None:
        assert not {"TRANSPOSE", "PAD"} & set(kinds(fp32[0].read_bytes()))

    def test_graph_signature_tensors_and_manifest_agree_on_names_and_order(
        self, fp32: tuple[Path, PortManifest, StreamProgram]
    ) -> None:
        from ai_edge_litert.interpreter import Interpreter

        path, manifest, _ = fp32
        interpreter = Interpreter(str(path))
        assert [d["name"] for d in interpreter.get_input_details()] == INPUTS
        assert [d["name"] for d in interpreter.get_output_details()] == OUTPUTS
        signatures = interpreter.get_signature_list()
        assert {k: sorted(v) for k, v in signatures["serving_default"].items()} == {
            "inputs": sorted(INPUTS),
            "outputs": sorted(OUTPUTS),
        }
        assert [(p.name, p.position) for p in manifest.input_ports] == [(n, i) for i, n in enumerate(INPUTS)]
        assert [(p.name, p.position) for p in manifest.output_ports] == [(n, i) for i, n in enumerate(OUTPUTS)]

    def test_the_manifest_is_readable_as_the_module_documents_it(
        self, fp32: tuple[Path, PortManifest, StreamProgram]
    ) -> None:
        from ai_edge_litert import schema_py_generated

        path, manifest, _ = fp32
        model = schema_py_generated.Model.GetRootAs(path.read_bytes())
        entries = (model.Metadata(i) for i in range(model.MetadataLength()))
        buffer = next(e.Buffer() for e in entries if e.Name() == b"mvtool.ports")
        document = json.loads(model.Buffers(buffer).DataAsNumpy().tobytes())
        assert document["schema"] == "mvtool.ports/1"
        assert document["states"][0]["input"]["name"] == "fifo"
        assert read_manifest(path) == manifest

    def test_the_same_program_gives_the_same_bytes(
        self, fp32: tuple[Path, PortManifest, StreamProgram], tmp_path: Path
    ) -> None:
        again = tmp_path / "again.tflite"
        tflite.emit(small_stream(int8=False), again)
        assert again.read_bytes() == fp32[0].read_bytes()


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2])\n"
        "from tflite_models import write_both\n"
        "write_both(pathlib.Path(sys.argv[1]))\n"
    )
    tests = str(Path(__file__).parent.parent)
    digests = set()
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", script, str(folder), tests], check=True, env=environment)
        digests.add(tuple(f.read_bytes() for f in sorted(folder.iterdir())))
    assert len(digests) == 1
    assert len(digests.pop()) == 2


class TestInt8:
    def test_is_one_delegate_and_fully_accelerated(self, int8: tuple[Path, PortManifest, StreamProgram]) -> None:
        path, manifest, _ = int8
        arrays = [p.encode(a) for p, a in zip(manifest.input_ports, reset_values(int8), strict=True)]
        _, operators = execute(path.read_bytes(), arrays)
        assert operators.count("DELEGATE") == 1
        assert fully_accelerated(path)

    def test_the_frame_port_takes_camera_bytes_with_the_top_bit_flipped(
        self, int8: tuple[Path, PortManifest, StreamProgram]
    ) -> None:
        from ai_edge_litert.interpreter import Interpreter

        detail = Interpreter(str(int8[0])).get_input_details()[0]
        assert (detail["dtype"], detail["quantization"]) == (np.int8, (np.float32(1 / 255), -128))
        levels = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1) / 255
        flipped = (np.arange(256, dtype=np.uint8) ^ 0x80).view(np.int8)
        port = (
            int8[1]
            .inputs[0]
            .model_copy(update={"shape": levels.shape, "logical_shape": levels.shape, "permutation": (0, 1, 2, 3)})
        )
        np.testing.assert_array_equal(port.encode(levels).reshape(-1), flipped)

    def test_feature_states_are_int8_and_tied_on_the_graphs_own_ports(
        self, int8: tuple[Path, PortManifest, StreamProgram]
    ) -> None:
        graph = Graph.parse(int8[0].read_bytes())
        before, after = graph.inputs[1], graph.outputs[1]
        assert (graph.name(before), graph.name(after)) == ("fifo", "fifo_next")
        assert graph.dtype(before) == graph.dtype(after) == "int8"
        assert graph.quantization(before) == graph.quantization(after) is not None

    def test_means_counters_and_scores_stay_float(self, int8: tuple[Path, PortManifest, StreamProgram]) -> None:
        graph = Graph.parse(int8[0].read_bytes())
        floats = {graph.name(t) for t in (*graph.inputs, *graph.outputs) if graph.dtype(t) == "float32"}
        assert floats == {"mean", "count", "scores", "mean_next", "count_next"}

    def test_reset_bytes_are_the_zero_point(self, int8: tuple[Path, PortManifest, StreamProgram]) -> None:
        fifo = int8[1].states[0]
        assert fifo.input.quantization is not None
        expected = np.array([fifo.input.quantization.zero_point], dtype=np.int8).tobytes().hex()
        assert fifo.reset.element_hex == expected != "00"

    def test_follows_its_simulation_bit_for_bit(self, int8: tuple[Path, PortManifest, StreamProgram]) -> None:
        artifact, simulation = open_tflite(int8[0]), open_simulation(int8[0])
        for frame in frames(12, seed=2):
            simulation.set_state(artifact.state())
            found, expected = artifact.step(frame), simulation.step(frame)
            np.testing.assert_array_equal(artifact.state()["fifo"], simulation.state()["fifo"])
            scores: NDArray[Any] = found["scores"]
            expected_scores: NDArray[Any] = expected["scores"]
            np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=1e-5)

    def test_its_anchor_follows_the_float_program(self, int8: tuple[Path, PortManifest, StreamProgram]) -> None:
        anchor = open_simulation(int8[0], anchor=True)
        assert anchor.manifest.states[0].input.dtype == "float32"
        for frame, expected in rolled(int8[2], 10):
            found: NDArray[Any] = anchor.step(frame)["scores"]
            assert np.abs(found - expected[0]).max() < 0.03 * np.abs(expected[0]).max()
            fifo: NDArray[Any] = anchor.state()["fifo"]
            assert np.abs(fifo - expected[1]).max() < 0.03 * np.abs(expected[1]).max()

    def test_the_same_program_gives_the_same_bytes(
        self, int8: tuple[Path, PortManifest, StreamProgram], tmp_path: Path
    ) -> None:
        again = tmp_path / "again.tflite"
        tflite.emit(small_stream(int8=True), again, quantization=calibration())
        assert again.read_bytes() == int8[0].read_bytes()

    def test_is_a_quarter_of_the_fp32_weights(self, int8: tuple[Path, PortManifest, StreamProgram]) -> None:
        graph = Graph.parse(int8[0].read_bytes())
        for operator in graph.operators:
            if graph.kind(operator) in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
                assert graph.dtype(int(operator.inputs[1])) == "int8"
                assert len(graph.scales(int(operator.inputs[1]))) in (5, 8)


def fully_accelerated(path: Path) -> bool:
    from ai_edge_litert.compiled_model import CompiledModel

    return bool(CompiledModel.from_file(str(path)).is_fully_accelerated())


def reset_values(artifact: tuple[Path, PortManifest, StreamProgram]) -> list[AnyArray]:
    return [frames(1)[0], *(np.asarray(s.initial) for s in artifact[2].states)]


class TestBrokenFilesAreNotHandedOut:
    def test_exchanged_outputs_are_found(self, fp32: tuple[Path, PortManifest, StreamProgram]) -> None:
        path, manifest, program = fp32
        graph = Graph.parse(path.read_bytes())
        for operator in graph.operators:
            if graph.kind(operator) == "SUB":
                operator.inputs = [*reversed(operator.inputs)]
        with pytest.raises(ConversionError, match=r"with a relative error of .* in the first step; at most 1e-04"):
            smoke_check(graph.serialise(), program, manifest)

    def test_a_lost_operator_is_found_in_int8(self, int8: tuple[Path, PortManifest, StreamProgram]) -> None:
        path, manifest, program = int8
        graph = Graph.parse(path.read_bytes())
        multiply = next(
            o for o in graph.operators if graph.kind(o) == "MUL" and graph.dtype(int(o.outputs[0])) == "int8"
        )
        multiply.inputs = [int(multiply.inputs[1]), int(multiply.inputs[1])]
        with pytest.raises(ConversionError, match="relative error"):
            smoke_check(graph.serialise(), program, manifest, [frames(1)[0]])

    def test_a_refused_graph_says_what_the_runtime_said(self, fp32: tuple[Path, PortManifest, StreamProgram]) -> None:
        path, manifest, program = fp32
        graph = Graph.parse(path.read_bytes())
        convolution = next(o for o in graph.operators if graph.kind(o) == "CONV_2D")
        convolution.inputs = [convolution.inputs[0], convolution.inputs[0], convolution.inputs[2]]
        with pytest.raises(ConversionError, match="TensorFlow Lite refuses the model written for small"):
            smoke_check(graph.serialise(), program, manifest)

    def test_nothing_is_written_when_the_check_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*arguments: object) -> None:
            raise ConversionError("broken")

        monkeypatch.setattr(tflite, "smoke_check", fail)
        path = tmp_path / "small.tflite"
        path.write_bytes(b"the previous build")
        with pytest.raises(ConversionError, match="broken"):
            tflite.emit(small_stream(int8=False), path)
        assert path.read_bytes() == b"the previous build"


class TestPorts:
    def test_an_output_that_is_an_input_gets_a_tensor_of_its_own(self) -> None:
        import torch
        from tflite_models import _port

        from mvtool.ports import InputPort, OutputPort
        from mvtool.program import ModelInfo

        class Through(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
                y = x * 2.0
                return x, y, y

        exported = torch.export.export(Through(), (torch.zeros(1, 3),), strict=False)
        outputs = tuple(OutputPort(**_port(n, (1, 3))) for n in ("same", "twice", "again"))
        program = StreamProgram(exported, ModelInfo("through"), (InputPort(**_port("x", (1, 3))),), (), outputs)
        graph = export_float(program)
        assert len({*graph.inputs, *graph.outputs}) == 4
        x = np.array([[1.0, -2.0, 0.5]], dtype=np.float32)
        (same, twice, again), _ = execute(graph.serialise(), [x])
        np.testing.assert_array_equal(same, x)
        np.testing.assert_array_equal(twice, 2 * x)
        np.testing.assert_array_equal(again, 2 * x)

    def test_the_manifest_says_what_the_artifact_is(
        self, fp32: tuple[Path, PortManifest, StreamProgram], int8: tuple[Path, PortManifest, StreamProgram]
    ) -> None:
        assert (fp32[1].runtime, fp32[1].precision) == (Runtime.TFLITE, Precision.FP32)
        assert int8[1].precision is Precision.INT8
