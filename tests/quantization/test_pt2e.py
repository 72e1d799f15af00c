from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stream_nets import clips, stream_program

from mvtool.errors import ConversionError
from mvtool.ports import Quantization
from mvtool.program import StreamProgram
from mvtool.quantization.calibration import Range, affine, graph_step, port_ranges
from mvtool.quantization.pt2e import QuantizedProgram, Simulation, quantize


@pytest.fixture(scope="module")
def program() -> StreamProgram:
    return stream_program()


@pytest.fixture(scope="module")
def quantized(program: StreamProgram) -> QuantizedProgram:
    return quantize(program, clips())


def nodes(quantized: QuantizedProgram, operator: str) -> list[Any]:
    """The `torch.fx.Node`s of an operator; what their arguments hold has no useful type."""
    return [n for n in quantized.program.exported.graph.nodes if operator in str(n.target)]


def test_both_ends_of_a_state_are_on_one_grid_in_the_graph(quantized: QuantizedProgram, program: StreamProgram) -> None:
    graph = quantized.program.exported.graph
    names = quantized.program.exported.graph_signature.user_inputs
    placeholder = next(n for n in graph.nodes if n.name == names[2])
    (quantizer,) = placeholder.users
    result = next(iter(reversed(graph.nodes))).args[0][2]
    assert "quantize_per_tensor" in str(quantizer.target)
    assert "dequantize_per_tensor" in str(result.target)
    assert quantizer.args[1:] == result.args[1:]
    assert quantizer.args[1] == quantized.ports["past"].scale
    shared = port_ranges(program, clips())["past"]
    assert quantized.ports["past"] == quantized.ports["past_next"] == affine(*shared)


def test_the_camera_port_is_exact(quantized: QuantizedProgram) -> None:
    assert quantized.ports["frame"] == Quantization(scale=float(np.float32(1 / 255)), zero_point=-128)


def test_the_vector_path_has_float_activations_and_int8_weights(quantized: QuantizedProgram) -> None:
    assert {"mean", "count", "logits"}.isdisjoint(quantized.ports)
    for dense in nodes(quantized, "linear"):
        assert "dequantize_per_channel" in str(dense.args[1].target)
        assert "quantize" not in str(dense.args[0].target)
    convolutions = nodes(quantized, "conv2d")
    assert len(convolutions) == 3
    assert all("dequantize_per_channel" in str(c.args[1].target) for c in convolutions)
    weights = {k: v for k, v in quantized.program.exported.state_dict.items() if v.dtype == torch.int8}
    assert len(weights) >= 6
    floats = sum(v.numel() for v in quantized.program.exported.state_dict.values() if v.dtype == torch.float32)
    assert floats < 200, "biases and scales; the float weights must not travel along"
    assert all(int(w.min()) >= -127 for w in weights.values())


def test_the_simulation_is_near_the_float_model_and_on_the_grid(
    quantized: QuantizedProgram, program: StreamProgram
) -> None:
    simulation, step = Simulation(quantized), graph_step(program)
    real: list[NDArray[Any]] = program.initial_ports()
    simulated: list[NDArray[Any]] = program.initial_ports()
    with torch.no_grad():
        for (frame,) in clips(count=1, steps=20, seed=5).clips[0]:
            found = simulation.step([frame, *simulated])
            expected = step([frame, *real])
            simulated, real = list(found.values())[1:], expected[1:]
    signal = float((real[1] ** 2).sum() / ((real[1] - simulated[1]) ** 2).sum())
    assert 10 * np.log10(signal) > 25
    grid = quantized.ports["past"]
    steps = simulated[1] / np.float32(grid.scale)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def test_given_port_ranges_are_used(program: StreamProgram) -> None:
    ranges = port_ranges(program, clips()) | {"past": Range(-8.0, 8.0), "past_next": Range(-8.0, 8.0)}
    assert quantize(program, clips(), ranges).ports["past"] == affine(-8.0, 8.0)


def test_save_and_load_compute_the_same(quantized: QuantizedProgram, program: StreamProgram, tmp_path: Path) -> None:
    quantized.save(tmp_path / "q")
    loaded = QuantizedProgram.load(tmp_path / "q")
    assert dict(loaded.ports) == dict(quantized.ports)
    inputs = [clips().clips[0][0][0], *program.initial_ports()]
    one, other = Simulation(quantized).step(inputs), Simulation(loaded).step(inputs)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    (tmp_path / "q" / "quantization.json").unlink()
    with pytest.raises(ConversionError, match="does not hold a quantized program"):
        QuantizedProgram.load(tmp_path / "q")


def test_untied_states_are_refused(quantized: QuantizedProgram) -> None:
    untied = dict(quantized.ports) | {"past_next": Quantization(scale=0.5, zero_point=0)}
    with pytest.raises(ConversionError, match="both ends must share"):
        replace(quantized, ports=untied)


def test_scales_out_of_proportion_are_refused_by_name(program: StreamProgram) -> None:
    ranges = port_ranges(program, clips()) | {"past": Range(-1e6, 1e6), "past_next": Range(-1e6, 1e6)}
    with pytest.raises(ConversionError, match=r"out of proportion.*add"):
        quantize(program, clips(), ranges)
